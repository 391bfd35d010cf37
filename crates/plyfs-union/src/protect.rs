//! The immutable and append-only flags: kept in a mark beside the upper object and enforced here.
//!
//! As in kernel overlayfs the flags are never set on the upper object itself, where they would
//! stop copy-up below it. The FUSE client has no such flags on its inodes, so that what the VFS
//! refuses elsewhere is refused by the engine.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use plyfs_format::protattr::{self, Protection};
use plyfs_layer::{LayerIdx, Obj, Staged, set_mark};
use plyfs_sys::io::{self, FileFlags, FileIoctl};
use plyfs_sys::open::{self, Access};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Errno, Name, xattr};

use crate::copy_up::DataNeed;
use crate::inode::{Inode, NodeId};
use crate::merge::Merged;
use crate::{Error, Result, Union};

/// The flags of an inode, once they have been asked for.
#[derive(Debug, Default)]
pub(crate) struct KnownProtection(AtomicU8);

const KNOWN: u8 = 1;
const APPEND_ONLY: u8 = 2;
const IMMUTABLE: u8 = 4;

impl KnownProtection {
    fn get(&self) -> Option<Protection> {
        let bits = self.0.load(Ordering::Acquire);
        (bits & KNOWN != 0).then_some(Protection {
            append_only: bits & APPEND_ONLY != 0,
            immutable: bits & IMMUTABLE != 0,
        })
    }

    pub(crate) fn set(&self, p: Protection) {
        let bits = if p.append_only { APPEND_ONLY } else { 0 };
        let bits = bits | if p.immutable { IMMUTABLE } else { 0 };
        self.0.store(bits | KNOWN, Ordering::Release);
    }
}

/// What the file system of a layer says of an object itself.
pub(crate) fn own_flags(found: &Stat) -> Protection {
    Protection {
        append_only: found.append_only,
        immutable: found.immutable,
    }
}

fn refuse(refused: bool) -> Result<()> {
    if refused {
        Err(Error::Protected)
    } else {
        Ok(())
    }
}

impl Union {
    fn protection(&self, inode: &Inode) -> Result<Protection> {
        if let Some(known) = inode.protection.get() {
            return Ok(known);
        }
        let found = self.stat_top(inode)?;
        self.learn_protection(inode, &found)
    }

    /// [`Union::protection`] for one who has just read the attributes of the topmost object.
    fn learn_protection(&self, inode: &Inode, found: &Stat) -> Result<Protection> {
        if let Some(known) = inode.protection.get() {
            return Ok(known);
        }
        let read = match inode.upper() {
            Some(obj) => self
                .reach
                .with(obj, |at| self.upper_protection(at, found))?,
            None => own_flags(found),
        };
        inode.protection.set(read);
        Ok(read)
    }

    /// The flags of an upper object: the mark's, and its own where an older kernel set them
    /// (`ovl_check_protattr()`). A mark that says what nobody knows counts as none, as there.
    fn upper_protection(&self, at: At<'_>, found: &Stat) -> Result<Protection> {
        let own = own_flags(found);
        let Some(mark) = xattr::get(at, self.stack.ns.protattr().as_bytes())? else {
            return Ok(own);
        };
        match protattr::parse(&mark) {
            Ok(p) => Ok(Protection {
                append_only: own.append_only || p.append_only,
                immutable: own.immutable || p.immutable,
            }),
            Err(e) => {
                tracing::warn!("protattr xattr: {e}");
                Ok(own)
            }
        }
    }

    /// Owner, mode, xattrs and further names may change (`notify_change()`, `may_write_xattr()`,
    /// `vfs_link()`).
    pub(crate) fn may_change(&self, inode: &Inode) -> Result<()> {
        let p = self.protection(inode)?;
        refuse(p.immutable || p.append_only)
    }

    /// The times may be set to now.
    pub(crate) fn may_touch(&self, inode: &Inode) -> Result<()> {
        refuse(self.protection(inode)?.immutable)
    }

