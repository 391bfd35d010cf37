//! Who makes the next daemon when this one dies: are they still there?
use std::sync::atomic::{AtomicBool, Ordering};

use plyfs_sys::takeover::Twin;

/// The holder and its stand-in, as the daemon sees them.
#[derive(Debug)]
pub struct Guards {
    holder_ended: AtomicBool,
    stand_in: Option<Twin>,
    stand_in_ended: AtomicBool,
}

impl Guards {
    /// With a holder that lives.
    #[must_use]
    pub fn new(stand_in: Option<Twin>) -> Self {
        Self {
            holder_ended: AtomicBool::new(false),
            stand_in_ended: AtomicBool::new(stand_in.is_none()),
            stand_in,
        }
    }

    /// The holder has ended; whether anybody is left.
    pub(crate) fn lost_holder(&self) -> bool {
        self.holder_ended.store(true, Ordering::Relaxed);
        self.count() > 0
    }

    /// A child has ended; whether it was the stand-in.
    pub(crate) fn lost_child(&self) -> bool {
        let ended = self.stand_in.as_ref().is_some_and(Twin::has_ended);
        ended && !self.stand_in_ended.swap(true, Ordering::Relaxed)
    }

    /// How many are there.
    #[must_use]
    pub fn count(&self) -> u32 {
        let ended = [&self.holder_ended, &self.stand_in_ended];
        let there = ended.iter().filter(|e| !e.load(Ordering::Relaxed));
        u32::try_from(there.count()).unwrap_or(0)
    }
}
