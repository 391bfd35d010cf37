//! Extended attributes of anything that a name or a descriptor refers to.
//!
//! `getxattrat(2)` and its kin (Linux 6.13) work on a name beneath a descriptor. O_PATH descriptors
//! themselves, and older kernels, are served through /proc/self/fd.
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use bitflags::bitflags;

use crate::at::At;
use crate::call::{check, check_len, check_long, with_cstr};
use crate::error::{Errno, Result};

pub(crate) const SYS_SETXATTRAT: libc::c_long = 463;
pub(crate) const SYS_GETXATTRAT: libc::c_long = 464;
pub(crate) const SYS_LISTXATTRAT: libc::c_long = 465;
pub(crate) const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// Largest value the kernel stores, in bytes (XATTR_SIZE_MAX).
pub const SIZE_MAX: usize = 64 << 10;
/// A first try that fits nearly every value, so that one call is enough.
const FIRST_TRY: usize = 512;

static HAVE_XATTRAT: AtomicBool = AtomicBool::new(true);

bitflags! {
    /// Flags of `setxattr(2)`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SetFlags: i32 {
        /// Fail with EEXIST if the attribute exists.
        const CREATE = libc::XATTR_CREATE;
        /// Fail with ENODATA if the attribute does not exist.
        const REPLACE = libc::XATTR_REPLACE;
    }
}

/// `struct xattr_args` of include/uapi/linux/xattr.h.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Whether `e` means that the attribute is not there or that there can be none.
fn is_absent(e: Errno) -> bool {
    matches!(e, Errno::ENODATA | Errno::EOPNOTSUPP)
}

/// Runs the `*xattrat` form, or the /proc form on a kernel without it. With AT_EMPTY_PATH the
/// `*xattrat` calls refuse O_PATH descriptors (EBADF), so a descriptor goes through /proc too.
fn either<T>(
    at: At<'_>,
    new: impl FnOnce(&CStr) -> Result<T>,
    old: impl FnOnce(&CStr) -> Result<T>,
) -> Result<T> {
    if !at.is_object() && HAVE_XATTRAT.load(Ordering::Relaxed) {
        match at.with_name("xattrat", new) {
            Err(e) if e.errno() == Errno::ENOSYS => {
                HAVE_XATTRAT.store(false, Ordering::Relaxed);
            }
            other => return other,
        }
    }
    with_cstr("xattr", &at.proc_path(), old)
}

fn get_into(at: At<'_>, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    let ptr = buf.as_mut_ptr();
    either(
        at,
        |path| {
            let mut args = XattrArgs {
                value: ptr as u64,
                size: len,
                flags: 0,
            };
            // SAFETY: path and name are C strings; args describes buf, which the kernel fills.
            let rc = unsafe {
                libc::syscall(
                    SYS_GETXATTRAT,
                    at.raw(),
                    path.as_ptr(),
                    at.flags(),
                    name.as_ptr(),
                    &raw mut args,
                    size_of::<XattrArgs>(),
                )
            };
            check_long("getxattrat", name.to_bytes(), rc)
        },
        |path| {
            // SAFETY: path and name are C strings; the kernel writes at most len bytes to buf.
            let rc = unsafe {
                if at.is_object() {
                    libc::getxattr(path.as_ptr(), name.as_ptr(), ptr.cast(), len as usize)
                } else {
                    libc::lgetxattr(path.as_ptr(), name.as_ptr(), ptr.cast(), len as usize)
                }
            };
            check_len("lgetxattr", name.to_bytes(), rc)
        },
    )
}

/// The value of attribute `name`; None where it is not set or the file system has none.
///
/// # Errors
/// EPERM, EIO and the like.
pub fn get(at: At<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    with_cstr("getxattr", name, |name| {
        let mut buf = vec![0u8; FIRST_TRY];
        loop {
            match get_into(at, name, &mut buf) {
                Ok(len) => {
                    buf.truncate(len);
                    return Ok(Some(buf));
                }
                Err(e) if is_absent(e.errno()) => return Ok(None),
                Err(e) if e.errno() == Errno::ERANGE && buf.len() < SIZE_MAX => {
                    buf.resize(SIZE_MAX, 0);
                }
                Err(e) => return Err(e),
            }
        }
    })
}

