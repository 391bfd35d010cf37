//! Several blobs at a time, and showing how far each of them is.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci_spec::image::Descriptor;
use plyfs_image::{Meter, parallel};

use crate::error::{RegistryError, Result};
use crate::progress::Progress;

/// How many blobs move at a time unless somebody says otherwise.
pub(crate) const JOBS: usize = 4;

/// [`plyfs_image::parallel::each`] for transfers: others that were cancelled are no reason.
pub(crate) fn each<T: Send, R: Send>(
    items: Vec<T>,
    jobs: usize,
    work: impl Fn(T, &AtomicBool) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let is_consequence = |e: &RegistryError| matches!(e, RegistryError::Cancelled { .. });
    parallel::each(items, jobs, is_consequence, work)
}

/// What a panicking thread leaves is one push away from whole, and its panic ends the scope.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes the progress of one blob on to a meter.
pub(crate) struct Watch<'a> {
    meter: Mutex<(Box<dyn Meter>, u64)>,
    stop: &'a AtomicBool,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(meter: Box<dyn Meter>, stop: &'a AtomicBool) -> Self {
        Self {
            meter: Mutex::new((meter, 0)),
            stop,
        }
    }

    pub(crate) fn finish(&self, how: &str) {
        locked(&self.meter).0.finish(how);
    }
}

impl Progress for Watch<'_> {
    fn at(&self, _: &Descriptor, bytes: u64) {
        let (meter, shown) = &mut *locked(&self.meter);
        // A transfer that begins anew is shown again once it gets further than before.
        if let Some(more) = bytes.checked_sub(*shown).filter(|more| *more > 0) {
            meter.advance(more);
            *shown = bytes;
        }
    }

    fn retrying(&self, _: &Descriptor, reason: &str, pause: Duration) {
        tracing::warn!("{reason}; trying again in {:.1} s", pause.as_secs_f32());
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What a bar calls a blob: the beginning of its digest.
pub(crate) fn label(blob: &Descriptor) -> String {
    let hex = blob.digest().digest();
    hex.get(..12).unwrap_or(hex).to_owned()
}
