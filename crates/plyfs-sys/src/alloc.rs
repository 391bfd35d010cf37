//! An allocator that has the first pages of very large blocks at hand before they are used.
//!
//! fuser reads each request into a block of 16 MiB. A thread that is killed while the kernel copies
//! a request to pages that it has to fetch first makes the kernel answer that request with EIO
//! (`fuse_copy_fill()`: pages are not fetched for the dying). With the pages there it copies, and
//! the request is sent again to the next daemon.
//!
//! Most threads serve next to nothing, and a mount that does nothing should take next to no memory:
//! a thread has room for the usual requests at first, and for the longest once it waits for another
//! ([`fetch_rest`]).
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks of this size and more are buffers for requests.
const LARGE: usize = 16 << 20;
const PAGE: usize = 4096;

/// How many bytes of each large block are fetched at once, and how many later; 0: none.
static AHEAD: AtomicUsize = AtomicUsize::new(0);
static LATER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Where the large block of this thread is, until all of it that is to be fetched has been.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and what [`fetch_ahead`] asks for.
#[derive(Debug)]
pub struct Allocator;

/// From now on the first `at_once` bytes of each large block are in memory when it is handed out,
/// and the first `later` bytes when its thread calls [`fetch_rest`].
pub fn fetch_ahead(at_once: usize, later: usize) {
    AHEAD.store(at_once, Ordering::Relaxed);
    LATER.store(later, Ordering::Relaxed);
}

/// Fetches the rest of this thread's large block, the first time it is called.
pub fn fetch_rest() {
    let block = OWN.replace(0);
    if block != 0 {
        populate(block, LATER.load(Ordering::Relaxed));
    }
}

fn fetch(block: *mut u8) {
    let ahead = AHEAD.load(Ordering::Relaxed);
    if !block.is_null() && ahead > 0 {
        populate(block as usize, ahead);
        // A thread that is ending has no use for the rest.
        OWN.try_with(|own| own.set(block as usize)).ok();
    }
}

fn populate(block: usize, bytes: usize) {
    let from = block & !(PAGE - 1);
    let to = (block + bytes.min(LARGE)).next_multiple_of(PAGE);
    // SAFETY: only fetches pages that are mapped and changes none; that it fails where some are
    // not does no harm.
    unsafe {
        libc::madvise(
            std::ptr::with_exposed_provenance_mut(from),
            to - from,
            libc::MADV_POPULATE_WRITE,
        )
    };
}

// SAFETY: all blocks are the system allocator's; the pages of some are fetched and not changed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        let block = unsafe { System.alloc(layout) };
        if layout.size() >= LARGE {
            fetch(block);
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        let block = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= LARGE {
            fetch(block);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}
