//! The directory that a layer is unpacked into: everything happens beneath its root.
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use plyfs_format::names::XattrNamespace;
use plyfs_format::{opaque, whiteout};
use plyfs_layer::remove_tree;
use plyfs_sys::stat::{Kind, Stat, stat_opt};
use plyfs_sys::xattr::SetFlags;
use plyfs_sys::{
    At, Errno, Name, NameBuf, SysError, attr, beneath, dir, make, open, process, xattr,
};

use super::path::joined;
use crate::tar::Entry;

/// Directories kept open: a tar goes through a tree, so most entries are in one of the last few.
const KEPT: usize = 64;
/// Mode of a directory that the archive forgot.
const IMPLICIT_MODE: u32 = 0o755;
const SGID: u32 = 0o2000;
/// Access control lists, that for what is made in a directory first.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_default", b"system.posix_acl_access"];

/// What stands under a name.
pub(super) enum Found {
    Nothing,
    Whiteout,
    Object(Stat),
}

/// A failed step: a refusal in words, or a failed call.
pub(super) enum Stop {
    Refused(String),
    Sys(SysError),
}

impl From<SysError> for Stop {
    fn from(e: SysError) -> Self {
        Self::Sys(e)
    }
}

pub(super) type Step<T> = Result<T, Stop>;

/// The tree, with what is known of its directories.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    pub ns: XattrNamespace,
    kept: HashMap<Vec<u8>, Rc<OwnedFd>>,
    order: VecDeque<Vec<u8>>,
    /// Directories that were made because something is in them, without an entry of their own;
    /// true where one was seen to hold more than whiteouts.
    pub implicit: BTreeMap<Vec<u8>, bool>,
    /// Bytes of the paths of all directories that are remembered.
    pub path_bytes: u64,
    /// Directories that give what is made in them a group or access control lists, which an
    /// archive does not mean: each of its entries says all there is.
    inherited_from: HashSet<Vec<u8>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, ns: XattrNamespace) -> Self {
        Self {
            root,
            ns,
            kept: HashMap::new(),
            order: VecDeque::new(),
            implicit: BTreeMap::from([(Vec::new(), false)]),
            path_bytes: 0,
            inherited_from: HashSet::new(),
        }
    }

    pub(super) fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// Opens a directory that must be there.
    pub(super) fn dir(&mut self, parts: &[NameBuf]) -> Step<Rc<OwnedFd>> {
        let path = joined(parts);
        if let Some(fd) = self.kept.get(&path) {
            return Ok(Rc::clone(fd));
        }
        let fd = if path.is_empty() {
            open::dup(&self.root)?
        } else {
            beneath::open_dir_beneath(self.root, &path)?
        };
        Ok(self.keep(path, fd))
    }

    /// Opens a directory, making what is missing of it. None where a whiteout is in the way and
    /// `revive` does not say that the directory exists again.
    pub(super) fn make_dir(
        &mut self,
        parts: &[NameBuf],
        revive: bool,
    ) -> Step<Option<Rc<OwnedFd>>> {
        match self.dir(parts) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Stop::Sys(e)) if is_missing(e.errno()) => {}
            Err(e) => return Err(e),
        }
        let Some((name, above)) = parts.split_last() else {
            return Err(Stop::Refused("the layer has no root".to_owned()));
        };
        let Some(parent) = self.make_dir(above, revive)? else {
            return Ok(None);
        };
        let revived = match self.found(&parent, name)? {
            Found::Nothing => false,
            Found::Whiteout if !revive => return Ok(None),
            Found::Whiteout => {
                make::unlink(parent.as_fd(), name)?;
                true
            }
            Found::Object(stat) => {
                return Err(Stop::Refused(format!(
                    "{} is {}, not a directory",
                    joined(parts).escape_ascii(),
                    kind_name(stat.kind())
                )));
            }
        };
        make::mkdir(parent.as_fd(), name, IMPLICIT_MODE)?;
        let at = At::entry(parent.as_fd(), name);
        if self.disinherit(above, at)? {
            attr::chown(at, Some(process::euid()), Some(process::egid()))?;
            attr::chmod(at, IMPLICIT_MODE)?;
        }
        if revived {
            self.mark_opaque(at)?;
        }
        let path = joined(parts);
        self.path_bytes += path.len() as u64;
        self.implicit.insert(path, false);
        self.dir(parts).map(Some)
    }

    /// Notes whether the directory `path`, which now is as `entry` says, gives on what it has.
    pub(super) fn note_heirs(&mut self, path: &[u8], entry: &Entry) {
        let gives = entry.mode & SGID != 0 || entry.xattrs.iter().any(|(n, _)| n == ACLS[0]);
        if gives {
            self.inherited_from.insert(path.to_vec());
        } else {
            self.inherited_from.remove(path);
        }
    }

    /// Takes off the lists that a fresh object has from its directory `parts`; true where it has
    /// its group from there, too, and so needs owner and mode whatever they are to be.
    pub(super) fn disinherit(&self, parts: &[NameBuf], at: At<'_>) -> Step<bool> {
        if self.inherited_from.is_empty() || !self.inherited_from.contains(&joined(parts)) {
            return Ok(false);
        }
        without_lists(at)?;
        Ok(true)
    }

    pub(super) fn found(&self, dir: &OwnedFd, name: &Name) -> Step<Found> {
        Ok(match stat_opt(At::entry(dir.as_fd(), name))? {
            None => Found::Nothing,
            Some(s) if whiteout::is_whiteout_dev(s.mode, s.rdev.0, s.rdev.1) => Found::Whiteout,
            Some(s) => Found::Object(s),
        })
    }

    pub(super) fn mark_opaque(&self, at: At<'_>) -> Step<()> {
        let value = opaque::OPAQUE_VALUE;
        Ok(xattr::set(
            at,
            self.ns.opaque().as_bytes(),
            value,
            SetFlags::empty(),
        )?)
    }

    pub(super) fn make_whiteout(&self, dir: &OwnedFd, name: &Name) -> Step<()> {
        Ok(make::mknod(
            dir.as_fd(),
            name,
            whiteout::WHITEOUT_MODE,
            (0, 0),
        )?)
    }

    /// Removes whatever has the name, and forgets what was known below it.
    pub(super) fn clear(&mut self, parent: &[NameBuf], dir: &OwnedFd, name: &Name) -> Step<()> {
        remove_tree(dir.as_fd(), name)?;
        let mut path = joined(parent);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        self.kept.clear();
        self.order.clear();
        remove_below(&mut self.implicit, &path);
        Ok(())
    }

    /// Whether a directory has no entry and nothing in it but whiteouts.
    pub(super) fn holds_nothing_real(&mut self, path: &[u8], dir: BorrowedFd<'_>) -> Step<bool> {
        // Listed once: a layer may ask again and again about a directory of a million names.
        let Some(seen) = self.implicit.get_mut(path).filter(|seen| !**seen) else {
            return Ok(false);
        };
        let list = open::open_dir_for_list(dir)?;
        dir::for_each(list.as_fd(), |entry| {
            *seen |= entry.kind != Some(Kind::Char);
            Ok::<(), SysError>(())
        })?;
        Ok(!*seen)
    }

    fn keep(&mut self, path: Vec<u8>, fd: OwnedFd) -> Rc<OwnedFd> {
        if self.order.len() >= KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
        let fd = Rc::new(fd);
        self.order.push_back(path.clone());
        self.kept.insert(path, Rc::clone(&fd));
        fd
    }
}

