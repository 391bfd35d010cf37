//! Removing names: unlink and rmdir, and the whiteouts they leave.
//!
//! W1: a whiteout is written only where a lower shows the name, by one atomic step.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plyfs_format::nlink::Base;
use plyfs_layer::{LayerIdx, Obj, Place};
use plyfs_sys::make::{self, Rename};
use plyfs_sys::stat::Kind;
use plyfs_sys::{At, Errno, Name, NameBuf, open};

use crate::copy_up::DataNeed;
use crate::inode::{Inode, KnownBy, NodeId};
use crate::lock::lock_dirs;
use crate::lookup::Entry;
use crate::merge::{Ask, Merged};
use crate::sabotage::sabotaged;
use crate::table::InodeRef;
use crate::{Error, Result, Union};

/// An object that is about to lose a name, kept reachable for those who have it open.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) inode: InodeRef,
    pin: Option<Arc<OwnedFd>>,
    /// No name is known any more.
    last: bool,
}

impl Drop for Victim {
    /// The name has not gone, and nobody pins the object.
    fn drop(&mut self) {
        if let (Some(_pin), Some(journal)) = (&self.pin, self.inode.journal()) {
            journal.pin(self.inode.id, None);
        }
    }
}

impl Victim {
    /// Opens a pin if `name` in `dir` is the last name of the object, or the one by which the
    /// journal has it. The caller holds the place for writing until the name has gone, so that two
    /// names that go at once cannot each count on the other.
    pub(crate) fn keep(
        &mut self,
        union: &Union,
        place: &Place,
        dir: &Obj,
        name: &Name,
    ) -> Result<()> {
        let other = |(d, n): &(Arc<Obj>, NameBuf)| d.id() != dir.id() || **n != *name;
        let last = !place.names.iter().any(other);
        if place.pinned.is_none() && (last || union.is_journaled_at(&self.inode, dir, name)) {
            let open = union.files.get(self.inode.id);
            self.pin = match open.filter(|f| f.serves(LayerIdx::UPPER, false)) {
                Some(file) => Some(file.shared()),
                None => {
                    let fd = union.reach.dir_fd(dir)?;
                    let pin = open::open_path_at(At::entry(fd.as_fd(), name))?;
                    Some(Arc::new(pin))
                }
            };
            if let Some(pin) = &self.pin {
                union.journal_pin(&self.inode, pin);
            }
        }
        Ok(())
    }

    /// Takes the name out of the object's place, which the caller holds since before the name
    /// changed on disk: nobody finds the place saying what the disk no longer says.
    pub(crate) fn leave(&mut self, place: &mut Place, dir: &Obj, name: &Name) {
        place.remove_name(dir, name);
        self.last = place.names.is_empty();
        if place.pinned.is_none() {
            place.pinned = self.pin.take();
        }
    }
}

