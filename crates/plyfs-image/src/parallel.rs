//! Several pieces of work at a time: a bounded number of threads, and one failure stops them all.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most layers that are unpacked at a time: each has threads of its own.
const MOST: usize = 4;

/// How many layers are unpacked at a time on this machine.
#[must_use]
pub fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST))
}

/// Does `work` for each item on up to `jobs` threads, in order; the results in the items' order.
///
/// # Errors
/// The first failure that is not the consequence of another; the others see it by the flag and
/// stop.
pub fn each<T: Send, R: Send, E: Send>(
    items: Vec<T>,
    jobs: usize,
    is_consequence: impl Fn(&E) -> bool + Sync,
    work: impl Fn(T, &AtomicBool) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = jobs.clamp(1, items.len().max(1));
    let queue: Mutex<VecDeque<_>> = Mutex::new(items.into_iter().enumerate().collect());
    let (done, failed) = (Mutex::new(Vec::new()), Mutex::new(None::<E>));
    let stop = AtomicBool::new(false);
    let note = |e: E| {
        let mut failed = locked(&failed);
        let replaces = failed.as_ref().is_none_or(&is_consequence);
        if failed.is_none() || (replaces && !is_consequence(&e)) {
            *failed = Some(e);
        }
    };
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
                            note(e);
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

/// What a panicking thread leaves is one push away from whole, and its panic ends the scope.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn results_come_in_order_from_a_bounded_number_of_threads() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |n: i32, _: &AtomicBool| {
            let running = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(running, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(n * 2)
        };
        let results = each((0..50).collect(), 3, |()| false, work).unwrap();
        let wanted: Vec<_> = (0..50).map(|n| n * 2).collect();
        assert_eq!(results, wanted);
        assert!(most.into_inner() <= 3);
        let none = each(Vec::<u8>::new(), 0, |()| false, |_, _| Ok(()));
        assert!(none.unwrap().is_empty());
    }

    #[test]
    fn the_failure_that_is_no_consequence_is_told() {
        let error = each(
            vec![0, 1],
            2,
            |e: &&str| *e == "cancelled",
            |n, stop| -> Result<(), &str> {
                if n == 0 {
                    while !stop.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    return Err("cancelled");
                }
                Err("reason")
            },
        );
        assert_eq!(error.unwrap_err(), "reason");
    }
}
