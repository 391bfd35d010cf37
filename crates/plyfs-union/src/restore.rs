//! Taking over from a daemon that died: the inodes the kernel knows are made known again.
//!
//! Each is looked for where the journal has it, by the ordinary merge, and must be what the
//! journal says. The journal says beforehand what a change of a name is going to do, and the disk
//! whether it was done.
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plyfs_layer::{LayerIdx, Obj, Probe, probe};
use plyfs_sys::stat::{Kind, LayerIno};
use plyfs_sys::takeover::Left;
use plyfs_sys::{At, Name, NameBuf, stat};

use crate::config::{OpenError, UnionConfig};
use crate::inode::{Inode, Key, NodeId, Parts};
use crate::journal::{Facts, Intent, Journal, Mover, Slot, slot_of};
use crate::merge::{Ask, Merged};
use crate::table::{InodeRef, Table};
use crate::{Error, Result, Union};

/// What came of taking over.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Inodes that are known again.
    pub inodes: usize,
    /// Inodes that were not found where they should be; who asks for them gets ESTALE.
    pub lost: usize,
}

/// Where a slot's inode is.
struct Found {
    key: Option<Key>,
    parts: Parts,
    /// Nothing has the name any more.
    removed: bool,
}

/// The state of taking over.
struct Restore<'a> {
    union: &'a Union,
    journal: &'a Journal,
    left: &'a mut Left,
    /// What dead daemons were moving: the record of the request, and where to.
    moves: HashMap<Slot, (u16, Mover)>,
    known: HashMap<Slot, InodeRef>,
    lost: HashSet<Slot>,
}

impl Union {
    /// Opens the view of a daemon that died, with its inodes. The layers in `config` are its
    /// descriptors; those of files without names are taken from `left`.
    ///
    /// # Errors
    /// See [`OpenError`]. What is missing of single inodes is no error.
    pub fn take_over(
        config: UnionConfig,
        journal: &Arc<Journal>,
        left: &mut Left,
    ) -> std::result::Result<(Arc<Self>, Restored), OpenError> {
        let union = Self::assemble(config, Some(Arc::clone(journal)), journal.caps())?;
        let (key, parts) = union.root()?;
        let mut restore = Restore {
            union: &union,
            journal,
            left,
            moves: HashMap::new(),
            known: HashMap::new(),
            lost: HashSet::new(),
        };
        restore.begin(key, parts);
        let restored = restore.run();
        union.table.restore_seconds(journal);
        let is_known = |node| union.table.get(node).is_some();
        union.opens.restore(journal, is_known);
        Ok((Arc::new(union), restored))
    }

    /// Tells the kernel what a dead daemon had no time to tell. To be called when requests are
    /// served.
    pub fn tell_changes(&self) {
        let Some(journal) = self.table.journal() else {
            return;
        };
        for slot in journal.used_slots() {
            let Some(facts) = journal.facts(slot).filter(|f| f.untold) else {
                continue;
            };
            self.invalidate(facts.node);
            self.invalidate_listing(journal.node(facts.link.dir()));
        }
    }
}

