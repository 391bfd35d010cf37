//! Unpacking a layer: a tar stream from a stranger becomes a directory that can be mounted.
//!
//! Everything happens beneath the layer's root; what an archive may not do is refused with the
//! name of the entry. `.wh.` names become the whiteouts and opaque marks of overlayfs, which
//! every lookup understands without a second question. The caller throws the whole directory
//! away when anything fails.
mod attrs;
mod data;
mod path;
mod tree;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use plyfs_format::names::XattrNamespace;
use plyfs_sys::stat::{self, Time};
use plyfs_sys::{At, Errno, Name, NameBuf, SysError, make, open, thread};

use crate::error::{ImageError, Result};
use crate::limits::Limits;
use crate::tar::{self, Entry, Extent, Kind, Reader, TarError};
use attrs::Attributes;
use data::DataWriter;
use path::{EntryPath, Meaning, joined};
use tree::{Found, Step, Stop, Tree};

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Directories without an entry of their own; the empty path is the root.
    pub implicit: Vec<Vec<u8>>,
    /// Objects whose owner could not be given to them.
    pub owners_lost: u64,
    /// Xattrs that were not set: the file system has none, or they are marks of an overlay.
    pub xattrs_lost: u64,
    /// Device nodes that only root may make.
    pub devices_lost: u64,
}

/// Unpacks the archive into the empty directory `root`, in the calling thread, whose umask
/// changes. Returns the source behind the end of the archive.
///
/// # Errors
/// When the archive is malformed or does what it may not, and when the file system fails.
pub fn apply<R: BufRead>(
    root: BorrowedFd<'_>,
    ns: XattrNamespace,
    source: R,
    limits: &Limits,
) -> Result<(Applied, R)> {
    thread::set_umask(0)?;
    let tar_limits = tar::Limits {
        extra: limits.pax,
        headers: limits.entries.saturating_mul(4),
    };
    let mut reader = Reader::new(source, tar_limits);
    let mut apply = Apply {
        tree: Tree::new(root, ns),
        attributes: Attributes::new(ns),
        limits,
        dir_times: BTreeMap::new(),
        done: Applied::default(),
    };
    tree::plain_root(root).map_err(|e| apply.named(b"/", e))?;
    while let Some(entry) = reader.next_entry()? {
        apply.count(&entry)?;
        apply.entry(&entry, &mut reader)?;
    }
    Ok((apply.finish()?, reader.into_source()))
}

struct Apply<'a> {
    tree: Tree<'a>,
    attributes: Attributes,
    limits: &'a Limits,
    /// Times of directories, set when nothing changes them any more.
    dir_times: BTreeMap<Vec<u8>, (Time, Option<Time>)>,
    done: Applied,
}

/// A failure while data goes from the archive to a file.
enum Broken {
    Archive(TarError),
    Step(Stop),
}

impl From<TarError> for Broken {
    fn from(e: TarError) -> Self {
        Self::Archive(e)
    }
}

