//! An allocator that has the first pages of very large blocks at hand before they are used.
//!
//! fuser reads each request into a block of 16 MiB. A thread that is killed while the kernel copies
//! a request to pages that it has to fetch first makes the kernel answer that request with EIO
//! (`fuse_copy_fill()`: pages are not fetched for the dying). With the pages there it copies, and
//! the request is sent again to the next daemon.
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks of this size and more are buffers for requests.
const LARGE: usize = 16 << 20;
const PAGE: usize = 4096;

/// How many bytes of each large block are fetched; 0: none.
static AHEAD: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and what [`fetch_ahead`] asks for.
#[derive(Debug)]
pub struct Allocator;

/// From now on the first `bytes` bytes of each large block are in memory when it is handed out.
pub fn fetch_ahead(bytes: usize) {
    AHEAD.store(bytes, Ordering::Relaxed);
}

fn fetch(block: *mut u8, size: usize) {
    let ahead = AHEAD.load(Ordering::Relaxed).min(size);
    if block.is_null() || ahead == 0 {
        return;
    }
    let from = block as usize & !(PAGE - 1);
    let to = (block as usize + ahead).next_multiple_of(PAGE);
    // SAFETY: only fetches pages that are mapped; that it fails where some are not does no harm.
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
            fetch(block, layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        let block = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= LARGE {
            fetch(block, layout.size());
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
