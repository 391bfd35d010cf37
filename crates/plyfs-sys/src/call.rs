//! Helpers shared by the system call wrappers: C strings on the stack, errno into results, faults.
use std::ffi::{CStr, CString};

use crate::die;
use crate::error::{Errno, Result, SysError};

#[cfg(debug_assertions)]
pub(crate) use crate::faults::gate;

/// Release builds have no faults of their own.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn gate(_call: &'static str) -> Result<()> {
    Ok(())
}

/// Longest byte string that is copied to the stack instead of the heap.
const INLINE: usize = 320;

/// Calls `f` with `bytes` as a C string; a NUL inside is EINVAL, as no name can hold one. This is
/// the gate of all calls that take a name.
pub(crate) fn with_cstr<T>(
    call: &'static str,
    bytes: &[u8],
    f: impl FnOnce(&CStr) -> Result<T>,
) -> Result<T> {
    gate(call)?;
    if bytes.len() < INLINE {
        let mut buf = [0u8; INLINE];
        buf[..bytes.len()].copy_from_slice(bytes);
        match CStr::from_bytes_with_nul(&buf[..=bytes.len()]) {
            Ok(c) => f(c),
            Err(_) => Err(SysError::on(call, bytes, Errno::EINVAL)),
        }
    } else {
        match CString::new(bytes) {
            Ok(c) => f(&c),
            Err(_) => Err(SysError::on(call, bytes, Errno::EINVAL)),
        }
    }
}

/// A call that answers 0 or -1.
pub(crate) fn check(call: &'static str, subject: &[u8], rc: i32) -> Result<()> {
    let done = if rc == -1 {
        Err(SysError::on(call, subject, Errno::last()))
    } else {
        Ok(())
    };
    die::step();
    done
}

/// A call that answers a count or -1.
pub(crate) fn check_len(call: &'static str, subject: &[u8], rc: isize) -> Result<usize> {
    let done = usize::try_from(rc).map_err(|_| SysError::on(call, subject, Errno::last()));
    die::step();
    done
}

/// A raw `syscall(2)` that answers a non-negative value or -1.
pub(crate) fn check_long(call: &'static str, subject: &[u8], rc: libc::c_long) -> Result<usize> {
    let done = usize::try_from(rc).map_err(|_| SysError::on(call, subject, Errno::last()));
    die::step();
    done
}
