//! Changing mode, owner, times and size; reading symbolic links.
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::at::At;
use crate::call::{check, check_len, check_long, gate, with_cstr};
use crate::error::{Errno, Result, SysError};
use crate::stat::Time;

/// `fchmodat2(2)` (Linux 6.6), the same number on every architecture.
const SYS_FCHMODAT2: libc::c_long = 452;

/// What to do with a time stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Omit,
    /// The kernel's current time.
    Now,
    /// A given time.
    To(Time),
}

impl SetTime {
    fn spec(self) -> libc::timespec {
        let (tv_sec, tv_nsec) = match self {
            Self::Omit => (0, libc::UTIME_OMIT),
            Self::Now => (0, libc::UTIME_NOW),
            Self::To(t) => (t.sec, i64::from(t.nsec)),
        };
        libc::timespec { tv_sec, tv_nsec }
    }
}

/// Sets the permission bits (0o7777). Symbolic links have none: EOPNOTSUPP.
///
/// # Errors
/// EPERM, EROFS, EOPNOTSUPP and the like.
pub fn chmod(at: At<'_>, mode: u32) -> Result<()> {
    let done = at.with_name("fchmodat2", |c| {
        // SAFETY: c is a C string.
        let rc = unsafe { libc::syscall(SYS_FCHMODAT2, at.raw(), c.as_ptr(), mode, at.flags()) };
        check_long("fchmodat2", at.subject(), rc).map(drop)
    });
    match done {
        Err(e) if e.errno() == Errno::ENOSYS => chmod_by_proc(at, mode),
        other => other,
    }
}

/// Before Linux 6.6 an O_PATH descriptor's mode can only be set through /proc.
fn chmod_by_proc(at: At<'_>, mode: u32) -> Result<()> {
    let opened;
    let object = if at.is_object() {
        at
    } else {
        opened = crate::open::open_path_at(at)?;
        At::object(&opened)
    };
    if crate::stat::stat(object)?.kind() == crate::stat::Kind::Symlink {
        return Err(SysError::on("chmod", at.subject(), Errno::EOPNOTSUPP));
    }
    with_cstr("chmod", &object.proc_path(), |c| {
        // SAFETY: c is a C string.
        check("chmod", at.subject(), unsafe {
            libc::chmod(c.as_ptr(), mode)
        })
    })
}

/// Sets owner and group; None leaves one as it is.
///
/// # Errors
/// EPERM, EROFS and the like.
pub fn chown(at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
    at.with_name("fchownat", |c| {
        // SAFETY: c is a C string.
        check("fchownat", at.subject(), unsafe {
            libc::fchownat(at.raw(), c.as_ptr(), uid, gid, at.flags())
        })
    })
}

/// Sets access and modification time.
///
/// # Errors
/// EPERM, EROFS and the like.
pub fn utimens(at: At<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    let times = [atime.spec(), mtime.spec()];
    at.with_name("utimensat", |c| {
        // SAFETY: c is a C string, times has the two elements the call reads.
        check("utimensat", at.subject(), unsafe {
            libc::utimensat(at.raw(), c.as_ptr(), times.as_ptr(), at.flags())
        })
    })
}

/// Sets the size of a file open for writing; the times change as after `ftruncate(2)`: always.
///
/// # Errors
/// EFBIG, ENOSPC, EINVAL and the like.
pub fn truncate(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    let size = length(size)?;
    gate("ftruncate")?;
    // SAFETY: no memory is touched.
    check("ftruncate", b"", unsafe {
        libc::ftruncate(fd.as_raw_fd(), size)
    })
}

/// Sets the size of an open file as `truncate(2)` does: the times change with the size alone.
///
/// # Errors
/// EFBIG, ENOSPC, EINVAL and the like.
pub fn truncate_by_path(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    let size = length(size)?;
    with_cstr("truncate", &At::object(&fd).proc_path(), |c| {
        // SAFETY: c is a C string.
        check("truncate", b"", unsafe { libc::truncate(c.as_ptr(), size) })
    })
}

fn length(size: u64) -> Result<i64> {
    i64::try_from(size).map_err(|_| SysError::new("truncate", Errno::EFBIG))
}

/// What a symbolic link says.
///
/// # Errors
/// EINVAL when the target is no symbolic link, ENOENT and the like.
pub fn readlink(at: At<'_>) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; libc::PATH_MAX as usize];
    let len = at.with_name("readlinkat", |c| {
        // SAFETY: the kernel writes at most buf.len() bytes into buf.
        let rc =
            unsafe { libc::readlinkat(at.raw(), c.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
        check_len("readlinkat", at.subject(), rc)
    })?;
    buf.truncate(len);
    Ok(buf)
}

#[cfg(test)]
mod tests;
