//! Attributes: what `stat` shows, and changing them.
use std::sync::Arc;

use plyfs_layer::Obj;
use plyfs_sys::attr::{self as sys_attr, SetTime};
use plyfs_sys::stat::{Kind, Stat, Time};
use plyfs_sys::{stat, xattr};

use crate::caller::Capability;
use crate::copy_up::DataNeed;
use crate::inode::{Inode, NodeId};
use crate::sabotage::sabotaged;
use crate::{Caller, Error, Result, Union};

/// Attributes of an inode as the view shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number for programs; not what FUSE calls the inode.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node (major, minor).
    pub rdev: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last status change.
    pub ctime: Time,
}

/// Changes of attributes; None leaves one as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// The size comes from `ftruncate(2)`: the times change even if the size does not.
    pub by_handle: bool,
}

impl SetAttr {
    /// Nothing but times, and those to now.
    fn is_touch(&self) -> bool {
        let fixed = |t: &Option<SetTime>| matches!(t, Some(SetTime::To(_)));
        let others = self.mode.or(self.uid).or(self.gid).is_some() || self.size.is_some();
        !others && !fixed(&self.atime) && !fixed(&self.mtime)
    }

    /// The given time of modification, where that is all there is to set.
    fn mtime_alone(&self) -> Option<Time> {
        let others = self.mode.or(self.uid).or(self.gid).is_some()
            || self.size.is_some()
            || self.atime.is_some();
        match self.mtime {
            Some(SetTime::To(mtime)) if !others => Some(mtime),
            _ => None,
        }
    }
}

