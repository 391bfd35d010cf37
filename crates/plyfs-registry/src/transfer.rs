//! Several blobs at a time: a bounded number of threads, and one failure stops them all.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci_spec::image::Descriptor;
use plyfs_image::Meter;

use crate::error::{RegistryError, Result};
use crate::progress::Progress;

/// How many blobs move at a time unless somebody says otherwise.
pub(crate) const JOBS: usize = 4;

/// Does `work` for each item on up to `jobs` threads, in order; the results in the items' order.
///
/// The first failure is returned; the others see it by the flag and stop.
pub(crate) fn each<T: Send, R: Send>(
    items: Vec<T>,
    jobs: usize,
    work: impl Fn(T, &AtomicBool) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = jobs.clamp(1, items.len().max(1));
    let queue: Mutex<VecDeque<_>> = Mutex::new(items.into_iter().enumerate().collect());
    let (done, failed) = (Mutex::new(Vec::new()), Mutex::new(None));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Bound to a name, so that the lock is not held during the work.
                    let next = locked(&queue).pop_front();
                    let Some((place, item)) = next else { return };
                    match work(item, &stop) {
                        Ok(result) => locked(&done).push((place, result)),
                        Err(e) => {
                            stop.store(true, Ordering::Relaxed);
                            note(&mut locked(&failed), e);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = locked(&failed).take() {
        return Err(error);
    }
    let mut done = std::mem::take(&mut *locked(&done));
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Keeps the first failure that is not a consequence of another.
fn note(failed: &mut Option<RegistryError>, error: RegistryError) {
    let is_consequence = matches!(error, RegistryError::Cancelled { .. });
    if failed.is_none() || (!is_consequence && is_cancelled(failed)) {
        *failed = Some(error);
    }
}

fn is_cancelled(failed: &Option<RegistryError>) -> bool {
    matches!(failed, Some(RegistryError::Cancelled { .. }))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::error::Object;

    #[test]
    fn results_come_in_order_from_a_bounded_number_of_threads() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = each((0..50).collect(), 3, |n, _| {
            let running = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(running, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(n * 2)
        });
        let wanted: Vec<_> = (0..50).map(|n| n * 2).collect();
        assert_eq!(results.unwrap(), wanted);
        assert!(most.into_inner() <= 3);
        assert!(each(Vec::<u8>::new(), 0, |_, _| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn the_failure_that_came_first_is_told() {
        let cancelled = || RegistryError::Cancelled {
            object: Object::new("x"),
        };
        let error = each(vec![0, 1], 2, |n, stop| -> Result<()> {
            if n == 0 {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                return Err(cancelled());
            }
            Err(RegistryError::BadPlatform {
                text: "first".to_owned(),
            })
        });
        assert!(error.unwrap_err().to_string().contains("first"));
    }
}
