//! Copy-up: the only place where the backing of an inode rises.
//!
//! Staged in the workdir with everything final, then published by one step: nobody sees half an
//! object (C1), and a crash leaves nothing but litter in the workdir. Parents come first.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plyfs_layer::{LayerIdx, Obj, Staged, set_mark};
use plyfs_sys::attr::{self as sys_attr, SetTime};
use plyfs_sys::open::Access;
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::takeover::number;
use plyfs_sys::{At, Errno, Name, copy, io, stat, xattr};

use crate::inode::{Inode, KnownBy};
use crate::owner::{NewStat, is_acl};
use crate::sabotage::sabotaged;
use crate::stack::UpperLayer;
use crate::{Error, Result, Union};

/// Where file capabilities are kept.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// How much of the data the caller is going to need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataNeed {
    /// Attributes change; the data stays as it is.
    AttributesOnly,
    /// All of it.
    All,
    /// The first bytes: the file is about to be cut to this size.
    UpTo(u64),
}

impl DataNeed {
    fn limit(self, size: u64) -> u64 {
        match self {
            Self::UpTo(limit) => size.min(limit),
            _ => size,
        }
    }
}

impl Union {
    pub(crate) fn writable(&self) -> Result<&UpperLayer> {
        self.stack.upper.as_ref().ok_or(Error::ReadOnly)
    }

    /// Gives the inode an upper object, its parents first.
    pub(crate) fn copy_up(&self, inode: &Arc<Inode>, need: DataNeed) -> Result<()> {
        self.writable()?;
        if inode.upper().is_some() {
            return self.complete_metacopy(inode, need);
        }
        // From the inode to the first ancestor with an upper, then back down.
        let mut chain = vec![Arc::clone(inode)];
        while let Some(parent) = chain.last().and_then(parent_of) {
            if parent.upper().is_some() {
                break;
            }
            chain.push(parent);
        }
        while let Some(next) = chain.pop() {
            let need = if chain.is_empty() {
                need
            } else {
                DataNeed::AttributesOnly
            };
            self.copy_up_one(&next, need)?;
        }
        Ok(())
    }

    fn copy_up_one(&self, inode: &Arc<Inode>, need: DataNeed) -> Result<()> {
        let one_at_a_time = inode.copy_up.lock();
        if inode.upper().is_some() {
            // Whoever was first may have needed attributes alone.
            drop(one_at_a_time);
            return self.complete_metacopy(inode, need);
        }
        let top = inode.lowers.first().ok_or(Error::Stale)?;
        let found = self.stat_obj(&top)?;
        let upper = self.writable()?;
        let metacopy = self.wants_metacopy(upper, inode, &found, need);
        let need = if metacopy { DataNeed::UpTo(0) } else { need };
        let staged = self.stage_copy(upper, inode, &found, need)?;
        if metacopy {
            self.mark_metacopy(&staged, found.size)?;
        }
        self.finish_copy(&staged, &top, &found, inode.indexed().is_some())?;
        if matches!(need, DataNeed::UpTo(_)) && !metacopy && need.limit(found.size) < found.size {
            // What is published is the file after it was cut; a cut that fails later leaves that.
            sys_attr::utimens(staged.at(), SetTime::Omit, SetTime::Now)?;
        }
        self.copy_flags(&top, &found, &staged)?;
        // A metacopy is metadata alone, which file systems store in the order it was made: the marks
        // before the name. The kernel does not wait for it either.
        if inode.kind == Kind::File
            && !metacopy
            && !self.options.volatile
            && found.size > 0
            && !sabotaged("copy-not-synced")
            && let Some(file) = staged.file()
        {
            io::fsync(file, false)?;
        }
        if inode.indexed().is_some() {
            self.publish_in_index(inode, staged)?;
            self.invalidate(inode.id);
            return Ok(());
        }
        let before = inode.st_ino();
        let parent = parent_of(inode);
        self.publish_copy(inode, staged, &found, metacopy)?;
        self.invalidate(inode.id);
        if let Some(parent) = parent.filter(|_| inode.st_ino() != before) {
            self.invalidate_listing(parent.id);
        }
        Ok(())
    }

    /// Whether attributes alone will do (`ovl_need_meta_copy_up()`). A file whose name has gone
    /// has no mark to be found by, so it takes its data along.
    fn wants_metacopy(
        &self,
        upper: &UpperLayer,
        inode: &Inode,
        found: &Stat,
        need: DataNeed,
    ) -> bool {
        self.options.metacopy
            && need == DataNeed::AttributesOnly
            && inode.kind == Kind::File
            && found.size > 0
            && upper.upper.caps.xattr.is_some()
            && inode.link.lock().is_some()
    }

