//! Modification times that the kernel keeps: with writeback caching it says when a file was changed.
//!
//! The kernel stores what programs write some time later, and each such store sets the time on
//! disk to a moment that nobody may see. Mostly the kernel sends the right time next, and then
//! nothing is left to do. Where it does not (its coarse clock has not moved since the time it sent
//! last, or it sent the time first) the right time is put back before the kernel forgets the inode.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use plyfs_sys::stat::Time;

use crate::Result;
use crate::inode::NodeId;
use crate::journal::Journal;

const SHARDS: usize = 64;

/// The time a file shows while the one on disk may be another.
#[derive(Debug)]
struct Kept {
    mtime: Time,
    /// Changes of the data in progress: each of them will move the time on disk.
    changes: u32,
}

#[derive(Debug, Default)]
struct Shard {
    kept: Mutex<HashMap<NodeId, Kept>>,
    /// Held for reading by a store of pages, which takes suid, sgid and capabilities off and puts
    /// them back; for writing by whoever sets them.
    privileges: RwLock<()>,
}

/// The kept times of all files.
#[derive(Debug)]
pub(crate) struct KeptTimes {
    on: AtomicBool,
    count: AtomicUsize,
    shards: [Shard; SHARDS],
    journal: Option<Arc<Journal>>,
}

/// A change of data in progress.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    times: &'a KeptTimes,
    id: NodeId,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.times.shard(self.id).kept.lock().get_mut(&self.id) {
            kept.changes -= 1;
        }
    }
}

impl KeptTimes {
    pub(crate) fn new(journal: Option<Arc<Journal>>) -> Self {
        Self {
            on: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Shard::default()),
            journal,
        }
    }

    /// What is kept is on no disk, so it is noted for the daemon after this one.
    fn note(&self, id: NodeId, mtime: Option<Time>) {
        if let Some(journal) = &self.journal {
            journal.keep_mtime(id, mtime);
        }
    }

    /// A dead daemon has kept this time.
    pub(crate) fn restore(&self, id: NodeId, mtime: Time) {
        let kept = Kept { mtime, changes: 0 };
        self.shard(id).kept.lock().insert(id, kept);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on the kernel keeps the times.
    pub(crate) fn turn_on(&self) {
        self.on.store(true, Ordering::Release);
    }

    /// Whether the kernel keeps the times.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    fn shard(&self, id: NodeId) -> &Shard {
        &self.shards[(id.0 as usize) % SHARDS]
    }

    /// Keeps what a store of pages puts back from being set meanwhile; see [`Shard`].
    pub(crate) fn privileges(&self, id: NodeId) -> &RwLock<()> {
        &self.shard(id).privileges
    }

    /// Before data on disk changes: notes the time the file has now, `found`, unless a time is
    /// kept already. The lock keeps a time that is just being set from coming between.
    pub(crate) fn change(
        &self,
        id: NodeId,
        found: impl FnOnce() -> Result<Time>,
    ) -> Result<Option<Change<'_>>> {
        if !self.is_on() {
            return Ok(None);
        }
        let mut kept = self.shard(id).kept.lock();
        match kept.get_mut(&id) {
            Some(known) => known.changes += 1,
            None => {
                let mtime = found()?;
                self.note(id, Some(mtime));
                kept.insert(id, Kept { mtime, changes: 1 });
                self.count.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(Some(Change { times: self, id }))
    }

    /// Sets the time of a file by `set`; it is kept on only while changes are in progress.
    pub(crate) fn set(
        &self,
        id: NodeId,
        mtime: Time,
        set: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut kept = self.shard(id).kept.lock();
        set()?;
        if let Some(known) = kept.get_mut(&id) {
            known.mtime = mtime;
            let keeps = known.changes > 0;
            self.note(id, keeps.then_some(mtime));
            if !keeps {
                kept.remove(&id);
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// The time a file shows, where the one on disk may be another.
    pub(crate) fn shown(&self, id: NodeId) -> Option<Time> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.shard(id).kept.lock().get(&id).map(|kept| kept.mtime)
    }

    /// Puts the kept time of a file on disk by `set`, if one is kept.
    pub(crate) fn settle(&self, id: NodeId, set: impl FnOnce(Time) -> Result<()>) -> Result<()> {
        match self.shown(id) {
            Some(mtime) => self.set(id, mtime, || set(mtime)),
            None => Ok(()),
        }
    }

    /// Nothing is kept for a file that is known no more.
    pub(crate) fn forget(&self, id: NodeId) {
        if self.count.load(Ordering::Acquire) > 0
            && self.shard(id).kept.lock().remove(&id).is_some()
        {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// All files whose time is kept.
    pub(crate) fn all(&self) -> Vec<NodeId> {
        let of = |shard: &Shard| shard.kept.lock().keys().copied().collect::<Vec<_>>();
        self.shards.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sec: i64) -> Time {
        Time { sec, nsec: 0 }
    }

    #[test]
    fn a_time_set_after_the_change_is_kept_no_more() {
        let times = KeptTimes::new(None);
        times.turn_on();
        let id = NodeId(7);
        drop(times.change(id, || Ok(at(1))).unwrap());
        assert_eq!(times.shown(id), Some(at(1)));
        times.set(id, at(2), || Ok(())).unwrap();
        assert_eq!((times.shown(id), times.all().len()), (None, 0));
    }

    #[test]
    fn a_time_set_during_a_change_is_put_back_afterwards() {
        let times = KeptTimes::new(None);
        times.turn_on();
        let id = NodeId(7);
        let change = times.change(id, || Ok(at(1))).unwrap();
        times.set(id, at(2), || Ok(())).unwrap();
        drop(change);
        let mut put_back = None;
        let put = |time| {
            put_back = Some(time);
            Ok(())
        };
        times.settle(id, put).unwrap();
        assert_eq!((put_back, times.shown(id)), (Some(at(2)), None));
    }

    #[test]
    fn nothing_is_kept_where_the_kernel_does_not_cache_writes() {
        let times = KeptTimes::new(None);
        assert!(times.change(NodeId(7), || Ok(at(1))).unwrap().is_none());
        assert_eq!(times.shown(NodeId(7)), None);
    }
}
