//! What the engine notes before it changes the disk, and what it makes of a request that a dead
//! daemon has begun.
use std::os::fd::OwnedFd;
use std::sync::Arc;

use plyfs_layer::Obj;
use plyfs_sys::takeover::number;
use plyfs_sys::{Name, xattr};

use crate::inode::{Inode, NodeId};
use crate::journal::{Intent, Journal, Mover, slot_of};
use crate::lookup::Entry;
use crate::table::Table;
use crate::{Error, Result, Union};

/// A name in a directory.
type Spot<'a> = (&'a Arc<Inode>, &'a Name);

/// A move that has been noted and is about to be made on disk. Dropped without [`Moving::done`]
/// it has not been made.
pub(crate) struct Moving<'a> {
    noted: Option<(&'a Journal, &'a Table)>,
    first: Option<(Mover, NodeId)>,
    second: Option<(Mover, NodeId)>,
}

impl Moving<'_> {
    /// The disk has it, and the memory of this process.
    pub(crate) fn done(mut self) {
        let Some((journal, table)) = self.noted.take() else {
            return;
        };
        let movers = [self.first.take(), self.second.take()];
        let unused = movers.into_iter().flatten().map(|(mover, dir)| {
            if !mover.follows {
                return (mover.to, Some(dir));
            }
            let old = journal.set_link(mover.slot, mover.to);
            (old, Some(journal.node(old.dir())))
        });
        // First all stores, then the word that says so, then what nobody needs any more.
        let unused: Vec<_> = unused.collect();
        journal.intend(Intent::Moved);
        for (link, dir) in unused {
            table.moved(dir);
            journal.drop_link(link);
        }
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        let Some((journal, table)) = self.noted.take() else {
            return;
        };
        journal.intend(Intent::None);
        for (mover, dir) in [self.first.take(), self.second.take()]
            .into_iter()
            .flatten()
        {
            table.moved(Some(dir));
            journal.drop_link(mover.to);
        }
    }
}

impl Union {
    /// Notes that `node` is about to go from one place to another.
    pub(crate) fn journal_move(&self, node: &Inode, from: Spot<'_>, to: Spot<'_>) -> Moving<'_> {
        self.journal_moves(self.mover(node, from, to), None)
    }

    /// Notes that two objects are about to change places.
    pub(crate) fn journal_exchange(
        &self,
        nodes: (&Inode, &Inode),
        old: Spot<'_>,
        new: Spot<'_>,
    ) -> Moving<'_> {
        let first = self.mover(nodes.0, old, new);
        self.journal_moves(first, self.mover(nodes.1, new, old))
    }

    fn mover(&self, node: &Inode, from: Spot<'_>, to: Spot<'_>) -> Option<(Mover, NodeId)> {
        let journal = self.table.journal()?;
        let Some(link) = journal.new_link(to.0.id, to.1) else {
            journal.break_off("no room for names");
            return None;
        };
        Table::owe(to.0, 1);
        let mover = Mover {
            slot: slot_of(node.id),
            to: link,
            follows: journal.is_at(node.id, from.0.id, from.1),
        };
        Some((mover, to.0.id))
    }

    fn journal_moves(
        &self,
        first: Option<(Mover, NodeId)>,
        second: Option<(Mover, NodeId)>,
    ) -> Moving<'_> {
        let noted = self.table.journal().map(|journal| (journal, &*self.table));
        if let (Some((journal, _)), Some((mover, _))) = (noted, first) {
            journal.intend(Intent::Move(mover, second.map(|(mover, _)| mover)));
        }
        Moving {
            noted,
            first,
            second,
        }
    }

    /// Notes the descriptor by which an object is reached when its name has gone.
    pub(crate) fn journal_pin(&self, node: &Inode, pin: &Arc<OwnedFd>) {
        if let Some(journal) = self.table.journal() {
            journal.pin(node.id, Some(number(&**pin)));
        }
    }

    /// A file that the journal has by a descriptor has been seen under a name, which will do.
    pub(crate) fn journal_name(&self, dir: &Arc<Inode>, name: &Name, node: &Inode) {
        let Some(journal) = self.table.journal() else {
            return;
        };
        let Some(link) = journal.new_link(dir.id, name) else {
            return journal.break_off("no room for names");
        };
        Table::owe(dir, 1);
        let old = journal.set_link(slot_of(node.id), link);
        journal.pin(node.id, None);
        self.table.moved(Some(journal.node(old.dir())));
        journal.drop_link(old);
    }

    /// Whether the journal has a file by the name `name` in the upper directory `dir`.
    pub(crate) fn is_journaled_at(&self, node: &Inode, dir: &Obj, name: &Name) -> bool {
        let at = self.table.journal().and_then(|j| j.link(node.id));
        at.is_some_and(|(parent, own)| {
            let parent = self.table.get(parent);
            let upper = parent.as_ref().and_then(|p| p.upper());
            *own == *name && upper.is_some_and(|u| u.id() == dir.id())
        })
    }

    fn is_again(&self) -> bool {
        self.table.journal().is_some_and(Journal::is_again)
    }

    /// The kernel asks to remove only what it knows to be there, and lets nobody else touch the
    /// directory meanwhile. So what a request that is sent again does not find, it has removed.
    pub(crate) fn or_removed_before(&self, done: Result<()>) -> Result<()> {
        match done {
            Err(Error::NotFound) if self.is_again() => Ok(()),
            other => other,
        }
    }

    /// As [`Union::or_removed_before`], for what the kernel knows not to be there.
    pub(crate) fn or_made_before(
        &self,
        made: Result<Entry>,
        parent: NodeId,
        name: &[u8],
        fits: impl FnOnce(&Inode) -> bool,
    ) -> Result<Entry> {
        match made {
            Err(Error::Exists) if self.is_again() => self
                .lookup(parent, name)?
                .filter(|found| fits(&found.node))
                .ok_or(Error::Exists),
            other => other,
        }
    }

    /// Whether the rename on this thread was made by a daemon that is dead.
    pub(crate) fn has_moved_before(&self) -> bool {
        let journal = self.table.journal();
        journal.is_some_and(|j| j.is_again() && j.intent() == Intent::Moved)
    }

    /// Whether an attribute was there when the request on this thread came for the first time;
    /// None where no request comes twice.
    pub(crate) fn journal_was_there(&self, obj: &Obj, disk: &[u8]) -> Result<Option<bool>> {
        let Some(journal) = self.table.journal() else {
            return Ok(None);
        };
        match journal.intent() {
            Intent::WasThere => return Ok(Some(true)),
            Intent::WasAbsent => return Ok(Some(false)),
            _ => {}
        }
        let there = self.reach.with(obj, |at| xattr::get(at, disk))?.is_some();
        journal.intend(if there {
            Intent::WasThere
        } else {
            Intent::WasAbsent
        });
        Ok(Some(there))
    }
}
