//! Writing what an upper changes as an image layer, and what a stack shows as one archive.
//!
//! The upper alone is read: what it does not mention has not changed. The layers below are asked
//! where the upper says that they matter: whether a deleted name was there at all, what a renamed
//! directory still holds, where the data of a file with new metadata is. The same stack gives the
//! same bytes.
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use plyfs_format::names::{XattrNamespace, is_foreign_private};
use plyfs_format::{aufs, override_stat};
use plyfs_sys::stat::{Kind, LayerIno, Stat, Time};
use plyfs_sys::{At, Name, NameBuf, attr, io, open, xattr};

use crate::error::{ImageError, Result};
use crate::tar::{self, Meta, Writer};
use crate::view::{Dir, Layers, Leaf, Node};

/// Bytes of a file that are read at a time.
const BUFFER: usize = 1 << 20;
/// Labels of the machine a layer was made on, not of what is in it.
const HOST_LABEL: &[u8] = b"security.selinux";
const CAPABILITY: &[u8] = b"security.capability";

/// How a layer is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which xattrs are marks of the upper.
    pub namespace: XattrNamespace,
    /// Later modification times are written as this one (SOURCE_DATE_EPOCH).
    pub latest: Option<Time>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// Writes what `upper` changes over `lowers` (topmost first) as an image layer.
///
/// # Errors
/// When a layer cannot be read, changes meanwhile, or `out` fails.
pub fn write_changes<W: Write>(
    upper: &Path,
    lowers: &[PathBuf],
    out: W,
    options: Options,
) -> Result<(W, Written)> {
    let below = Layers::open(lowers.iter().map(PathBuf::as_path))?;
    let all = Layers::open(std::iter::once(upper).chain(lowers.iter().map(PathBuf::as_path)))?;
    let mut work = LayerWriter::new(&all, out, options);
    if let Some(new) = all.root()? {
        let old = below.root()?;
        if old
            .as_ref()
            .is_none_or(|old| differs(old, &new, options.namespace))
        {
            work.dir_entry(b".", &new)?;
        }
        if new.is_cut() && old.is_some() {
            work.empty(aufs::OPAQUE_MARKER)?;
        }
        let cut = new.is_cut();
        let old = old.filter(|_| !cut);
        work.changes(&below, b"", old.as_ref(), &new, cut)?;
    }
    work.finish()
}

/// Writes all that a stack (topmost first) shows.
///
/// # Errors
/// As [`write_changes`].
pub fn write_all<W: Write>(layers: &[PathBuf], out: W, options: Options) -> Result<(W, Written)> {
    let all = Layers::open(layers.iter().map(PathBuf::as_path))?;
    let none = Layers::open([])?;
    let mut work = LayerWriter::new(&all, out, options);
    if let Some(root) = all.root()? {
        work.dir_entry(b".", &root)?;
        work.changes(&none, b"", None, &root, true)?;
    }
    work.finish()
}

/// Whether two roots differ in what a layer records of them.
fn differs(old: &Dir, new: &Dir, ns: XattrNamespace) -> bool {
    let facts = |s: &Stat| (s.mode, s.uid, s.gid, s.mtime);
    let attrs = |d: &Dir| d.top().map(|at| xattrs(at, ns).ok());
    facts(&old.stat) != facts(&new.stat) || attrs(old) != attrs(new)
}

struct LayerWriter<'a, W: Write> {
    all: &'a Layers,
    tar: Writer<W>,
    options: Options,
    /// Where a file with several names was written first.
    links: HashMap<LayerIno, Vec<u8>>,
    done: Written,
}

impl<'a, W: Write> LayerWriter<'a, W> {
    fn new(all: &'a Layers, out: W, options: Options) -> Self {
        Self {
            all,
            tar: Writer::new(out),
            options,
            links: HashMap::new(),
            done: Written::default(),
        }
    }

    fn finish(self) -> Result<(W, Written)> {
        let out = self.tar.finish().map_err(write_failed)?;
        Ok((out, self.done))
    }