/// Missing, or something else than directories on the way, which is looked at more closely.
fn is_missing(e: Errno) -> bool {
    matches!(e, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
}

/// Takes `top` and what is below it out of a map by path, and looks at nothing else.
pub(super) fn remove_below<V>(map: &mut BTreeMap<Vec<u8>, V>, top: &[u8]) {
    map.remove(top);
    // '0' is the byte after '/'.
    let (from, to) = ([top, b"/"].concat(), [top, b"0"].concat());
    let below = map.range(from..to).map(|(path, _)| path.clone());
    for path in below.collect::<Vec<_>>() {
        map.remove(&path);
    }
}

pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "a file",
        Kind::Dir => "a directory",
        Kind::Symlink => "a symbolic link",
        Kind::Char | Kind::Block => "a device",
        Kind::Fifo => "a named pipe",
        Kind::Socket => "a socket",
    }
}

/// Undoes what a default ACL or a setgid bit above has given to a fresh root.
pub(super) fn plain_root(root: BorrowedFd<'_>) -> Step<()> {
    without_lists(At::object(&root))?;
    attr::chmod(At::object(&root), IMPLICIT_MODE)?;
    Ok(())
}

fn without_lists(at: At<'_>) -> Step<()> {
    for name in ACLS {
        match xattr::remove(at, name) {
            Err(e) if !matches!(e.errno(), Errno::ENODATA | Errno::EOPNOTSUPP) => {
                return Err(e.into());
            }
            _ => {}
        }
    }
    Ok(())
}