    /// Makes a staged file a metacopy: all hole, of the right size, with the mark.
    fn mark_metacopy(&self, staged: &Staged<'_>, size: u64) -> Result<()> {
        let file = staged.file().ok_or(Error::Stale)?;
        sys_attr::truncate(file, size)?;
        Ok(set_mark(
            staged.at(),
            self.stack.ns.metacopy(),
            plyfs_format::metacopy::encode(),
        )?)
    }

    /// Stages an object of the same kind with the same contents.
    fn stage_copy<'a>(
        &self,
        upper: &'a UpperLayer,
        inode: &Arc<Inode>,
        found: &Stat,
        need: DataNeed,
    ) -> Result<Staged<'a>> {
        let work = &upper.upper.work;
        Ok(match inode.kind {
            Kind::File => {
                let staged = work.stage_file()?;
                let limit = need.limit(found.size);
                if limit > 0 {
                    let data = inode.data().ok_or(Error::Stale)?;
                    let src = self
                        .reach
                        .open_file(&data, Access::READ | Access::NOATIME)?;
                    let dst = staged.file().ok_or(Error::Stale)?;
                    self.copy_data(inode, src.as_fd(), dst, limit)?;
                    if limit < found.size {
                        // A shared-extent copy takes the whole file.
                        sys_attr::truncate(dst, limit)?;
                    }
                }
                staged
            }
            Kind::Dir => work.stage_dir()?,
            Kind::Symlink => {
                let top = inode.top().ok_or(Error::Stale)?;
                work.stage_symlink(&self.reach.with(&top, sys_attr::readlink)?)?
            }
            kind => {
                let (kind, rdev) = self.backing_kind(kind, found.rdev);
                work.stage_node(kind | 0o600, rdev)?
            }
        })
    }

    /// Gives a staged copy the attributes of the lower object: everything but its name.
    fn finish_copy(
        &self,
        staged: &Staged<'_>,
        top: &Obj,
        found: &Stat,
        indexed: bool,
    ) -> Result<()> {
        let known = found.kind() == Kind::Dir || found.nlink == 1 || indexed;
        if known && !sabotaged("no-origin") {
            self.mark_origin(staged, top)?;
        }
        self.copy_attributes(staged, top, found)
    }

    /// Gives a staged object the owner, xattrs, mode and times of another.
    pub(crate) fn copy_attributes(
        &self,
        staged: &Staged<'_>,
        top: &Obj,
        found: &Stat,
    ) -> Result<()> {
        let kind = found.kind();
        let new = NewStat {
            kind,
            rdev: found.rdev,
            uid: Some(found.uid),
            gid: Some(found.gid),
            perm: found.perm(),
        };
        // The owner goes first: changing it takes capabilities away. The mode goes last, as an
        // access control list changes it.
        self.put_owner(staged.at(), &new)?;
        self.reach
            .with(top, |from| self.copy_xattrs(top.layer(), from, staged.at()))?;
        self.put_mode(staged.at(), &new)?;
        let times = (SetTime::To(found.atime), SetTime::To(found.mtime));
        Ok(sys_attr::utimens(staged.at(), times.0, times.1)?)
    }

    /// Copies all xattrs but the overlay's own (`ovl_copy_xattr()`); ACLs and capabilities are
    /// among them. Where the upper cannot take one, only those that grant something are an error.
    fn copy_xattrs(&self, layer: LayerIdx, from: At<'_>, to: At<'_>) -> Result<()> {
        for disk in xattr::list(from)? {
            let Some(name) = self.stack.xattr_from_disk(layer, &disk) else {
                continue;
            };
            if is_acl(&name) && (!self.options.acl || sabotaged("acl-not-copied")) {
                continue;
            }
            let Some(value) = xattr::get(from, &disk)? else {
                continue;
            };
            let name = self.stack.xattr_to_disk(LayerIdx::UPPER, &name);
            match xattr::set(to, &name, &value, xattr::SetFlags::empty()) {
                Err(e) if may_be_left_out(&name, e.errno()) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn mark_origin(&self, staged: &Staged<'_>, top: &Obj) -> Result<()> {
        let origin = self
            .reach
            .with(top, |at| self.stack.make_origin(at, top.id().dev))?;
        // Without a handle the kernel writes an empty mark: "copied up, origin not known".
        let value = origin.map(|o| o.encode()).unwrap_or_default();
        match set_mark(staged.at(), self.stack.ns.origin(), &value) {
            Err(e) if matches!(e.errno(), Errno::EOPNOTSUPP | Errno::EPERM) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Publishes a staged copy where the inode is now; an inode that was unlinked meanwhile
    /// lives on without a name.
    fn publish_copy(
        &self,
        inode: &Arc<Inode>,
        staged: Staged<'_>,
        found: &Stat,
        metacopy: bool,
    ) -> Result<()> {
        loop {
            let Some((parent, name)) = place_of(inode) else {
                if metacopy {
                    // Unlinked just now: without a name the data would not be found again.
                    let dst = staged.file().ok_or(Error::Stale)?;
                    self.fill_metacopy(inode, dst, found, found.size)?;
                }
                return self.keep_nameless(inode, staged);
            };
            let _names = parent.dir_state()?.names.write();
            if !still_at(inode, &parent, &name) {
                continue;
            }
            let dir_obj = Arc::clone(parent.upper().ok_or(Error::Stale)?);
            let dir = self.reach.dir_fd(&dir_obj)?;
            let before = stat::stat_fd(dir.as_fd())?;
            self.set_impure(&parent)?;
            // Nothing that can fail comes between the step on disk and the one in memory (B2).
            let copy = stat::stat(staged.at())?;
            let file = staged.publish_new(dir.as_fd(), &name)?;
            // Copy-up is not a change of the directory that a user made.
            let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
            if !sabotaged("parent-touched")
                && let Err(e) = sys_attr::utimens(At::object(&dir), atime, mtime)
            {
                tracing::warn!("restoring the times of a directory after copy-up: {e}");
            }
            let obj = self.upper_obj(&copy, &dir_obj, name);
            inode.metacopy.store(metacopy, Ordering::Release);
            self.rise(inode, obj, file, Some(found));
            self.table.rekey(inode, KnownBy::Upper);
            parent.touch_names();
            return Ok(());
        }
    }

    fn keep_nameless(&self, inode: &Arc<Inode>, staged: Staged<'_>) -> Result<()> {
        let fd = staged.keep_nameless()?;
        let found = stat::stat_fd(fd.as_fd())?;
        let pin = Arc::new(plyfs_sys::open::dup(&fd)?);
        let obj = Obj::pinned(LayerIdx::UPPER, found.id(), pin);
        let file = (inode.kind == Kind::File).then_some(fd);
        self.rise(inode, obj, file, Some(&found));
        Ok(())
    }

    /// The infallible step in memory after the one on disk (B2). `lower` is what was copied, where
    /// the copy is a file of its own: one name of a hard link then gets its own number too.
    pub(crate) fn rise(
        &self,
        inode: &Arc<Inode>,
        obj: Arc<Obj>,
        file: Option<OwnedFd>,
        lower: Option<&Stat>,
    ) {
        if inode.kind != Kind::Dir && lower.is_some_and(|l| l.nlink > 1) {
            inode.set_st_ino(self.stack.st_ino(obj.id()));
        }
        if let Some(journal) = self.table.journal() {
            let pin = obj.place().pinned.as_ref().map(|fd| number(&**fd));
            journal.rise(inode.id, obj.id(), inode.st_ino(), pin);
        }
        inode.rise(obj);
        match file {
            Some(fd) if !inode.is_metacopy() => {
                self.files.put(inode.id, fd, LayerIdx::UPPER, true);
            }
            Some(_) => {}
            None => self.files.remove(inode.id),
        }
    }

    /// Marks an upper directory as holding objects with an origin (`ovl_set_impure()`), so that
    /// listings look at them.
    pub(crate) fn set_impure(&self, dir: &Arc<Inode>) -> Result<()> {
        let state = dir.dir_state()?;
        if state.impure.load(Ordering::Relaxed) {
            return Ok(());
        }
        let obj = dir.upper().ok_or(Error::Stale)?;
        match self
            .reach
            .with(obj, |at| set_mark(at, self.stack.ns.impure(), b"y"))
        {
            Err(e) if matches!(e.errno(), Errno::EOPNOTSUPP | Errno::EPERM) => {}
            other => other?,
        }
        state.impure.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Brings the data of an upper file that has attributes only.
    fn complete_metacopy(&self, inode: &Arc<Inode>, need: DataNeed) -> Result<()> {
        if need == DataNeed::AttributesOnly || !inode.is_metacopy() {
            return Ok(());
        }
        let _one_at_a_time = inode.copy_up.lock();
        if !inode.is_metacopy() {
            return Ok(());
        }
        let obj = inode.upper().ok_or(Error::Stale)?;
        let before = self.stat_obj(obj)?;
        let dst = self.reach.open_file(obj, Access::READ | Access::WRITE)?;
        let limit = need.limit(before.size);
        if let Err(e) = self.fill_metacopy(inode, dst.as_fd(), &before, limit) {
            self.empty_metacopy(dst.as_fd(), &before);
            return Err(e);
        }
        inode.durable.mark_changed();
        inode.metacopy.store(false, Ordering::Release);
        self.files.put(inode.id, dst, LayerIdx::UPPER, true);
        Ok(())
    }
}

impl Union {
    /// After the data of a metacopy could not be brought: gives back the room that it took, and
    /// the time. The data is still the lower's.
    fn empty_metacopy(&self, dst: BorrowedFd<'_>, before: &Stat) {
        let emptied = sys_attr::truncate(dst, before.size)
            .and_then(|()| io::fallocate(dst, io::PUNCH_HOLE, 0, before.size));
        let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
        let restored = sys_attr::utimens(At::object(&dst), atime, mtime);
        if let Err(e) = emptied.and(restored) {
            tracing::warn!("emptying a metacopy whose data did not come: {e}");
        }
    }

    /// Copies the data of an inode, for all to see who watch.
    fn copy_data(
        &self,
        inode: &Arc<Inode>,
        src: BorrowedFd<'_>,
        dst: BorrowedFd<'_>,
        size: u64,
    ) -> Result<()> {
        let running = self.copies.begin(inode, size);
        let size = if sabotaged("short-copy") {
            size & !1
        } else {
            size
        };
        copy::copy_data_telling(src, dst, size, &mut |upto| running.tell(upto))?;
        running.finish();
        Ok(())
    }

    /// Copies the data a metacopy lacks and takes the mark off. The mark goes last: a crash
    /// before it leaves a metacopy, whose data is still found in the lower.
    fn fill_metacopy(
        &self,
        inode: &Arc<Inode>,
        dst: BorrowedFd<'_>,
        before: &Stat,
        limit: u64,
    ) -> Result<()> {
        let data = inode.data().ok_or(Error::Stale)?;
        let src = self
            .reach
            .open_file(&data, Access::READ | Access::NOATIME)?;
        // Writing clears capabilities, which are no concern of those who bring the data.
        let capability = xattr::get(At::object(&dst), CAPABILITY)?;
        self.copy_data(inode, src.as_fd(), dst, limit)?;
        sys_attr::truncate(dst, limit)?;
        if let Some(value) = capability {
            xattr::set(
                At::object(&dst),
                CAPABILITY,
                &value,
                xattr::SetFlags::empty(),
            )?;
        }
        // Who brings the data is not who changes it; but a file that was cut is a changed one.
        if limit == before.size {
            let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
            sys_attr::utimens(At::object(&dst), atime, mtime)?;
        }
        if !self.options.volatile {
            io::fsync(dst, false)?;
        }
        Ok(xattr::remove(
            At::object(&dst),
            self.stack.ns.metacopy().as_bytes(),
        )?)
    }
}

/// xattrs a copy can do without when the upper refuses them: not ACLs, not security labels.
fn may_be_left_out(name: &[u8], e: Errno) -> bool {
    match e {
        Errno::EOPNOTSUPP => {
            !name.starts_with(b"system.posix_acl_") && !name.starts_with(b"security.")
        }
        Errno::EPERM => name.starts_with(b"trusted."),
        _ => false,
    }
}

fn parent_of(inode: &Arc<Inode>) -> Option<Arc<Inode>> {
    inode.link.lock().as_ref().map(|l| Arc::clone(&l.parent))
}

fn place_of(inode: &Arc<Inode>) -> Option<(Arc<Inode>, plyfs_sys::NameBuf)> {
    inode
        .link
        .lock()
        .as_ref()
        .map(|l| (Arc::clone(&l.parent), l.name.clone()))
}

fn still_at(inode: &Arc<Inode>, parent: &Arc<Inode>, name: &Name) -> bool {
    let link = inode.link.lock();
    link.as_ref()
        .is_some_and(|l| Arc::ptr_eq(&l.parent, parent) && *l.name == *name)
}