impl Union {
    /// Removes a name that is not a directory.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EROFS, ENOSPC (a whiteout needs an inode) and the like.
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.or_removed_before(self.unlink_once(parent, name))
    }

    fn unlink_once(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        let name = Name::new(name)?;
        let dir = self.inode(parent)?;
        self.may_drop_names(&dir)?;
        self.copy_up_dir(&dir)?;
        let indexed = self.copy_up_indexed(parent, name)?;
        let _names = dir.dir_state()?.names.write();
        let merged = self.merge_asking(&dir, name, Ask::NoMarks)?;
        let mut merged = merged.ok_or(Error::NotFound)?;
        if merged.kind() == Kind::Dir {
            return Err(Error::IsDir);
        }
        self.may_lose_name(&dir, name, &merged)?;
        if let Some(entry) = &indexed {
            self.give_alias(&dir, name, &mut merged, &entry.node)?;
        }
        let mut victim = self.victim(&dir, name, &merged)?;
        let shown = self.count_out(&merged, victim.as_ref())?;
        let whiteout = self.lower_index(&dir)?.has(name) && !sabotaged("no-whiteout");
        let obj = victim.as_ref().and_then(|v| v.inode.upper().cloned());
        {
            let mut place = obj.as_ref().map(|o| o.place_mut());
            if let (Some(victim), Some(place), Some(from)) = (&mut victim, &place, dir.upper()) {
                victim.keep(self, place, from, name)?;
            }
            self.remove_file(&dir, name, merged.upper.is_some(), whiteout)?;
            if let (Some(victim), Some(place), Some(from)) = (&mut victim, &mut place, dir.upper())
            {
                victim.leave(place, from, name);
            }
        }
        dir.touch_names();
        if let Some(victim) = victim {
            self.lost_name(&victim, merged.top.nlink > 1);
        }
        match (&indexed, shown) {
            (Some(entry), Some(1)) => self.drop_from_index(&entry.node),
            _ => Ok(()),
        }
    }

    /// A name of a lower hard link that the index keeps together counts in the copy, so there
    /// must be one before the name goes. The entry keeps the inode known meanwhile.
    fn copy_up_indexed(&self, parent: NodeId, name: &Name) -> Result<Option<Entry>> {
        if self.stack.index.is_none() {
            return Ok(None);
        }
        let Some(entry) = self.lookup(parent, name.as_bytes())? else {
            return Ok(None);
        };
        if entry.node.indexed().is_none() {
            return Ok(None);
        }
        self.copy_up(&entry.node, DataNeed::All)?;
        Ok(Some(entry))
    }

    /// Gives the name of an indexed file its link in the upper before the name moves or goes.
    pub(crate) fn give_alias(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        merged: &mut Merged,
        node: &Inode,
    ) -> Result<()> {
        if merged.index.name.is_some() && merged.index.no_alias {
            self.link_up(dir, name, node)?;
            *merged = self.merge(dir, name)?.ok_or(Error::NotFound)?;
        }
        Ok(())
    }

    /// Before a name of an indexed file goes with its link in the upper: how many show.
    pub(crate) fn count_out(
        &self,
        merged: &Merged,
        victim: Option<&Victim>,
    ) -> Result<Option<u32>> {
        match (&merged.index.name, victim) {
            (Some(_), Some(victim)) => self.count_from(&victim.inode, Base::Upper).map(Some),
            _ => Ok(None),
        }
    }

    fn remove_file(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        in_upper: bool,
        whiteout: bool,
    ) -> Result<()> {
        let dir_obj = dir.upper().ok_or(Error::ReadOnly)?;
        let fd = self.reach.dir_fd(dir_obj)?;
        match (in_upper, whiteout) {
            (true, false) => make::unlink(fd.as_fd(), name)?,
            _ if self.deletes_by_name() => {
                plyfs_layer::hide(fd.as_fd(), name)?;
                if in_upper {
                    make::unlink(fd.as_fd(), name)?;
                }
            }
            (true, true) => {
                let work = &self.writable()?.upper.work;
                drop(work.stage_whiteout()?.publish_over(fd.as_fd(), name)?);
            }
            (false, _) => self
                .writable()?
                .upper
                .work
                .make_whiteout(fd.as_fd(), name)?,
        }
        Ok(())
    }

    /// The known inode that has `name`, to be kept reachable by [`Victim::keep`].
    pub(crate) fn victim(
        &self,
        dir: &Inode,
        name: &Name,
        merged: &Merged,
    ) -> Result<Option<Victim>> {
        let key = self.key_of(dir, name, merged)?;
        let Some(inode) = self.table.find(&key) else {
            return Ok(None);
        };
        let last = inode.upper().is_none();
        if let Some(journal) = self.table.journal().filter(|_| last) {
            journal.loses_name(inode.id);
        }
        Ok(Some(Victim {
            inode,
            pin: None,
            last,
        }))
    }

    /// Records that a known inode has lost a name; `more` says that others are left.
    pub(crate) fn lost_name(&self, victim: &Victim, more: bool) {
        let inode = &victim.inode;
        if let Some(state) = inode.dir() {
            state.removed.store(true, Ordering::Release);
            if let Some(obj) = inode.upper() {
                self.reach.forget(obj);
                self.upper_dirs.removed(obj.id());
            }
            self.upper_cache.remove(inode.id);
            self.lower_cache.remove(inode.id);
        }
        if inode.upper().is_none() || inode.kind == Kind::Dir {
            let link = inode.link.lock().take();
            drop(link);
            self.table.rekey(inode, KnownBy::Nothing);
        } else if victim.last && !more {
            // Nothing can find it by name any more, and its number may be used again.
            self.table.rekey(inode, KnownBy::Nothing);
        }
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY, EBUSY, EROFS, ENOSPC and the like.
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.or_removed_before(self.rmdir_once(parent, name))
    }

    fn rmdir_once(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        let name = Name::new(name)?;
        let dir = self.inode(parent)?;
        self.may_drop_names(&dir)?;
        self.copy_up_dir(&dir)?;
        loop {
            let Some(entry) = self.lookup(parent, name.as_bytes())? else {
                return Err(Error::NotFound);
            };
            if entry.node.kind != Kind::Dir {
                return Err(Error::NotDir);
            }
            self.may_change(&entry.node)?;
            let _names = lock_dirs(&[&dir, &entry.node])?;
            let Some(merged) = self.merge(&dir, name)? else {
                return Err(Error::NotFound);
            };
            if !self.is_entry(&dir, name, &merged, &entry)? {
                continue;
            }
            if !self.is_empty_dir(&entry.node)? && !sabotaged("rmdir-of-anything") {
                return Err(Error::NotEmpty);
            }
            let mut victim = self.victim(&dir, name, &merged)?;
            self.remove_dir(&dir, name, &entry.node, victim.as_mut())?;
            dir.touch_names();
            if let Some(victim) = victim {
                self.lost_name(&victim, false);
            }
            return Ok(());
        }
    }

    /// Whether what was found under the lock is still what was found before it.
    pub(crate) fn is_entry(
        &self,
        dir: &Inode,
        name: &Name,
        merged: &Merged,
        entry: &Entry,
    ) -> Result<bool> {
        let key = self.key_of(dir, name, merged)?;
        Ok(entry.node.has_key(&key))
    }

    fn remove_dir(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        gone: &Arc<Inode>,
        mut victim: Option<&mut Victim>,
    ) -> Result<()> {
        let whiteout = self.lower_index(dir)?.has(name);
        let dir_obj = dir.upper().ok_or(Error::ReadOnly)?;
        let fd = self.reach.dir_fd(dir_obj)?;
        let work = &self.writable()?.upper.work;
        let by_name = self.deletes_by_name();
        if whiteout && by_name {
            plyfs_layer::hide(fd.as_fd(), name)?;
        }
        let Some(obj) = gone.upper() else {
            return match by_name {
                true => Ok(()),
                false => Ok(work.make_whiteout(fd.as_fd(), name)?),
            };
        };
        let mut place = obj.place_mut();
        if let Some(victim) = &mut victim {
            victim.keep(self, &place, dir_obj, name)?;
        }
        if whiteout && !by_name {
            work.stage_whiteout()?.publish_exchange(fd.as_fd(), name)?;
        } else {
            match make::rmdir(fd.as_fd(), name) {
                // Only whiteouts are left inside: the directory goes to the workdir in one step.
                Err(e) if matches!(e.errno(), Errno::ENOTEMPTY | Errno::EEXIST) => {
                    work.discard(fd.as_fd(), name)?;
                }
                other => other?,
            }
        }
        if let Some(victim) = victim {
            victim.leave(&mut place, dir_obj, name);
        }
        Ok(())
    }

    /// Whether an upper directory has any entry on disk.
    pub(crate) fn has_upper_entries(&self, obj: &Arc<Obj>) -> Result<bool> {
        let fd = self.reach.dir_fd(obj)?;
        let list = plyfs_sys::open::open_dir_for_list(fd.as_fd())?;
        let mut any = false;
        plyfs_sys::dir::for_each::<Error>(list.as_fd(), |_| {
            any = true;
            Ok(())
        })?;
        Ok(any)
    }

    /// Renames within the upper; the callers hold the places of what moves.
    pub(crate) fn rename_upper(
        &self,
        from: (&Arc<Inode>, &Name),
        to: (&Arc<Inode>, &Name),
        flags: Rename,
    ) -> Result<()> {
        let old = self.reach.dir_fd(from.0.upper().ok_or(Error::ReadOnly)?)?;
        let new = self.reach.dir_fd(to.0.upper().ok_or(Error::ReadOnly)?)?;
        Ok(make::rename(old.as_fd(), from.1, new.as_fd(), to.1, flags)?)
    }
}