impl Restore<'_> {
    fn begin(&mut self, key: Key, parts: Parts) {
        for (own, intent) in self.journal.moves() {
            if let Intent::Move(first, second) = intent {
                for mover in [Some(first), second].into_iter().flatten() {
                    self.moves.insert(mover.slot, (own, mover));
                }
            }
        }
        let root = self.union.table.restore(NodeId::ROOT, Some(&key), parts);
        Table::owe(&root, 1);
        self.known.insert(slot_of(NodeId::ROOT), root);
    }

    fn run(mut self) -> Restored {
        for slot in self.journal.used_slots() {
            self.restore(slot);
        }
        let known = std::mem::take(&mut self.known);
        for slot in known.keys() {
            let dir = self.journal.facts(*slot).map(|f| f.link.dir());
            if let Some(dir) = dir
                .and_then(|d| known.get(&d))
                .filter(|_| slot.is_not_root())
            {
                Table::owe(dir, 1);
            }
        }
        for slot in &self.lost {
            self.journal.lose(*slot);
        }
        let lost = self.lost.len();
        // What nobody counts on is forgotten with this.
        drop(known);
        Restored {
            inodes: self.union.table.len(),
            lost,
        }
    }

    /// Restores a slot and what it is found through. A loop and not a recursion: users can make
    /// trees deeper than a stack.
    fn restore(&mut self, slot: Slot) {
        let mut wanted = vec![slot];
        let mut seen = HashSet::new();
        while let Some(slot) = wanted.last().copied() {
            if self.is_settled(slot) {
                wanted.pop();
                continue;
            }
            let Some(facts) = self.journal.facts(slot) else {
                self.lost.insert(slot);
                continue;
            };
            let moves_to = self.moves.get(&slot).map(|(_, mover)| mover.to.dir());
            let through = [Some(facts.link.dir()), moves_to];
            let missing = through.into_iter().flatten().find(|s| !self.is_settled(*s));
            match missing {
                // A circle cannot be; if it is, it is lost.
                Some(dir) if seen.insert((slot, dir)) => wanted.push(dir),
                Some(_) => {
                    self.lost.insert(slot);
                }
                None => self.restore_one(slot, facts),
            }
        }
    }

    fn is_settled(&self, slot: Slot) -> bool {
        self.known.contains_key(&slot) || self.lost.contains(&slot)
    }

    fn restore_one(&mut self, slot: Slot, mut facts: Facts) {
        if let Some((own, mover)) = self.moves.get(&slot).copied() {
            let moved = self.has_moved(&facts, mover);
            self.journal.settle_move(own, moved);
            if moved && mover.follows {
                self.journal.set_link(slot, mover.to);
                if let Some(now) = self.journal.facts(slot) {
                    facts = now;
                }
            }
        }
        match self.find(slot, &facts) {
            Ok(found) => {
                let node = self
                    .union
                    .table
                    .restore(facts.node, found.key.as_ref(), found.parts);
                Table::owe(&node, facts.lookups);
                if let Some(dir) = node.dir().filter(|_| found.removed) {
                    dir.removed.store(true, Ordering::Release);
                }
                if let Some(mtime) = facts.mtime {
                    self.union.times.restore(node.id, mtime);
                }
                self.known.insert(slot, node);
            }
            Err(e) => {
                tracing::warn!(
                    name = facts.name.map(|n| n.as_bytes().escape_ascii().to_string()),
                    "inode {} of a dead daemon is not found again: {e}",
                    facts.node.0
                );
                self.lost.insert(slot);
            }
        }
    }

    /// Whether what was about to move has moved: it is at the new place.
    fn has_moved(&self, facts: &Facts, mover: Mover) -> bool {
        let at = || {
            let dir = self.known.get(&mover.to.dir())?;
            let name = self.journal.name_of(mover.to)?;
            self.upper_at(dir, &name).ok()?
        };
        at().is_some_and(|found| found == facts.id)
    }

    /// The identity of what the upper has under a name, whiteouts included.
    fn upper_at(&self, dir: &Inode, name: &Name) -> Result<Option<LayerIno>> {
        let Some(upper) = dir.upper() else {
            return Ok(None);
        };
        let fd = self.union.reach.dir_fd(upper)?;
        Ok(stat::stat_opt(At::entry(fd.as_fd(), name))?.map(|found| found.id()))
    }

    fn find(&mut self, slot: Slot, facts: &Facts) -> Result<Found> {
        let dir = self.known.get(&facts.link.dir()).ok_or(Error::Stale)?;
        let dir = Arc::clone(dir);
        let name = facts.name.clone().ok_or(Error::Stale)?;
        let is_live = dir.live_dir().is_ok();
        if let Some(number) = facts.pin {
            let pin = self.left.take(number)?;
            return self.find_pinned(facts, pin, (&dir, &name), is_live);
        }
        if facts.removed && !facts.upper && !facts.rising {
            if is_live && self.is_unhidden(&dir, &name)? {
                self.journal.kept_name(slot);
            } else {
                return self.find_removed(facts, &dir, &name);
            }
        }
        self.find_named(facts, &dir, &name)
    }

    /// Whether nothing in the upper hides a lower name.
    fn is_unhidden(&self, dir: &Inode, name: &Name) -> Result<bool> {
        let Some(upper) = dir.upper() else {
            return Ok(true);
        };
        let fd = self.union.reach.dir_fd(upper)?;
        let there = probe(fd.as_fd(), name, self.union.stack.ns, false)?;
        Ok(matches!(there, Probe::Absent) && !self.union.is_hidden_by_name(fd.as_fd(), name)?)
    }

    fn find_named(&self, facts: &Facts, dir: &Arc<Inode>, name: &NameBuf) -> Result<Found> {
        let union = self.union;
        let merged = union.merge(dir, name)?.ok_or(Error::NotFound)?;
        let top = match &merged.upper {
            Some(upper) => Some(upper.id()),
            None => merged.lowers.first().map(|o| o.id()),
        };
        // A copy-up may not have been noted yet: then the upper has what was the lower's.
        let risen = merged.upper.is_some() && (!facts.upper || facts.rising);
        if merged.kind() != facts.kind || (!risen && top != Some(facts.id)) {
            return Err(Error::Malformed("another object has the name"));
        }
        let key = union.key_of(dir, name, &merged)?;
        let st_ino = match risen {
            true => union.st_ino_of(&merged)?,
            false => facts.st_ino,
        };
        let mut parts = union.parts_of(dir, name, merged)?;
        parts.st_ino = st_ino;
        self.note_risen(facts, &parts);
        Ok(Found {
            key: Some(key),
            parts,
            removed: false,
        })
    }

    fn note_risen(&self, facts: &Facts, parts: &Parts) {
        if let Some(upper) = parts
            .upper
            .as_ref()
            .filter(|_| !facts.upper || facts.rising)
        {
            let journal = self.journal;
            journal.rise(facts.node, upper.id(), parts.st_ino, facts.pin);
        }
    }

    /// A file or directory that is reached by a descriptor, unless it still has its name.
    fn find_pinned(
        &self,
        facts: &Facts,
        pin: OwnedFd,
        (dir, name): (&Arc<Inode>, &NameBuf),
        is_live: bool,
    ) -> Result<Found> {
        let union = self.union;
        let found = stat::stat_fd(pin.as_fd())?;
        if facts.upper && !facts.rising && found.id() != facts.id {
            return Err(Error::Malformed("the descriptor is of another object"));
        }
        if is_live && self.upper_at(dir, name)? == Some(found.id()) {
            self.journal.pin(facts.node, None);
            return self.find_named(facts, dir, name);
        }
        let at = At::object(&pin);
        let found = union.stack.seen(LayerIdx::UPPER, at, found)?;
        let merged = union.merge_given(dir, name, at, found)?;
        let gone = found.kind() == Kind::Dir || found.nlink == 0;
        let key = Key::Obj(LayerIdx::UPPER, found.id());
        let mut parts = self.nameless(merged, facts);
        parts.upper = Some(Obj::pinned(LayerIdx::UPPER, found.id(), Arc::new(pin)));
        self.note_risen(facts, &parts);
        Ok(Found {
            key: (!gone).then_some(key),
            parts,
            removed: gone,
        })
    }

    /// What a whiteout or a later object hides.
    fn find_removed(&self, facts: &Facts, dir: &Arc<Inode>, name: &Name) -> Result<Found> {
        let merged = self.union.merge_asking(dir, name, Ask::Lowers)?;
        let merged = merged.ok_or(Error::NotFound)?;
        if merged.top.id() != facts.id || merged.upper.is_some() {
            return Err(Error::Malformed("another object has the name"));
        }
        Ok(Found {
            key: None,
            parts: self.nameless(merged, facts),
            removed: true,
        })
    }

    fn nameless(&self, merged: Merged, facts: &Facts) -> Parts {
        Parts {
            kind: facts.kind,
            st_ino: facts.st_ino,
            upper: None,
            lowers: merged.lowers,
            metacopy: merged.metacopy,
            impure: merged.impure,
            link: None,
            index: merged.index.into_state(),
        }
    }
}