    /// Data may be written at `off`: to an append-only file behind its end alone.
    pub(crate) fn may_write(&self, inode: &Inode, off: u64) -> Result<()> {
        let p = self.protection(inode)?;
        if p.append_only && !p.immutable {
            let size = self.stat_top(inode)?.size;
            return refuse(off < size);
        }
        refuse(p.immutable)
    }

    /// The file may be opened for writing (`may_open()`).
    pub(crate) fn may_open(&self, inode: &Inode, appends: bool) -> Result<()> {
        let p = self.protection(inode)?;
        refuse(p.immutable || p.append_only && !appends)
    }

    /// Whether all that is written to the inode must lie behind the end of the file.
    pub(crate) fn is_append_only(&self, inode: &Inode) -> Result<bool> {
        Ok(self.protection(inode)?.append_only)
    }

    /// A name may be made in a directory.
    pub(crate) fn may_add_name(&self, dir: &Inode, name: &Name) -> Result<()> {
        if self.is_reserved(name) {
            return Err(Error::Invalid(
                "names with .wh. are deletions in this upper",
            ));
        }
        refuse(self.protection(dir)?.immutable)
    }

    /// Names may go from a directory (`may_delete()`, as far as the directory decides).
    pub(crate) fn may_drop_names(&self, dir: &Inode) -> Result<()> {
        self.may_change(dir)
    }

    /// What has a name may lose it (`may_delete()`).
    pub(crate) fn may_lose_name(&self, dir: &Inode, name: &Name, merged: &Merged) -> Result<()> {
        let key = self.key_of(dir, name, merged)?;
        let p = match (self.table.find(&key), &merged.upper, dir.upper()) {
            (Some(inode), ..) => self.learn_protection(&inode, &merged.top)?,
            (None, Some(found), Some(dir)) => {
                let fd = self.reach.dir_fd(dir)?;
                self.upper_protection(At::entry(fd.as_fd(), name), found)?
            }
            _ => own_flags(&merged.top),
        };
        refuse(p.immutable || p.append_only)
    }
}

