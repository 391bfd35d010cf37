//! Renaming: `ovl_rename()`'s rules, each rename one atomic step on disk.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockWriteGuard;
use plyfs_format::redirect::DEFAULT_REDIRECT_MAX;
use plyfs_layer::{Obj, Place, Probe, Staged, probe, set_mark};
use plyfs_sys::make::{self, Rename};
use plyfs_sys::stat::Kind;
use plyfs_sys::{Name, NameBuf};
use smallvec::SmallVec;
use std::os::fd::AsFd;

use crate::config::RedirectDir;
use crate::copy_up::DataNeed;
use crate::inode::{Inode, Link, NodeId};
use crate::lock::lock_dirs;
use crate::lookup::Entry;
use crate::merge::Merged;
use crate::sabotage::sabotaged;
use crate::{Error, Result, Union};

/// One end of a rename: a name in a directory, and what it means.
struct End<'a> {
    dir: &'a Arc<Inode>,
    name: &'a Name,
    entry: Option<Entry>,
    merged: Option<Merged>,
    /// Some lower shows the name.
    lower: bool,
    /// The upper has a whiteout there.
    whiteout: bool,
}

impl<'a> End<'a> {
    fn new(dir: &'a Arc<Inode>, name: &'a Name) -> Self {
        Self {
            dir,
            name,
            entry: None,
            merged: None,
            lower: false,
            whiteout: false,
        }
    }

    fn node(&self) -> Option<&Arc<Inode>> {
        self.entry.as_ref().map(|e| &*e.node)
    }

    fn is_dir(&self) -> bool {
        self.node().is_some_and(|n| n.kind == Kind::Dir)
    }
}