impl Apply<'_> {
    fn named(&self, path: &[u8], stop: Stop) -> ImageError {
        match stop {
            Stop::Refused(why) => ImageError::entry(path, why),
            Stop::Sys(e) => ImageError::entry(path, e.to_string()),
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<()> {
        self.done.entries += 1;
        self.done.bytes = self.done.bytes.saturating_add(entry.size);
        let why = if self.done.entries > self.limits.entries {
            format!("the layer has more than {} entries", self.limits.entries)
        } else if self.done.bytes > self.limits.bytes {
            format!(
                "the files of the layer are larger than {} bytes",
                self.limits.bytes
            )
        } else if self.tree.path_bytes > self.limits.dir_paths {
            format!(
                "the paths of the layer's directories are longer than {} bytes together",
                self.limits.dir_paths
            )
        } else {
            return Ok(());
        };
        Err(ImageError::entry(&entry.path, why))
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let refuse = |why: String| ImageError::entry(&entry.path, why);
        let path = EntryPath::parse(&entry.path, self.limits).map_err(refuse)?;
        let done = match path.meaning().map_err(refuse)? {
            Meaning::Ignored => Ok(()),
            Meaning::Root => self.root(entry),
            Meaning::Opaque(dir) => self.opaque(dir),
            Meaning::Whiteout(dir, hidden) => self.whiteout(dir, hidden),
            Meaning::Object(dir, name) if entry.kind == Kind::File => {
                return self.file(entry, dir, name, reader);
            }
            Meaning::Object(dir, name) => self.object(entry, dir, name),
        };
        done.map_err(|e| self.named(&entry.path, e))
    }

    fn root(&mut self, entry: &Entry) -> Step<()> {
        if entry.kind != Kind::Dir {
            return Err(Stop::Refused("the root must be a directory".to_owned()));
        }
        let root = self.tree.root();
        self.attributes.set(At::object(&root), entry, false)?;
        self.note_dir(Vec::new(), entry);
        Ok(())
    }

    fn note_dir(&mut self, path: Vec<u8>, entry: &Entry) {
        self.tree.implicit.remove(&path);
        self.tree.note_heirs(&path, entry);
        let len = path.len() as u64;
        if self
            .dir_times
            .insert(path, (entry.mtime, entry.atime))
            .is_none()
        {
            self.tree.path_bytes += len;
        }
    }

    fn opaque(&mut self, parts: &[NameBuf]) -> Step<()> {
        let Some(dir) = self.tree.make_dir(parts, false)? else {
            return Ok(());
        };
        self.tree.mark_opaque(At::object(&*dir))
    }

    fn whiteout(&mut self, parts: &[NameBuf], hidden: &[u8]) -> Step<()> {
        let name = Name::new(hidden)?;
        // What was deleted with its directory needs no whiteout of its own.
        let Some(dir) = self.tree.make_dir(parts, false)? else {
            return Ok(());
        };
        match self.tree.found(&dir, name)? {
            Found::Nothing => self.tree.make_whiteout(&dir, name),
            Found::Whiteout => Ok(()),
            Found::Object(stat) if stat.kind() == stat::Kind::Dir => {
                let path = joined(&[parts, &[name.to_owned()]].concat());
                let child = open::open_dir(dir.as_fd(), name)?;
                if self.tree.holds_nothing_real(&path, child.as_fd())? {
                    self.clear(parts, &dir, name)?;
                    return self.tree.make_whiteout(&dir, name);
                }
                self.tree.mark_opaque(At::entry(dir.as_fd(), name))
            }
            // It hides by itself what is below.
            Found::Object(_) => Ok(()),
        }
    }

    fn clear(&mut self, parent: &[NameBuf], dir: &OwnedFd, name: &Name) -> Step<()> {
        let path = joined(&[parent, &[name.to_owned()]].concat());
        tree::remove_below(&mut self.dir_times, &path);
        self.tree.clear(parent, dir, name)
    }

    fn parent(&mut self, parts: &[NameBuf]) -> Step<std::rc::Rc<OwnedFd>> {
        match self.tree.make_dir(parts, true)? {
            Some(dir) => Ok(dir),
            None => Err(Stop::Refused("its directory was deleted".to_owned())),
        }
    }

    /// Makes anything but a regular file.
    fn object(&mut self, entry: &Entry, parts: &[NameBuf], name: &Name) -> Step<()> {
        let dir = self.parent(parts)?;
        let made = match self.make(entry, &dir, name) {
            Err(Stop::Sys(e)) if e.errno() == Errno::EEXIST => {
                self.make_over(entry, parts, &dir, name)
            }
            other => other.map(|()| true),
        };
        let made = match made {
            Err(Stop::Sys(e)) if e.errno() == Errno::EPERM && self.lacks_devices(entry) => {
                self.done.devices_lost += 1;
                return Ok(());
            }
            other => other?,
        };
        let at = At::entry(dir.as_fd(), name);
        if entry.kind == Kind::HardLink {
            return Ok(());
        }
        let made = made && !self.tree.disinherit(parts, at)?;
        match entry.kind {
            Kind::Dir => {
                self.attributes.set(at, entry, made)?;
                self.note_dir(joined(&[parts, &[name.to_owned()]].concat()), entry);
                Ok(())
            }
            _ => {
                self.attributes.set(at, entry, made)?;
                attrs::set_times(at, entry.mtime, entry.atime)
            }
        }
    }

    /// Container tools leave devices out, too, where only the machine's root could make them.
    fn lacks_devices(&self, entry: &Entry) -> bool {
        matches!(entry.kind, Kind::Char | Kind::Block) && !self.attributes.is_root()
    }

    fn make(&mut self, entry: &Entry, dir: &OwnedFd, name: &Name) -> Step<()> {
        let fd = dir.as_fd();
        let mode = entry.mode & 0o777;
        let node = |kind: stat::Kind| make::mknod(fd, name, kind.mode_bits() | mode, entry.rdev);
        match entry.kind {
            Kind::Dir => make::mkdir(fd, name, mode)?,
            Kind::Symlink if entry.link.is_empty() => {
                return Err(Stop::Refused("the symbolic link says nothing".to_owned()));
            }
            Kind::Symlink => make::symlink(&entry.link, fd, name)?,
            Kind::Char if entry.rdev == (0, 0) => {
                return Err(Stop::Refused(
                    "the character device 0:0 is a whiteout on disk and cannot be in an image"
                        .to_owned(),
                ));
            }
            Kind::Char => node(stat::Kind::Char)?,
            Kind::Block => node(stat::Kind::Block)?,
            Kind::Fifo => node(stat::Kind::Fifo)?,
            Kind::HardLink => self.hard_link(entry, dir, name)?,
            Kind::File => return Err(Stop::Refused("files are made elsewhere".to_owned())),
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, dir: &OwnedFd, name: &Name) -> Step<()> {
        let target = || entry.link.escape_ascii();
        let path = EntryPath::parse(&entry.link, self.limits)
            .map_err(|why| Stop::Refused(format!("hard link to {}: {why}", target())))?;
        let Some((parts, last)) = path.split() else {
            return Err(Stop::Refused("hard link to the root".to_owned()));
        };
        let linked = self.tree.dir(parts).and_then(|from| {
            let found = self.tree.found(&from, last)?;
            match found {
                Found::Object(s) if s.kind() != stat::Kind::Dir => {}
                Found::Object(_) => return Err(Stop::Refused("hard link to a directory".into())),
                _ => return Err(SysError::new("linkat", Errno::ENOENT).into()),
            }
            Ok(make::link(
                At::entry(from.as_fd(), last),
                dir.as_fd(),
                name,
            )?)
        });
        match linked {
            Err(Stop::Sys(e)) if matches!(e.errno(), Errno::ENOENT | Errno::ENOTDIR) => {
                Err(Stop::Refused(format!(
                    "it is a hard link to {}, which is not in this layer",
                    target()
                )))
            }
            other => other,
        }
    }

    /// Something has the name already: a directory takes new attributes, all else is replaced.
    /// Whether the object is new.
    fn make_over(
        &mut self,
        entry: &Entry,
        parts: &[NameBuf],
        dir: &OwnedFd,
        name: &Name,
    ) -> Step<bool> {
        let found = self.tree.found(dir, name)?;
        if let Found::Object(stat) = &found
            && stat.kind() == stat::Kind::Dir
            && entry.kind == Kind::Dir
        {
            return Ok(false);
        }
        if entry.kind == Kind::HardLink {
            let own = [parts, &[name.to_owned()]].concat();
            let to_itself = EntryPath::parse(&entry.link, self.limits).is_ok_and(|p| {
                p.split()
                    .is_some_and(|(d, n)| joined(d) == joined(parts) && n == name)
            });
            if to_itself {
                let own = joined(&own);
                return Err(Stop::Refused(format!(
                    "it is a hard link to itself, {}",
                    own.escape_ascii()
                )));
            }
        }
        self.clear(parts, dir, name)?;
        self.make(entry, dir, name)?;
        if entry.kind == Kind::Dir && matches!(found, Found::Whiteout) {
            self.tree.mark_opaque(At::entry(dir.as_fd(), name))?;
        }
        Ok(true)
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        parts: &[NameBuf],
        name: &Name,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let fd = self
            .new_file(entry, parts, name)
            .map_err(|e| self.named(&entry.path, e))?;
        let written = match &entry.sparse {
            Some(map) => write_sparse(&fd, entry, map, reader),
            None => write_plain(&fd, entry, reader),
        };
        written.map_err(|e| match e {
            Broken::Archive(e) => ImageError::entry(&entry.path, ImageError::from(e).to_string()),
            Broken::Step(e) => self.named(&entry.path, e),
        })?;
        let at = At::object(&fd);
        self.tree
            .disinherit(parts, at)
            .and_then(|inherits| self.attributes.set(at, entry, !inherits))
            .and_then(|()| attrs::set_times(at, entry.mtime, entry.atime))
            .map_err(|e| self.named(&entry.path, e))
    }

    fn new_file(&mut self, entry: &Entry, parts: &[NameBuf], name: &Name) -> Step<OwnedFd> {
        let dir = self.parent(parts)?;
        let mode = entry.mode & 0o777;
        match open::create_file(dir.as_fd(), name, mode) {
            Err(e) if e.errno() == Errno::EEXIST => {
                self.clear(parts, &dir, name)?;
                Ok(open::create_file(dir.as_fd(), name, mode)?)
            }
            other => Ok(other?),
        }
    }

    fn finish(mut self) -> Result<Applied> {
        // What no archive says is the same at every time and place.
        let never = (Time::default(), None);
        let implicit = self.tree.implicit.keys().cloned();
        self.dir_times.extend(implicit.map(|path| (path, never)));
        for (path, (mtime, atime)) in std::mem::take(&mut self.dir_times) {
            let set = || -> Step<()> {
                let opened;
                let root = self.tree.root();
                let at = if path.is_empty() {
                    At::object(&root)
                } else {
                    opened = plyfs_sys::beneath::open_dir_beneath(root, &path)?;
                    At::object(&opened)
                };
                attrs::set_times(at, mtime, atime)
            };
            set().map_err(|e| self.named(&path, e))?;
        }
        self.done.implicit = self.tree.implicit.into_keys().collect();
        self.done.owners_lost = self.attributes.owners_lost;
        self.done.xattrs_lost = self.attributes.xattrs_lost;
        Ok(self.done)
    }
}

fn write_plain<R: BufRead>(
    fd: &OwnedFd,
    entry: &Entry,
    reader: &mut Reader<R>,
) -> std::result::Result<(), Broken> {
    let mut writer = DataWriter::new(fd.as_fd());
    reader.data(|piece| writer.write(piece).map_err(Broken::Step))?;
    writer.finish(entry.size).map_err(Broken::Step)
}

fn write_sparse<R: BufRead>(
    fd: &OwnedFd,
    entry: &Entry,
    map: &[Extent],
    reader: &mut Reader<R>,
) -> std::result::Result<(), Broken> {
    let mut writer = DataWriter::new(fd.as_fd());
    let mut extents = map.iter().filter(|e| e.len > 0);
    let mut left = 0;
    reader.data(|mut piece| {
        while !piece.is_empty() {
            if left == 0 {
                // The map is as long as the data, which the reader has checked.
                let Some(next) = extents.next() else { break };
                writer.seek(next.at);
                left = next.len;
            }
            let n = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            writer.write(&piece[..n]).map_err(Broken::Step)?;
            left -= n as u64;
            piece = &piece[n..];
        }
        Ok::<(), Broken>(())
    })?;
    writer.finish(entry.size).map_err(Broken::Step)
}

#[cfg(test)]
mod tests;