    /// Writes what is in a directory and not, or not so, in `old`. `cut`: everything it shows
    /// counts, not only what the upper has.
    fn changes(
        &mut self,
        below: &Layers,
        path: &[u8],
        old: Option<&Dir>,
        new: &Dir,
        cut: bool,
    ) -> Result<()> {
        let names = if cut {
            new.all_names()?
        } else {
            new.top_names()?
        };
        let mut shown: Vec<(NameBuf, Node, Option<Node>)> = Vec::new();
        for name in names {
            let was = old.map_or(Ok(None), |o| o.child(below, &name))?;
            match (was, new.child(self.all, &name)?) {
                (None, None) => {}
                // Before what is there, as the specification asks.
                (Some(_), None) => self.whiteout(path, &name)?,
                (was, Some(is)) => shown.push((name, is, was)),
            }
        }
        for (name, is, was) in shown {
            let path = join(path, name.as_bytes());
            if aufs::classify(name.as_bytes()) != aufs::AufsName::Plain {
                return Err(ImageError::entry(
                    &path,
                    "an image layer cannot have such a name",
                ));
            }
            match is {
                Node::Leaf(leaf) if cut || leaf.layer == 0 => {
                    self.leaf(&path, &leaf, new, &name)?
                }
                Node::Leaf(_) => {}
                Node::Dir(dir) => {
                    let cuts = dir.layer() == 0 && dir.is_cut();
                    self.dir_entry(&path, &dir)?;
                    let was = match was {
                        Some(Node::Dir(was)) => Some(was),
                        _ => None,
                    };
                    if (cuts || cut) && was.is_some() {
                        self.empty(&join(&path, aufs::OPAQUE_MARKER))?;
                    }
                    let was = was.filter(|_| !(cuts || cut));
                    self.changes(below, &path, was.as_ref(), &dir, cut || cuts)?;
                }
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8], name: &Name) -> Result<()> {
        let path = join(path, &[aufs::WHITEOUT_PREFIX, name.as_bytes()].concat());
        self.empty(&path)
    }

    /// Writes a whiteout or opaque marker.
    fn empty(&mut self, path: &[u8]) -> Result<()> {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        if name.len() > plyfs_sys::name::NAME_MAX {
            return Err(ImageError::entry(
                path,
                "the name is too long for a whiteout: an image layer cannot delete it",
            ));
        }
        self.put(&Meta {
            path,
            kind: tar::Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            link: b"",
            rdev: (0, 0),
            xattrs: &[],
        })
    }

    fn put(&mut self, meta: &Meta<'_>) -> Result<()> {
        self.done.entries += 1;
        self.tar.entry(meta).map_err(write_failed)
    }

    fn meta<'m>(&self, path: &'m [u8], stat: &Stat, kind: tar::Kind) -> Meta<'m> {
        let mtime = self
            .options
            .latest
            .map_or(stat.mtime, |l| l.min(stat.mtime));
        Meta {
            path,
            kind,
            mode: stat.perm(),
            uid: stat.uid,
            gid: stat.gid,
            size: 0,
            mtime,
            link: b"",
            rdev: stat.rdev,
            xattrs: &[],
        }
    }

    fn dir_entry(&mut self, path: &[u8], dir: &Dir) -> Result<()> {
        let xattrs = match dir.top() {
            Some(at) => xattrs(at, self.options.namespace)?,
            None => Vec::new(),
        };
        let meta = self.meta(path, &dir.stat, tar::Kind::Dir);
        self.put(&Meta {
            rdev: (0, 0),
            xattrs: &xattrs,
            ..meta
        })
    }

    fn leaf(&mut self, path: &[u8], leaf: &Leaf, dir: &Dir, name: &Name) -> Result<()> {
        let kind = match leaf.stat.kind() {
            Kind::File => tar::Kind::File,
            Kind::Symlink => tar::Kind::Symlink,
            Kind::Char => tar::Kind::Char,
            Kind::Block => tar::Kind::Block,
            Kind::Fifo => tar::Kind::Fifo,
            // Nobody listens any more.
            Kind::Socket => return Ok(()),
            Kind::Dir => return Err(ImageError::entry(path, "it became a directory")),
        };
        if leaf.stat.nlink > 1 {
            if let Some(first) = self.links.get(&leaf.stat.id()) {
                let first = first.clone();
                let meta = self.meta(path, &leaf.stat, tar::Kind::HardLink);
                return self.put(&Meta {
                    link: &first,
                    rdev: (0, 0),
                    ..meta
                });
            }
            self.links.insert(leaf.stat.id(), path.to_vec());
        }
        let xattrs = xattrs(leaf.at(), self.options.namespace)?;
        let link = match kind {
            tar::Kind::Symlink => attr::readlink(leaf.at())?,
            _ => Vec::new(),
        };
        let is_file = kind == tar::Kind::File;
        let is_device = matches!(kind, tar::Kind::Char | tar::Kind::Block);
        let meta = self.meta(path, &leaf.stat, kind);
        self.put(&Meta {
            size: if is_file { leaf.stat.size } else { 0 },
            link: &link,
            rdev: if is_device { leaf.stat.rdev } else { (0, 0) },
            xattrs: &xattrs,
            ..meta
        })?;
        if is_file && leaf.stat.size > 0 {
            let data = dir.data(self.all, name, self.options.namespace)?;
            let fd = open::open_file(data.at(), open::Access::READ)?;
            self.data(path, &fd, leaf.stat.size)?;
        }
        Ok(())
    }

    fn data(&mut self, path: &[u8], fd: &OwnedFd, size: u64) -> Result<()> {
        let mut buf = vec![0u8; usize::try_from(size).unwrap_or(BUFFER).min(BUFFER)];
        let mut at = 0;
        while at < size {
            let want = usize::try_from(size - at).unwrap_or(BUFFER).min(buf.len());
            let n = io::pread(fd.as_fd(), &mut buf[..want], at)?;
            if n == 0 {
                let why = "it became shorter while it was read: stop what writes to it";
                return Err(ImageError::entry(path, why));
            }
            self.tar.data(&buf[..n]).map_err(write_failed)?;
            at += n as u64;
        }
        self.done.bytes += size;
        Ok(())
    }
}