impl Union {
    /// Renames `name` in `parent` to `new_name` in `new_parent`.
    ///
    /// # Errors
    /// ENOENT, EEXIST, ENOTEMPTY, ENOTDIR, EISDIR; EXDEV for a directory with a lower part while
    /// redirects are off; EINVAL for RENAME_WHITEOUT, as in the kernel; EROFS, ENOSPC.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
        flags: Rename,
    ) -> Result<()> {
        if self.has_moved_before() {
            return Ok(());
        }
        if flags.contains(Rename::WHITEOUT) || flags.bits() & !7 != 0 {
            return Err(Error::Invalid("rename flags"));
        }
        let (name, new_name) = (Name::new(name)?, Name::new(new_name)?);
        let (dir, new_dir) = (self.inode(parent)?, self.inode(new_parent)?);
        let exchange = flags.contains(Rename::EXCHANGE);
        let same_dir = Arc::ptr_eq(&dir, &new_dir);
        loop {
            let mut old = End::new(&dir, name);
            let mut new = End::new(&new_dir, new_name);
            old.entry = Some(
                self.lookup(parent, name.as_bytes())?
                    .ok_or(Error::NotFound)?,
            );
            new.entry = self.lookup(new_parent, new_name.as_bytes())?;
            if let (Some(a), Some(b)) = (old.node(), new.node())
                && Arc::ptr_eq(a, b)
            {
                return Ok(());
            }
            check_ends(&old, &new, flags)?;
            self.check_protected(&old, &new)?;
            // A refusal must leave nothing copied up, so both are asked before either rises.
            let movers = [Some(&old), exchange.then_some(&new)];
            for end in movers.into_iter().flatten() {
                self.check_movable(end)?;
            }
            for end in movers.into_iter().flatten() {
                let node = end.node().ok_or(Error::NotFound)?;
                self.copy_up(node, DataNeed::AttributesOnly)?;
                if node.is_metacopy() && self.is_redirect_too_long(node, end, same_dir)? {
                    // It needs no redirect when it has its data.
                    self.copy_up(node, DataNeed::All)?;
                }
            }
            if let Some(node) = new.node().filter(|n| n.indexed().is_some()) {
                self.copy_up(node, DataNeed::All)?;
            }
            self.copy_up_dir(&dir)?;
            self.copy_up_dir(&new_dir)?;
            let target = new
                .node()
                .filter(|n| n.kind == Kind::Dir && !exchange)
                .cloned();
            let held: SmallVec<[&Arc<Inode>; 3]> =
                [&dir, &new_dir].into_iter().chain(&target).collect();
            let _names = lock_dirs(&held)?;
            if !self.settle(&mut old)? || !self.settle(&mut new)? {
                continue;
            }
            return if exchange {
                self.exchange(&old, &new)
            } else {
                self.replace(&old, &new)
            };
        }
    }

    /// `may_delete()` of what goes and what is replaced, `may_create()` of what comes.
    fn check_protected(&self, old: &End<'_>, new: &End<'_>) -> Result<()> {
        self.may_drop_names(old.dir)?;
        match new.node() {
            Some(node) => {
                self.may_drop_names(new.dir)?;
                self.may_change(node)?;
            }
            None => self.may_add_name(new.dir, new.name)?,
        }
        self.may_change(old.node().ok_or(Error::NotFound)?)
    }

    /// A directory with a lower part needs a redirect to move (`ovl_can_move()`).
    fn check_movable(&self, end: &End<'_>) -> Result<()> {
        let node = end.node().ok_or(Error::NotFound)?;
        let tied = node.kind == Kind::Dir && node.has_lower();
        if tied && self.options.redirect_dir != RedirectDir::On {
            return Err(Error::CrossDevice);
        }
        Ok(())
    }

    /// Looks again under the locks; false when the name means something else by now.
    fn settle(&self, end: &mut End<'_>) -> Result<bool> {
        end.merged = self.merge(end.dir, end.name)?;
        if let (Some(merged), Some(entry)) = (&mut end.merged, &end.entry) {
            self.give_alias(end.dir, end.name, merged, &entry.node)?;
        }
        end.lower = self.lower_index(end.dir)?.has(end.name);
        match (&end.merged, &end.entry) {
            (Some(merged), Some(entry)) => self.is_entry(end.dir, end.name, merged, entry),
            (None, None) => {
                let obj = end.dir.upper().ok_or(Error::ReadOnly)?;
                let fd = self.reach.dir_fd(obj)?;
                let there = probe(fd.as_fd(), end.name, self.stack.ns, false)?;
                end.whiteout = matches!(there, Probe::Whiteout);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn replace(&self, old: &End<'_>, new: &End<'_>) -> Result<()> {
        let moved = old.node().ok_or(Error::Stale)?;
        let empty = self.stage_empty(new)?;
        self.seal(moved, old, new)?;
        let mut victim = match (&new.merged, new.entry.is_some()) {
            (Some(merged), true) => self.victim(new.dir, new.name, merged)?,
            _ => None,
        };
        let flags = self.replace_flags(old, new)?;
        let shown = match &new.merged {
            Some(merged) => self.count_out(merged, victim.as_ref())?,
            None => None,
        };
        let arrival = self.arrival(moved, old, new)?;
        let victim_obj = victim.as_ref().and_then(|v| v.inode.upper().cloned());
        {
            let mut places = Places::hold(moved.upper(), victim_obj.as_ref());
            if let (Some(victim), Some(place)) = (&mut victim, places.of(victim_obj.as_ref())) {
                victim.keep(self, place, &arrival.new_dir, new.name)?;
            }
            let ends = ((old.dir, old.name), (new.dir, new.name));
            let moving = self.journal_move(moved, ends.0, ends.1);
            self.rename_over(empty, old, new, flags)?;
            if let (Some(victim), Some(place)) = (&mut victim, places.of(victim_obj.as_ref())) {
                victim.leave(place, &arrival.new_dir, new.name);
            }
            arrival.enter(&mut places, moved, old, new);
            moving.done();
        }
        if flags.contains(Rename::EXCHANGE) && !old.lower {
            // The whiteout that came back hides nothing (`ovl_rename()`: cleanup_whiteout).
            let obj = old.dir.upper().ok_or(Error::Stale)?;
            let fd = self.reach.dir_fd(obj)?;
            if let Err(e) = make::unlink(fd.as_fd(), old.name) {
                tracing::warn!("removing a whiteout that hides nothing: {e}");
            }
        }
        if let Some(victim) = &victim {
            let more = new.merged.as_ref().is_some_and(|m| m.top.nlink > 1);
            self.lost_name(victim, more);
        }
        if let (Some(1), Some(node)) = (shown, new.node()) {
            self.drop_from_index(node)?;
        }
        Ok(())
    }

    /// A whiteout is left where a lower shows the old name. Where the new name has one, the two
    /// change places: that is one step and needs no new inode.
    fn replace_flags(&self, old: &End<'_>, new: &End<'_>) -> Result<Rename> {
        if !old.lower {
            let swap = new.whiteout && old.is_dir();
            return Ok(if swap {
                Rename::EXCHANGE
            } else {
                Rename::empty()
            });
        }
        if self.deletes_by_name() {
            // Before the move: what the upper has under the old name shows until it goes.
            self.hide_lower(old.dir, old.name)?;
            let swap = new.whiteout && old.is_dir();
            return Ok(if swap {
                Rename::EXCHANGE
            } else {
                Rename::empty()
            });
        }
        if new.whiteout {
            return Ok(Rename::EXCHANGE);
        }
        if self.writable()?.upper.caps.rename_whiteout {
            return Ok(Rename::WHITEOUT);
        }
        // Without the flag there is no single step that moves and hides; EXDEV makes mv copy.
        Err(Error::CrossDevice)
    }

    /// For a target directory that shows nothing but holds whiteouts: an empty one like it that
    /// can be renamed over, opaque as long as it is there (`ovl_clear_empty()`).
    fn stage_empty(&self, new: &End<'_>) -> Result<Option<Staged<'_>>> {
        let Some(node) = new.node().filter(|n| n.kind == Kind::Dir) else {
            return Ok(None);
        };
        if !self.is_empty_dir(node)? {
            return Err(Error::NotEmpty);
        }
        let Some(obj) = node.upper() else {
            return Ok(None);
        };
        if !self.has_upper_entries(obj)? {
            return Ok(None);
        }
        let staged = self.writable()?.upper.work.stage_dir()?;
        self.shut(staged.at(), new.dir, new.name)?;
        self.copy_attributes(&staged, obj, &self.stat_obj(obj)?)?;
        Ok(Some(staged))
    }

    /// Renames over what the target is, or over an empty directory that takes its place first. If
    /// the rename then fails, the target comes back.
    fn rename_over(
        &self,
        empty: Option<Staged<'_>>,
        old: &End<'_>,
        new: &End<'_>,
        flags: Rename,
    ) -> Result<()> {
        let dir = self.reach.dir_fd(new.dir.upper().ok_or(Error::ReadOnly)?)?;
        let replaced = empty.map(|e| e.publish_swap(dir.as_fd(), new.name));
        let replaced = replaced.transpose()?;
        let renamed = self.rename_upper((old.dir, old.name), (new.dir, new.name), flags);
        if let (Err(_), Some(target)) = (&renamed, replaced)
            && let Err(e) = target.publish_exchange(dir.as_fd(), new.name)
        {
            tracing::warn!("putting back the target of a rename that failed: {e}");
        }
        renamed
    }

    /// A directory that comes to a place where lowers have something must not merge with it; one
    /// with a lower part of its own needs to say where that is.
    fn seal(&self, moved: &Arc<Inode>, from: &End<'_>, to: &End<'_>) -> Result<()> {
        if moved.is_metacopy() {
            return self.set_redirect(moved, from, to);
        }
        if moved.kind != Kind::Dir {
            return Ok(());
        }
        let obj = moved.upper().ok_or(Error::Stale)?;
        if moved.has_lower() {
            return self.set_redirect(moved, from, to);
        }
        if to.dir.has_lower() {
            if self.deletes_by_name() {
                return self.hide_lower(to.dir, to.name);
            }
            self.reach
                .with(obj, |at| set_mark(at, self.stack.ns.opaque(), b"y"))?;
        }
        Ok(())
    }

    fn exchange(&self, old: &End<'_>, new: &End<'_>) -> Result<()> {
        let a = old.node().ok_or(Error::Stale)?;
        let b = new.node().ok_or(Error::NotFound)?;
        self.seal(a, old, new)?;
        self.seal(b, new, old)?;
        let arrivals = (self.arrival(a, old, new)?, self.arrival(b, new, old)?);
        let mut places = Places::hold(a.upper(), b.upper());
        let ends = ((old.dir, old.name), (new.dir, new.name));
        let moving = self.journal_exchange((a, b), ends.0, ends.1);
        self.rename_upper(ends.0, ends.1, Rename::EXCHANGE)?;
        arrivals.0.enter(&mut places, a, old, new);
        arrivals.1.enter(&mut places, b, new, old);
        moving.done();
        Ok(())
    }

    /// Prepares all that can fail of recording where an object will be: nothing may fail between
    /// the rename on disk and the record of it (B2).
    fn arrival(&self, node: &Arc<Inode>, from: &End<'_>, to: &End<'_>) -> Result<Arrival> {
        let (Some(obj), Some(old_dir), Some(new_dir)) =
            (node.upper(), from.dir.upper(), to.dir.upper())
        else {
            return Err(Error::Stale);
        };
        let has_origin = node.has_lower() || node.st_ino() != self.stack.st_ino(obj.id());
        if has_origin && !to.dir.dir_state()?.impure.load(Ordering::Relaxed) {
            self.set_impure(to.dir)?;
        }
        let is_dir = node.kind == Kind::Dir;
        let link = is_dir
            .then(|| self.link_to(to.dir, to.name.to_owned()))
            .transpose()?;
        Ok(Arrival {
            old_dir: Arc::clone(old_dir),
            new_dir: Arc::clone(new_dir),
            link,
        })
    }

    /// Says in the upper where the lowers have a directory that moves (`ovl_set_redirect()`):
    /// by name within the same directory, else by its path from the root.
    fn set_redirect(&self, dir: &Arc<Inode>, from: &End<'_>, to: &End<'_>) -> Result<()> {
        let obj = dir.upper().ok_or(Error::Stale)?;
        let same_dir = Arc::ptr_eq(from.dir, to.dir);
        let value = self.redirect_of(dir, from, same_dir)?;
        let value = if sabotaged("wrong-redirect") {
            b"x".to_vec()
        } else {
            value
        };
        if value.len() > DEFAULT_REDIRECT_MAX && !same_dir {
            // `ovl_get_redirect()`: too long a path is EXDEV, so that mv copies.
            return Err(Error::CrossDevice);
        }
        let mark = self.stack.ns.redirect();
        Ok(self.reach.with(obj, |at| set_mark(at, mark, &value))?)
    }

    fn redirect_of(&self, node: &Arc<Inode>, from: &End<'_>, same_dir: bool) -> Result<Vec<u8>> {
        let had = self.raw_xattr(node, self.stack.ns.redirect().as_bytes())?;
        match had {
            Some(v) if v.starts_with(b"/") || same_dir => Ok(v),
            Some(v) => self.absolute_redirect(from.dir, &v),
            None if same_dir => Ok(from.name.as_bytes().to_vec()),
            None => self.absolute_redirect(from.dir, from.name.as_bytes()),
        }
    }

    fn is_redirect_too_long(
        &self,
        node: &Arc<Inode>,
        from: &End<'_>,
        same_dir: bool,
    ) -> Result<bool> {
        Ok(!same_dir && self.redirect_of(node, from, false)?.len() > DEFAULT_REDIRECT_MAX)
    }

    /// The path of `name` in `dir` as the lowers know it: redirects of parents count.
    fn absolute_redirect(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = vec![name.to_vec()];
        let mut at = Arc::clone(dir);
        while at.id != NodeId::ROOT {
            // The name first: a rename writes the redirect before the name is the new one, so
            // a name without a redirect is the lowers' own.
            let (own, parent) = own_link(&at)?;
            match self.raw_xattr(&at, self.stack.ns.redirect().as_bytes())? {
                Some(v) if v.starts_with(b"/") => {
                    parts.push(v[1..].to_vec());
                    break;
                }
                Some(v) => parts.push(v),
                None => parts.push(own.as_bytes().to_vec()),
            }
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        Ok(path)
    }
}

fn own_link(dir: &Inode) -> Result<(NameBuf, Arc<Inode>)> {
    dir.link
        .lock()
        .as_ref()
        .map(|l| (l.name.clone(), Arc::clone(&l.parent)))
        .ok_or(Error::Stale)
}

/// What the VFS checks before it asks, for those who use the engine without it.
fn check_ends(old: &End<'_>, new: &End<'_>, flags: Rename) -> Result<()> {
    let exchange = flags.contains(Rename::EXCHANGE);
    if exchange && flags.contains(Rename::NOREPLACE) {
        return Err(Error::Invalid("rename flags"));
    }
    match (new.node(), exchange) {
        (None, true) => Err(Error::NotFound),
        (None, false) | (Some(_), true) => Ok(()),
        (Some(_), false) if flags.contains(Rename::NOREPLACE) => Err(Error::Exists),
        (Some(_), false) if old.is_dir() && !new.is_dir() => Err(Error::NotDir),
        (Some(_), false) if !old.is_dir() && new.is_dir() => Err(Error::IsDir),
        (Some(_), false) => Ok(()),
    }
}

/// Where a moving object will be.
struct Arrival {
    old_dir: Arc<Obj>,
    new_dir: Arc<Obj>,
    link: Option<Link>,
}

impl Arrival {
    /// Records the new place of an object; the caller has held its place since before the rename.
    fn enter(self, places: &mut Places<'_>, node: &Inode, from: &End<'_>, to: &End<'_>) {
        if let Some(place) = places.of(node.upper()) {
            place.remove_name(&self.old_dir, from.name);
            place.add_name(&self.new_dir, to.name.to_owned());
        }
        let before = std::mem::replace(&mut *node.link.lock(), self.link);
        drop(before);
        from.dir.touch_names();
        to.dir.touch_names();
    }
}

/// The places of one or two objects, held for writing; taken in the order of their serials.
struct Places<'a> {
    held: SmallVec<[(u64, RwLockWriteGuard<'a, Place>); 2]>,
}

impl<'a> Places<'a> {
    fn hold(a: Option<&'a Arc<Obj>>, b: Option<&'a Arc<Obj>>) -> Self {
        let mut objs: SmallVec<[&'a Arc<Obj>; 2]> = a.into_iter().chain(b).collect();
        objs.sort_by_key(|o| o.serial());
        objs.dedup_by_key(|o| o.serial());
        Self {
            held: objs
                .into_iter()
                .map(|o| (o.serial(), o.place_mut()))
                .collect(),
        }
    }

    fn of(&mut self, obj: Option<&Arc<Obj>>) -> Option<&mut Place> {
        let serial = obj?.serial();
        self.held
            .iter_mut()
            .find(|(s, _)| *s == serial)
            .map(|(_, place)| &mut **place)
    }
}
