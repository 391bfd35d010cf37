//! Extended attributes: the overlay's own are hidden, a user's names that look like them escaped.
use std::sync::Arc;

use plyfs_format::{acl, names};
use plyfs_layer::LayerIdx;
use plyfs_sys::Errno;
use plyfs_sys::xattr::{self, SetFlags};

use crate::caller::Capability;
use crate::copy_up::{CAPABILITY, DataNeed};
use crate::inode::{Inode, NodeId};
use crate::owner::is_acl;
use crate::{Caller, Error, Result, Union};

impl Union {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// ENODATA where it is not set; EOPNOTSUPP, EPERM and the like from the layer.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        self.may_have_xattr(name)?;
        if names::is_foreign_private(name) {
            return Err(Error::NoData);
        }
        let top = inode.top().ok_or(Error::Stale)?;
        let disk = self.stack.xattr_to_disk(top.layer(), name);
        match self.reach.with(&top, |at| xattr::get_strict(at, &disk)) {
            // The kernel asks before it judges by the mode, and "none can be here" to it is a
            // failure, not an answer (`fuse_get_acl()`).
            Err(e) if is_acl(name) && e.errno() == Errno::EOPNOTSUPP => Err(Error::NoData),
            value => self.value_from_disk(name, value?),
        }
    }

    /// The names of all extended attributes `caller` may see, each followed by a NUL; `trusted.`
    /// ones only for the privileged (`ovl_can_list()`).
    ///
    /// # Errors
    /// EIO and the like from the layer.
    pub fn listxattr(&self, caller: &Caller, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        self.may_have_xattr(b"")?;
        let top = inode.top().ok_or(Error::Stale)?;
        let mut out = Vec::new();
        for name in self.reach.with(&top, xattr::list)? {
            if let Some(shown) = self.stack.xattr_from_disk(top.layer(), &name) {
                if is_acl(&shown) && !self.options.acl {
                    continue;
                }
                if shown.starts_with(b"trusted.") && !caller.has(Capability::SysAdmin) {
                    continue;
                }
                out.extend_from_slice(&shown);
                out.push(0);
            }
        }
        Ok(out)
    }

    /// Sets an extended attribute, copying up first.
    ///
    /// # Errors
    /// EPERM for fuse-overlayfs's own names; EEXIST, ENODATA by the flags; ENOSPC and the like.
    pub fn setxattr(
        &self,
        caller: &Caller,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: SetFlags,
    ) -> Result<()> {
        let inode = self.inode(node)?;
        self.may_have_xattr(name)?;
        if names::is_foreign_private(name) {
            return Err(Error::NotPermitted);
        }
        let value = self.value_to_disk(name, value)?;
        self.may_change(&inode)?;
        self.drop_sgid_by_acl(caller, &inode, name)?;
        self.copy_up(&inode, DataNeed::AttributesOnly)?;
        let disk = self.stack.xattr_to_disk(LayerIdx::UPPER, name);
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        let was_there = match flags.contains(SetFlags::CREATE) {
            true => self.journal_was_there(&obj, &disk)?,
            false => None,
        };
        let set = || {
            let set = self
                .reach
                .with(&obj, |at| xattr::set(at, &disk, &value, flags));
            match set {
                // A daemon that died has set it.
                Err(e) if e.errno() == Errno::EEXIST && was_there == Some(false) => Ok(()),
                other => other,
            }
        };
        if name == CAPABILITY {
            // A store of pages that is in progress would take off what is set now.
            let _no_store = self.times.privileges(inode.id).write();
            self.files.is_privileged(inode.id);
            return Ok(set()?);
        }
        set()?;
        if name == acl::ACCESS_XATTR.as_bytes() {
            self.mode_follows_acl(&obj, &value)?;
        }
        Ok(())
    }

    /// `noxattrs` hides all attributes, `noacl` access control lists.
    fn may_have_xattr(&self, name: &[u8]) -> Result<()> {
        if !self.options.xattrs {
            return Err(Error::NoXattrs);
        }
        if !self.options.acl && is_acl(name) {
            return Err(Error::NotSupported);
        }
        Ok(())
    }

    /// Setting or removing an access ACL by somebody outside the file's group clears sgid, before
    /// anything else and whether there was an ACL or not (`ovl_set_acl()`). The kernel would pass
    /// this as FUSE_SETXATTR_ACL_KILL_SGID.
    fn drop_sgid_by_acl(&self, caller: &Caller, inode: &Arc<Inode>, name: &[u8]) -> Result<()> {
        if name != acl::ACCESS_XATTR.as_bytes() {
            return Ok(());
        }
        let found = self.stat_top(inode)?;
        let sgid = found.perm() & 0o2000 != 0;
        if !sgid || caller.in_group(self.shown_gid(found.gid)) || caller.has(Capability::Fsetid) {
            return Ok(());
        }
        self.copy_up(inode, DataNeed::AttributesOnly)?;
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        self.change_mode(&obj, found.perm() & !0o2000)?;
        self.invalidate(inode.id);
        Ok(())
    }

    /// Removes an extended attribute; one that is not set costs no copy-up.
    ///
    /// # Errors
    /// ENODATA where it is not set; EPERM and the like.
    pub fn removexattr(&self, caller: &Caller, node: NodeId, name: &[u8]) -> Result<()> {
        let inode = self.inode(node)?;
        self.writable()?;
        self.may_have_xattr(name)?;
        self.may_change(&inode)?;
        self.drop_sgid_by_acl(caller, &inode, name)?;
        let disk = self.stack.xattr_to_disk(LayerIdx::UPPER, name);
        if inode.upper().is_none() {
            self.getxattr(node, name)?;
            self.copy_up(&inode, DataNeed::AttributesOnly)?;
        }
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        let was_there = self.journal_was_there(&obj, &disk)?;
        match self.reach.with(&obj, |at| xattr::remove(at, &disk)) {
            // A daemon that died has removed it.
            Err(e) if e.errno() == Errno::ENODATA && was_there == Some(true) => Ok(()),
            other => Ok(other?),
        }
    }
}
