//! Faults on demand, in debug builds alone: a system call of this thread fails, or is its last.
//!
//! A process that dies at a call has made all the calls before it and none after it. So "none after
//! it" is all that a test of crashes needs: the calls fail without being made, and what runs on in
//! this process (error paths, destructors) changes nothing on disk any more.
use std::cell::Cell;

use crate::error::{Errno, Result, SysError};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error, the calls after it work. Only calls that can fail so count.
    Fails(Errno),
    /// It is not made, and no later one is. Only calls that change something count: to stop
    /// between two of them leaves what stopping at the second leaves.
    Stops,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    fault: Fault,
    /// Calls still to be let through.
    left: u64,
    /// The call that was hit first.
    hit: Option<&'static str>,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
}

/// A fault that waits for its call, until this is dropped.
#[derive(Debug)]
#[must_use = "the fault is taken back when this is dropped"]
pub struct Armed(());

/// Lets `after` calls of this thread through and then does `fault`.
pub fn arm(fault: Fault, after: u64) -> Armed {
    PLAN.set(Some(Plan {
        fault,
        left: after,
        hit: None,
    }));
    Armed(())
}

impl Armed {
    /// The call that was hit; None as long as there were too few.
    #[must_use]
    pub fn hit(&self) -> Option<&'static str> {
        PLAN.get().and_then(|plan| plan.hit)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        PLAN.set(None);
    }
}

/// Every system call that reads or changes a layer asks here first. Those on xattrs ask twice, by
/// what they do and then by the form they take; the first time counts.
pub(crate) fn gate(call: &'static str) -> Result<()> {
    let Some(mut plan) = PLAN.get() else {
        return Ok(());
    };
    let (errno, counts) = match plan.fault {
        Fault::Stops => (Errno::EIO, plan.hit.is_some() || changes(call)),
        Fault::Fails(errno) => (errno, plan.hit.is_none() && can_answer(call, errno)),
    };
    if !counts || matches!(call, "xattr" | "xattrat") {
        return Ok(());
    }
    if plan.left > 0 {
        plan.left -= 1;
        PLAN.set(Some(plan));
        return Ok(());
    }
    plan.hit = plan.hit.or(Some(call));
    PLAN.set(Some(plan));
    Err(SysError::new(call, errno))
}

/// Calls that take space.
const TAKE_SPACE: [&str; 13] = [
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "renameat2",
    "openat(O_TMPFILE)",
    "openat(O_CREAT)",
    "setxattr",
    "ftruncate",
    "pwrite",
    "fallocate",
    "copy_file_range",
    "fsync",
];

/// Calls that change something and take no space.
const CHANGE: [&str; 10] = [
    "unlinkat",
    "fchmodat2",
    "chmod",
    "fchownat",
    "utimensat",
    "truncate",
    "removexattr",
    "ioctl",
    "ioctl(FICLONE)",
    "syncfs",
];

fn changes(call: &str) -> bool {
    TAKE_SPACE.contains(&call) || CHANGE.contains(&call)
}

fn can_answer(call: &str, errno: Errno) -> bool {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => TAKE_SPACE.contains(&call),
        Errno::EMFILE | Errno::ENFILE => call.starts_with("open") || call == "dup",
        _ => true,
    }
}

#[cfg(test)]
mod tests;