impl Union {
    /// Keeps the flags of a lower object in the mark of its copy, and gives the copy those that do
    /// not stand in the way (`ovl_copy_fileattr()`).
    pub(crate) fn copy_flags(&self, from: &Obj, found: &Stat, to: &Staged<'_>) -> Result<()> {
        if let Some(mark) = protattr::encode(own_flags(found)) {
            match set_mark(to.at(), self.stack.ns.protattr(), mark) {
                Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EOPNOTSUPP) => {
                    tracing::warn!("a copy loses its immutable or append-only flag: {e}");
                }
                other => other?,
            }
        }
        let Some(lower) = self.open_for_flags(from, found.kind())? else {
            return Ok(());
        };
        let Some(flags) = read_flags(lower.as_fd())? else {
            return Ok(());
        };
        let kept = flags & FileFlags::COPIED;
        if kept.is_empty() {
            return Ok(());
        }
        match to.file() {
            Some(copy) => add_flags(copy, kept),
            None => add_flags(
                open::open_dir_for_list(open::open_path_at(to.at())?.as_fd())?.as_fd(),
                kept,
            ),
        }
    }

    /// Opens an object for the flags of chattr; None for what has none, or keeps them to itself.
    fn open_for_flags(&self, obj: &Obj, kind: Kind) -> Result<Option<OwnedFd>> {
        let opened = match kind {
            Kind::File => self.reach.open_file(obj, Access::READ | Access::NOATIME),
            Kind::Dir => {
                let fd = self.reach.dir_fd(obj)?;
                open::open_dir_for_list(fd.as_fd())
            }
            _ => return Ok(None),
        };
        match opened {
            Err(e) if e.errno() == Errno::EACCES => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// An ioctl of chattr(1) and its kin; answers what the kernel put into the argument.
    ///
    /// # Errors
    /// ENOTTY for an ioctl that is not known here or in the layer; EPERM and the like.
    pub fn ioctl(&self, node: NodeId, op: FileIoctl, data: &[u8]) -> Result<[u8; 32]> {
        let inode = self.inode(node)?;
        if !matches!(inode.kind, Kind::File | Kind::Dir) {
            return Err(Error::NotTty);
        }
        if op.writes() {
            self.copy_up(&inode, DataNeed::AttributesOnly)?;
        }
        let protection = self.protection(&inode)?;
        let obj = inode.top().ok_or(Error::Stale)?;
        let file = match inode.kind {
            Kind::Dir => open::open_dir_for_list(self.reach.dir_fd(&obj)?.as_fd())?,
            _ => self.reach.open_file(&obj, Access::READ)?,
        };
        let mut arg = [0; 32];
        let len = data.len().min(arg.len());
        arg[..len].copy_from_slice(&data[..len]);
        if op.writes() {
            let wanted = protection_in(op, &arg);
            self.keep_protection(&inode, &obj, wanted)?;
            put_protection(op, &mut arg, Protection::default());
            io::file_ioctl(file.as_fd(), op, &arg[..len])?;
            // A file that was opened while the layer's file system had the flags itself must not
            // serve those who come after.
            self.files.remove(inode.id);
            self.invalidate(inode.id);
            return Ok([0; 32]);
        }
        let mut answer = io::file_ioctl(file.as_fd(), op, data)?;
        put_protection(op, &mut answer, protection);
        Ok(answer)
    }

    /// Writes the mark (`ovl_set_protattr()`). It is written before the flags of the object itself
    /// are cleared: a crash in between leaves it protected.
    fn keep_protection(&self, inode: &Inode, obj: &Obj, wanted: Protection) -> Result<()> {
        debug_assert_eq!(obj.layer(), LayerIdx::UPPER);
        let name = self.stack.ns.protattr();
        match protattr::encode(wanted) {
            Some(mark) => {
                let set = self.reach.with(obj, |at| set_mark(at, name, mark));
                match set {
                    Err(e) if e.errno() == Errno::EOPNOTSUPP => return Err(Error::Protected),
                    other => other?,
                }
            }
            None => match self
                .reach
                .with(obj, |at| xattr::remove(at, name.as_bytes()))
            {
                Err(e) if matches!(e.errno(), Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                other => other?,
            },
        }
        inode.protection.set(wanted);
        Ok(())
    }
}

/// The flags of an open object; None where its file system has none.
fn read_flags(fd: BorrowedFd<'_>) -> Result<Option<FileFlags>> {
    match io::flags(fd) {
        Err(e) if matches!(e.errno(), Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP) => {
            Ok(None)
        }
        other => Ok(Some(other?)),
    }
}

/// Adds flags where the file system has such.
fn add_flags(fd: BorrowedFd<'_>, more: FileFlags) -> Result<()> {
    match read_flags(fd)? {
        Some(now) => Ok(io::set_flags(fd, now | more)?),
        None => Ok(()),
    }
}

/// Where the two flags stand in the argument of an ioctl: (append-only, immutable).
fn protection_bits(op: FileIoctl) -> Option<(u32, u32)> {
    match op {
        FileIoctl::GetFlags | FileIoctl::SetFlags => {
            Some((FileFlags::APPEND_ONLY.bits(), FileFlags::IMMUTABLE.bits()))
        }
        FileIoctl::FsGetXattr | FileIoctl::FsSetXattr => {
            Some((io::FSX_APPEND_ONLY, io::FSX_IMMUTABLE))
        }
        FileIoctl::GetVersion => None,
    }
}

fn word(arg: &[u8; 32]) -> u32 {
    u32::from_ne_bytes([arg[0], arg[1], arg[2], arg[3]])
}

fn protection_in(op: FileIoctl, arg: &[u8; 32]) -> Protection {
    let (append_only, immutable) = protection_bits(op).unwrap_or((0, 0));
    Protection {
        append_only: word(arg) & append_only != 0,
        immutable: word(arg) & immutable != 0,
    }
}

fn put_protection(op: FileIoctl, arg: &mut [u8; 32], p: Protection) {
    let Some((append_only, immutable)) = protection_bits(op) else {
        return;
    };
    let mut flags = word(arg) & !(append_only | immutable);
    flags |= if p.append_only { append_only } else { 0 };
    flags |= if p.immutable { immutable } else { 0 };
    arg[..4].copy_from_slice(&flags.to_ne_bytes());
}