/// Like [`get`], but says EOPNOTSUPP and ENODATA as they came.
///
/// # Errors
/// ENODATA, EOPNOTSUPP, EPERM and the like.
pub fn get_strict(at: At<'_>, name: &[u8]) -> Result<Vec<u8>> {
    with_cstr("getxattr", name, |name| {
        let mut buf = vec![0u8; FIRST_TRY];
        loop {
            match get_into(at, name, &mut buf) {
                Ok(len) => {
                    buf.truncate(len);
                    return Ok(buf);
                }
                Err(e) if e.errno() == Errno::ERANGE && buf.len() < SIZE_MAX => {
                    buf.resize(SIZE_MAX, 0);
                }
                Err(e) => return Err(e),
            }
        }
    })
}

/// Sets attribute `name`.
///
/// # Errors
/// EEXIST and ENODATA by the flags, ENOSPC, EOPNOTSUPP, EPERM and the like.
pub fn set(at: At<'_>, name: &[u8], value: &[u8], flags: SetFlags) -> Result<()> {
    with_cstr("setxattr", name, |name| {
        either(
            at,
            |path| {
                let args = XattrArgs {
                    value: value.as_ptr() as u64,
                    size: u32::try_from(value.len()).unwrap_or(u32::MAX),
                    flags: flags.bits().cast_unsigned(),
                };
                // SAFETY: path and name are C strings; args describes value, which is only read.
                let rc = unsafe {
                    libc::syscall(
                        SYS_SETXATTRAT,
                        at.raw(),
                        path.as_ptr(),
                        at.flags(),
                        name.as_ptr(),
                        &raw const args,
                        size_of::<XattrArgs>(),
                    )
                };
                check_long("setxattrat", name.to_bytes(), rc).map(drop)
            },
            |path| {
                let (ptr, len) = (value.as_ptr().cast(), value.len());
                // SAFETY: path and name are C strings; value is only read.
                let rc = unsafe {
                    if at.is_object() {
                        libc::setxattr(path.as_ptr(), name.as_ptr(), ptr, len, flags.bits())
                    } else {
                        libc::lsetxattr(path.as_ptr(), name.as_ptr(), ptr, len, flags.bits())
                    }
                };
                check("lsetxattr", name.to_bytes(), rc)
            },
        )
    })
}

/// Removes attribute `name`.
///
/// # Errors
/// ENODATA where it is not set, EPERM and the like.
pub fn remove(at: At<'_>, name: &[u8]) -> Result<()> {
    with_cstr("removexattr", name, |name| {
        either(
            at,
            |path| {
                // SAFETY: path and name are C strings.
                let rc = unsafe {
                    libc::syscall(
                        SYS_REMOVEXATTRAT,
                        at.raw(),
                        path.as_ptr(),
                        at.flags(),
                        name.as_ptr(),
                    )
                };
                check_long("removexattrat", name.to_bytes(), rc).map(drop)
            },
            |path| {
                // SAFETY: path and name are C strings.
                let rc = unsafe {
                    if at.is_object() {
                        libc::removexattr(path.as_ptr(), name.as_ptr())
                    } else {
                        libc::lremovexattr(path.as_ptr(), name.as_ptr())
                    }
                };
                check("lremovexattr", name.to_bytes(), rc)
            },
        )
    })
}

fn list_into(at: At<'_>, buf: &mut [u8]) -> Result<usize> {
    let (ptr, len) = (buf.as_mut_ptr(), buf.len());
    either(
        at,
        |path| {
            // SAFETY: path is a C string; the kernel writes at most len bytes to buf.
            let rc = unsafe {
                libc::syscall(
                    SYS_LISTXATTRAT,
                    at.raw(),
                    path.as_ptr(),
                    at.flags(),
                    ptr,
                    len,
                )
            };
            check_long("listxattrat", at.subject(), rc)
        },
        |path| {
            // SAFETY: path is a C string; the kernel writes at most len bytes to buf.
            let rc = unsafe {
                if at.is_object() {
                    libc::listxattr(path.as_ptr(), ptr.cast(), len)
                } else {
                    libc::llistxattr(path.as_ptr(), ptr.cast(), len)
                }
            };
            check_len("llistxattr", at.subject(), rc)
        },
    )
}

/// The names of all attributes; empty where the file system has none.
///
/// # Errors
/// EPERM, EIO and the like.
pub fn list(at: At<'_>) -> Result<Vec<Vec<u8>>> {
    let mut buf = vec![0u8; FIRST_TRY];
    loop {
        match list_into(at, &mut buf) {
            Ok(len) => {
                let names = buf[..len].split(|b| *b == 0).filter(|n| !n.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            Err(e) if is_absent(e.errno()) => return Ok(Vec::new()),
            Err(e) if e.errno() == Errno::ERANGE && buf.len() < SIZE_MAX => {
                buf.resize(SIZE_MAX, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