impl Union {
    /// Attributes of an inode.
    ///
    /// # Errors
    /// ESTALE for an unknown inode; EIO and the like from the layer.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        let inode = self.inode(node)?;
        self.seen_by(node, &inode, self.attr_of(&inode)?)
    }

    pub(crate) fn attr_of(&self, inode: &Arc<Inode>) -> Result<Attr> {
        let found = self.stat_top(inode)?;
        self.show(inode, &found)
    }

    /// Attributes of the object that the view shows of an inode.
    pub(crate) fn stat_top(&self, inode: &Inode) -> Result<Stat> {
        self.stat_obj(&*inode.top().ok_or(Error::Stale)?)
    }

    /// Attributes of an object of a layer.
    pub(crate) fn stat_obj(&self, obj: &Obj) -> Result<Stat> {
        Ok(self
            .reach
            .with(obj, |at| self.stack.seen(obj.layer(), at, stat::stat(at)?))?)
    }

    /// What the view shows of an inode whose topmost object has the attributes `found`.
    pub(crate) fn show(&self, inode: &Arc<Inode>, found: &Stat) -> Result<Attr> {
        let mut blocks = found.blocks;
        if inode.is_metacopy()
            && let Some(data) = inode.data()
        {
            blocks = self.stat_obj(&data)?.blocks;
        }
        Ok(Attr {
            ino: inode.st_ino(),
            mode: found.mode,
            nlink: self.nlink(inode, found)?,
            uid: self.options.ownership.shown_uid(found.uid),
            gid: self.shown_gid(found.gid),
            rdev: found.rdev,
            size: found.size,
            blocks,
            blksize: found.blksize,
            atime: found.atime,
            mtime: self.times.shown(inode.id).unwrap_or(found.mtime),
            ctime: found.ctime,
        })
    }

    /// Changes attributes and answers the new ones.
    ///
    /// # Errors
    /// EROFS without an upper; ENOSPC and the like from copy-up; EPERM, EFBIG from the layer.
    pub fn setattr(&self, caller: &Caller, node: NodeId, set: &SetAttr) -> Result<Attr> {
        let inode = self.inode(node)?;
        if self.keeps_time(&inode)
            && let Some(mtime) = set.mtime_alone()
        {
            return self.set_mtime(&inode, mtime);
        }
        if set.is_touch() {
            self.may_touch(&inode)?;
        } else {
            self.may_change(&inode)?;
        }
        let need = match set.size {
            Some(size) => DataNeed::UpTo(size),
            None => DataNeed::AttributesOnly,
        };
        let touch = self.touches_mtime(&inode, set)?;
        self.copy_up(&inode, need)?;
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        if set.uid.is_some() || set.gid.is_some() {
            self.change_owner(&obj, set.uid, set.gid)?;
            if inode.kind != Kind::Dir {
                self.drop_suid_for(caller, &inode)?;
            }
        }
        if let Some(mode) = set.mode {
            let _no_store = self.times.privileges(inode.id).write();
            self.files.is_privileged(inode.id);
            self.change_mode(&obj, mode & 0o7777)?;
        }
        if let Some(size) = set.size {
            self.truncate(caller, &inode, size, touch)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let atime = set.atime.unwrap_or(SetTime::Omit);
            let mtime = set.mtime.unwrap_or(SetTime::Omit);
            self.set_times(&inode, &obj, atime, mtime)?;
        }
        if set.size.is_some() {
            self.move_if_bound(node, &inode)?;
        }
        self.seen_by(node, &inode, self.attr_of(&inode)?)
    }

    /// Whether the kernel says what the time of modification is.
    fn keeps_time(&self, inode: &Inode) -> bool {
        inode.kind == Kind::File && self.times.is_on()
    }

    /// The kernel tells the time it has kept. It also does so where only its own idea of the
    /// change time has moved (a name came or went), and then there is nothing to copy up.
    fn set_mtime(&self, inode: &Arc<Inode>, to: Time) -> Result<Attr> {
        let top = inode.top().ok_or(Error::Stale)?;
        let mut found = self.stat_obj(&top)?;
        if found.mtime == to && self.times.shown(inode.id).is_none() {
            return self.show(inode, &found);
        }
        // An append moves the time too, and the kernel does not say why it moved.
        self.may_touch(inode)?;
        let in_upper = inode.upper().is_some();
        self.copy_up(inode, DataNeed::AttributesOnly)?;
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        self.set_times(inode, &obj, SetTime::Omit, SetTime::To(to))?;
        if !in_upper {
            return self.attr_of(inode);
        }
        found.mtime = to;
        self.show(inode, &found)
    }

    fn set_times(&self, inode: &Inode, obj: &Obj, atime: SetTime, mtime: SetTime) -> Result<()> {
        let set = || {
            self.reach
                .with(obj, |at| sys_attr::utimens(at, atime, mtime))
                .map_err(Error::from)
        };
        match mtime {
            SetTime::To(to) if self.keeps_time(inode) => self.times.set(inode.id, to, set),
            _ => set(),
        }
    }

    /// Puts the time on disk that a file shows, if that on disk is of a later store.
    pub(crate) fn settle_time(&self, node: NodeId) {
        let set = |mtime| {
            let Some(inode) = self.table.get(node) else {
                return Ok(());
            };
            let obj = inode.upper().ok_or(Error::ReadOnly)?;
            let to = SetTime::To(mtime);
            Ok(self
                .reach
                .with(obj, |at| sys_attr::utimens(at, SetTime::Omit, to))?)
        };
        if let Err(e) = self.times.settle(node, set) {
            tracing::warn!("the modification time of inode {}: {e}", node.0);
        }
    }

    /// Whether a new size sets the time of modification although it may be the old one. FUSE
    /// tells `ftruncate(2)` by its handle, but not O_TRUNC from `truncate(2)`: size 0 is taken to
    /// be the former. A copy-up that already cut the file leaves no change of size to see.
    fn touches_mtime(&self, inode: &Arc<Inode>, set: &SetAttr) -> Result<bool> {
        let Some(size) = set.size else {
            return Ok(false);
        };
        if self.keeps_time(inode) {
            return Ok(true);
        }
        if set.by_handle || size == 0 {
            return Ok(true);
        }
        if inode.upper().is_some() && !inode.is_metacopy() {
            return Ok(false);
        }
        let top = inode.top().ok_or(Error::Stale)?;
        Ok(self.stat_obj(&top)?.size != size)
    }

    fn truncate(&self, caller: &Caller, inode: &Arc<Inode>, size: u64, touch: bool) -> Result<()> {
        if inode.kind != Kind::File {
            return Err(if inode.kind == Kind::Dir {
                Error::IsDir
            } else {
                Error::Invalid("only a regular file has a size to set")
            });
        }
        self.drop_suid_for(caller, inode)?;
        let file = self.write_file(inode)?;
        let _change = self.change(inode, &file)?;
        if touch {
            sys_attr::truncate(file.fd(), size)?;
        } else {
            sys_attr::truncate_by_path(file.fd(), size)?;
        }
        Ok(())
    }

    /// Clears suid and sgid before `caller` changes the data of a copied-up file, unless the
    /// caller may keep them (`setattr_should_drop_suidgid()`): sgid goes where the group may
    /// execute, or where the caller is not in the group.
    pub(crate) fn drop_suid_for(&self, caller: &Caller, inode: &Arc<Inode>) -> Result<()> {
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        self.drop_apart_capability(&obj)?;
        if sabotaged("suid-kept") || caller.uid == 0 && !caller.drops_suid && caller.pid == 0 {
            return Ok(());
        }
        let found = self.stat_obj(&obj)?;
        if found.perm() & 0o6000 == 0 || caller.has(Capability::Fsetid) {
            return Ok(());
        }
        let mut kept = found.perm() & !0o4000;
        if kept & 0o2000 != 0 && (kept & 0o010 != 0 || !caller.in_group(self.shown_gid(found.gid)))
        {
            kept &= !0o2000;
        }
        if kept != found.perm() {
            self.change_mode(&obj, kept)?;
            self.invalidate(inode.id);
        }
        Ok(())
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    /// EINVAL when it is none; EIO and the like.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        let top = inode.top().ok_or(Error::Stale)?;
        Ok(self.reach.with(&top, sys_attr::readlink)?)
    }

    /// The raw value of an xattr of the inode's topmost object, for the engine's own use.
    pub(crate) fn raw_xattr(&self, inode: &Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let top = inode.top().ok_or(Error::Stale)?;
        Ok(self.reach.with(&top, |at| xattr::get(at, name))?)
    }
}

impl Union {
    fn nlink(&self, inode: &Inode, found: &Stat) -> Result<u32> {
        if inode.upper().is_some() && inode.index_name().is_some() && inode.is_findable() {
            return self.union_nlink(inode, found);
        }
        if inode.kind == Kind::Dir && self.options.static_nlink {
            return Ok(1);
        }
        Ok(real_nlink(inode, found))
    }
}

/// Link count by the kernel's rules (`ovl_getattr()`): 1 for a directory with a lower part, as no
/// layer alone knows its subdirectories; 0 for a lower file whose only name has been removed.
fn real_nlink(inode: &Inode, found: &Stat) -> u32 {
    if inode.kind == Kind::Dir {
        let merged = inode.has_lower() && inode.upper().is_some() || inode.lowers.dirs().len() > 1;
        return if merged { 1 } else { found.nlink };
    }
    let unlinked = inode.upper().is_none() && !inode.is_findable();
    if unlinked {
        found.nlink.saturating_sub(1)
    } else {
        found.nlink
    }
}