fn write_failed(e: std::io::Error) -> ImageError {
    ImageError::stream("writing the layer", e)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

/// The xattrs that belong to an object and not to the overlay or the machine.
fn xattrs(at: At<'_>, ns: XattrNamespace) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let other = match ns {
        XattrNamespace::Trusted => XattrNamespace::User,
        XattrNamespace::User => XattrNamespace::Trusted,
    };
    let mut found = Vec::new();
    for name in xattr::list(at)? {
        let hidden = other.is_private(&name)
            || is_foreign_private(&name)
            || name == HOST_LABEL
            || override_stat::NAMES.iter().any(|n| name == n.as_bytes());
        let Some(shown) = ns.from_disk(&name).filter(|_| !hidden) else {
            continue;
        };
        if let Some(value) = xattr::get(at, &name)? {
            let value = if name == CAPABILITY {
                portable_capability(value)
            } else {
                value
            };
            found.push((shown.into_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// A capability that was set in a user namespace names its root; images are for any.
fn portable_capability(value: Vec<u8>) -> Vec<u8> {
    const REVISION_3: u8 = 3;
    const REVISION_2: u8 = 2;
    // The revision is the highest byte of the little-endian magic; the root's id comes last.
    if value.len() == 24 && value.get(3) == Some(&REVISION_3) {
        let mut value = value;
        value.truncate(20);
        if let Some(revision) = value.get_mut(3) {
            *revision = REVISION_2;
        }
        return value;
    }
    value
}

#[cfg(test)]
mod tests;
