//! Making, linking, renaming and removing names.
use std::os::fd::{AsRawFd, BorrowedFd};

use bitflags::bitflags;

use crate::at::At;
use crate::call::{check, with_cstr};
use crate::error::{Errno, Result};
use crate::name::Name;

bitflags! {
    /// Flags of `renameat2(2)`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Rename: u32 {
        /// Fail with EEXIST if the new name exists.
        const NOREPLACE = libc::RENAME_NOREPLACE;
        /// Swap the two names atomically.
        const EXCHANGE = libc::RENAME_EXCHANGE;
        /// Leave a whiteout at the old name.
        const WHITEOUT = libc::RENAME_WHITEOUT;
    }
}

/// Makes a directory. `mode` is subject to the thread's umask or the parent's default ACL.
///
/// # Errors
/// EEXIST, ENOSPC, EACCES and the like.
pub fn mkdir(dir: BorrowedFd<'_>, name: &Name, mode: u32) -> Result<()> {
    with_cstr("mkdirat", name.as_bytes(), |c| {
        // SAFETY: c is a C string.
        check("mkdirat", name.as_bytes(), unsafe {
            libc::mkdirat(dir.as_raw_fd(), c.as_ptr(), mode)
        })
    })
}

/// Makes a regular file, device, fifo or socket; `mode` carries the type.
///
/// # Errors
/// EEXIST, ENOSPC, EPERM and the like.
pub fn mknod(dir: BorrowedFd<'_>, name: &Name, mode: u32, rdev: (u32, u32)) -> Result<()> {
    with_cstr("mknodat", name.as_bytes(), |c| {
        let dev = libc::makedev(rdev.0, rdev.1);
        // SAFETY: c is a C string.
        check("mknodat", name.as_bytes(), unsafe {
            libc::mknodat(dir.as_raw_fd(), c.as_ptr(), mode, dev)
        })
    })
}

/// Makes a symbolic link that says `target`.
///
/// # Errors
/// EEXIST, ENOSPC and the like.
pub fn symlink(target: &[u8], dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    with_cstr("symlinkat", target, |t| {
        with_cstr("symlinkat", name.as_bytes(), |c| {
            // SAFETY: both are C strings.
            check("symlinkat", name.as_bytes(), unsafe {
                libc::symlinkat(t.as_ptr(), dir.as_raw_fd(), c.as_ptr())
            })
        })
    })
}

/// Makes `name` in `dir` a further hard link of the object at `old`; a nameless file
/// (O_TMPFILE) gets its first name this way.
///
/// # Errors
/// EEXIST, EMLINK, ENOENT for an object without names that is no temporary file, and the like.
pub fn link(old: At<'_>, dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    let (from, path, flags) = if old.is_object() {
        (libc::AT_FDCWD, old.proc_path(), libc::AT_SYMLINK_FOLLOW)
    } else {
        (old.raw(), old.subject().to_vec(), 0)
    };
    with_cstr("linkat", &path, |o| {
        with_cstr("linkat", name.as_bytes(), |c| {
            // SAFETY: both are C strings.
            check("linkat", name.as_bytes(), unsafe {
                libc::linkat(from, o.as_ptr(), dir.as_raw_fd(), c.as_ptr(), flags)
            })
        })
    })
}

/// Renames, with the flags of `renameat2(2)`.
///
/// # Errors
/// ENOENT, EEXIST, ENOTEMPTY, EXDEV, EINVAL and the like.
pub fn rename(
    old_dir: BorrowedFd<'_>,
    old: &Name,
    new_dir: BorrowedFd<'_>,
    new: &Name,
    flags: Rename,
) -> Result<()> {
    with_cstr("renameat2", old.as_bytes(), |o| {
        with_cstr("renameat2", new.as_bytes(), |n| {
            // SAFETY: both are C strings; renameat2 touches no other memory.
            let rc = unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    old_dir.as_raw_fd(),
                    o.as_ptr(),
                    new_dir.as_raw_fd(),
                    n.as_ptr(),
                    flags.bits(),
                )
            };
            check("renameat2", old.as_bytes(), i32::try_from(rc).unwrap_or(-1))
        })
    })
}

fn unlinkat(dir: BorrowedFd<'_>, name: &Name, flags: i32) -> Result<()> {
    with_cstr("unlinkat", name.as_bytes(), |c| {
        // SAFETY: c is a C string.
        check("unlinkat", name.as_bytes(), unsafe {
            libc::unlinkat(dir.as_raw_fd(), c.as_ptr(), flags)
        })
    })
}

/// Removes a name that is not a directory.
///
/// # Errors
/// ENOENT, EISDIR, EPERM and the like.
pub fn unlink(dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    unlinkat(dir, name, 0)
}

/// Removes an empty directory.
///
/// # Errors
/// ENOENT, ENOTEMPTY, ENOTDIR and the like.
pub fn rmdir(dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    unlinkat(dir, name, libc::AT_REMOVEDIR)
}

/// Whether `e` says that the file system does not know a flag or operation.
#[must_use]
pub fn is_unsupported(e: Errno) -> bool {
    matches!(
        e,
        Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EISDIR
    )
}

#[cfg(test)]
mod tests;
