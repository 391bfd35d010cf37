//! What survives the daemon: the inodes the kernel knows and the requests in progress, in shared memory.
//!
//! A process that is killed has made all stores before some point and none behind it. So records
//! are written in an order in which each prefix means something, a word at a time; there is no
//! lock in shared memory and nothing to roll back. See `crate::restart_design`.
mod change;
mod header;
mod names;
mod opens;
mod slots;
mod tickets;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use plyfs_sys::shared::Shared;
use plyfs_sys::{Errno, Result, SysError};

pub use change::Verdict;
pub use header::{Keep, Kept, Outlook};
pub(crate) use slots::{Facts, NewSlot, Slot, slot_of};
pub(crate) use tickets::{Intent, Mover};
pub use tickets::{Request, Ticket};

use names::Names;
use opens::Records;
pub(crate) use opens::{Opened, Record};
use slots::Slots;
use tickets::Tickets;

/// Changes with the layout, with what is agreed with the kernel, and with what else a daemon is
/// handed by the one before it: a program of another version does not take over.
const VERSION: u64 = 2;
const MAGIC: u64 = u64::from_ne_bytes(*b"plyfsjrn");

/// Words of each part. Memory is taken where it is touched: these are bounds, not sizes.
const HEADER: usize = 3072;
const TICKETS: usize = tickets::COUNT as usize * tickets::WORDS;
const SLOTS: usize = slots::MAX * slots::WORDS;
const NAMES: usize = 1 << 30;
const OPENS: usize = opens::MAX * opens::WORDS;
const TOTAL: usize = HEADER + TICKETS + SLOTS + NAMES + OPENS;

/// The journal of one mount.
#[derive(Debug)]
pub struct Journal {
    shared: Shared,
    pool: Mutex<Pool>,
    tickets: Tickets,
    /// Cleared when something could not be noted: from then on no daemon can take over.
    whole: AtomicBool,
}

/// What is free, known to the living daemon alone.
#[derive(Debug)]
struct Pool {
    slots: Slots,
    names: Names,
    opens: Records,
}

impl Journal {
    /// The version that this program writes and reads.
    pub const VERSION: u64 = VERSION;

    /// Memory for the journal of a new mount.
    ///
    /// # Errors
    /// Where there is no such memory: ENOMEM, EFBIG and the like.
    pub fn memory() -> Result<Shared> {
        Shared::create(c"plyfs-journal", TOTAL)
    }

    /// Memory that another program has made.
    ///
    /// # Errors
    /// EINVAL where it is no journal of this version.
    pub fn memory_of(fd: OwnedFd) -> Result<Shared> {
        let shared = Shared::map(fd, TOTAL)?;
        if !is_known(&shared) {
            return Err(SysError::new("open the journal", Errno::EINVAL));
        }
        Ok(shared)
    }

    /// The journal of a new mount.
    #[must_use]
    pub fn begin(shared: Shared) -> Arc<Self> {
        let journal = Arc::new(Self {
            pool: Mutex::new(Pool {
                slots: Slots::new(),
                names: Names::new(),
                opens: Records::default(),
            }),
            tickets: Tickets::new(),
            whole: AtomicBool::new(true),
            shared,
        });
        journal.set(header::VERSION_AT, VERSION);
        journal.set(header::MAGIC_AT, MAGIC);
        journal
    }

    /// The journal that a dead daemon has left.
    ///
    /// # Errors
    /// EINVAL where it is of another version, or was not whole.
    pub fn take_over(shared: Shared) -> Result<Arc<Self>> {
        let broken = shared.words()[header::BROKEN_AT].load(Ordering::Acquire);
        if !is_known(&shared) || broken != 0 {
            return Err(SysError::new("take over the journal", Errno::EINVAL));
        }
        let mut journal = Self {
            pool: Mutex::new(Pool {
                slots: Slots::new(),
                names: Names::new(),
                opens: Records::default(),
            }),
            tickets: Tickets::new(),
            whole: AtomicBool::new(true),
            shared,
        };
        let pool = Pool {
            slots: Slots::found(&journal),
            names: Names::found(&journal),
            opens: Records::found(&journal),
        };
        journal.tickets = Tickets::found(&journal);
        journal.pool = Mutex::new(pool);
        Ok(Arc::new(journal))
    }

    /// The shared memory, to hand it on.
    #[must_use]
    pub fn memory_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }

    /// Whether a daemon can take over.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// The kernel lacks what taking over needs.
    pub fn is_of_no_use(&self, why: &str) {
        self.set(header::BROKEN_AT, 1);
        self.whole.store(false, Ordering::Relaxed);
        tracing::info!("the daemon of this mount cannot be replaced: {why}");
    }

    /// Something cannot be noted any more.
    pub(crate) fn break_off(&self, why: &str) {
        self.set(header::BROKEN_AT, 1);
        if self.whole.swap(false, Ordering::Relaxed) {
            tracing::error!("the daemon of this mount cannot be replaced any more: {why}");
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.shared.words()[at]
    }

    fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    fn set(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Release);
        plyfs_sys::die::step();
    }
}

fn is_known(shared: &Shared) -> bool {
    let at = |i: usize| shared.words()[i].load(Ordering::Acquire);
    (at(header::MAGIC_AT), at(header::VERSION_AT)) == (MAGIC, VERSION)
}

#[cfg(test)]
mod tests;
