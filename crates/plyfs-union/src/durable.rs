//! What fdatasync owes besides the data: the name by which a file of the upper is found.
//!
//! A file that was there before is copied up when it is changed, and the copy gets its name after its
//! data is on disk. To the upper's file system that name is news which `fdatasync` need not store
//! (ext4 does not); without it the data that was just synced is not found after a power loss, and
//! the lower file is back. The same holds for the mark that says the data is still in the lower. So
//! the first fdatasync of a file is an fsync.
use std::sync::atomic::{AtomicU8, Ordering};

/// Counts what a later fsync has to store; a file has two such changes at most.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    /// Changes after the first, which every file has had: its name.
    changes: AtomicU8,
    /// Of the name and the changes, how many are known to be stored.
    stored: AtomicU8,
}

/// The changes there were when an fsync began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending(u8);

impl Durable {
    /// A mark has changed without which the data is not found.
    pub(crate) fn mark_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// What fsync has to store, if anything: to be asked before it begins.
    pub(crate) fn pending(&self) -> Option<Pending> {
        let all = self.changes.load(Ordering::Acquire).saturating_add(1);
        (self.stored.load(Ordering::Acquire) < all).then_some(Pending(all))
    }

    /// An fsync has stored what was pending.
    pub(crate) fn stored(&self, pending: Pending) {
        self.stored.fetch_max(pending.0, Ordering::AcqRel);
    }
}

#[test]
fn a_change_during_an_fsync_is_still_pending_after_it() {
    let durable = Durable::default();
    let first = durable.pending().unwrap();
    durable.mark_changed();
    durable.stored(first);
    let second = durable.pending().unwrap();
    durable.stored(second);
    assert!(durable.pending().is_none());
    durable.stored(first);
    assert!(durable.pending().is_none());
}
