//! Dying on purpose, for tests of debug builds: a kill after the N-th step of a request.
//!
//! A step is a system call of this crate or a store in shared memory. In release builds nothing of
//! this exists.
#[cfg(debug_assertions)]
mod armed {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Which requests count: the hash of their name; 0: none.
    static WHICH: AtomicU64 = AtomicU64::new(0);
    /// Steps until death.
    static STEPS: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static COUNTS: Cell<bool> = const { Cell::new(false) };
    }

    fn hash(name: &str) -> u64 {
        let mix = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix)
    }

    pub(super) fn arm(request: &str, steps: u64) {
        STEPS.store(steps, Ordering::SeqCst);
        WHICH.store(hash(request), Ordering::SeqCst);
    }

    pub(super) fn enter(request: &str) {
        COUNTS.set(WHICH.load(Ordering::SeqCst) == hash(request));
    }

    pub(super) fn leave() {
        COUNTS.set(false);
    }

    pub(super) fn step() {
        if COUNTS.get() && STEPS.fetch_sub(1, Ordering::SeqCst) == 1 {
            // SAFETY: asks for the end of this process and touches no memory.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            loop {
                std::thread::park();
            }
        }
    }
}

/// From now on the `steps`-th step within a request called `request` kills the process.
#[cfg_attr(not(debug_assertions), allow(unused_variables))]
pub fn arm(request: &str, steps: u64) {
    #[cfg(debug_assertions)]
    armed::arm(request, steps);
}

/// This thread serves a request from now on.
#[inline]
#[cfg_attr(not(debug_assertions), allow(unused_variables))]
pub fn enter(request: &str) {
    #[cfg(debug_assertions)]
    armed::enter(request);
}

/// The request has ended.
#[inline]
pub fn leave() {
    #[cfg(debug_assertions)]
    armed::leave();
}

/// One step.
#[inline]
pub fn step() {
    #[cfg(debug_assertions)]
    armed::step();
}
