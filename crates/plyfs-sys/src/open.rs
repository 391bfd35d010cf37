//! Opening: a name beneath a directory descriptor, never a path that could lead elsewhere.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bitflags::bitflags;

use crate::at::At;
use crate::call::{gate, with_cstr};
use crate::error::{Result, SysError};
use crate::name::Name;

/// Flags of open(2), as the kernel passes them on.
pub use libc::{O_ACCMODE, O_APPEND, O_DSYNC, O_RDONLY, O_TRUNC, O_WRONLY};

bitflags! {
    /// How a regular file is opened for I/O.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Access: i32 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 2;
        /// Reading does not change the access time; needs to own the file or CAP_FOWNER.
        const NOATIME = 4;
    }
}

impl Access {
    fn flags(self) -> i32 {
        let mode = if self.contains(Self::READ | Self::WRITE) {
            libc::O_RDWR
        } else if self.contains(Self::WRITE) {
            libc::O_WRONLY
        } else {
            libc::O_RDONLY
        };
        mode | if self.contains(Self::NOATIME) {
            libc::O_NOATIME
        } else {
            0
        }
    }
}

fn openat(call: &'static str, dir: i32, name: &[u8], flags: i32, mode: u32) -> Result<OwnedFd> {
    with_cstr(call, name, |c| {
        // SAFETY: c is a C string; the call touches no other memory.
        let fd = unsafe { libc::openat(dir, c.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        if fd == -1 {
            return Err(SysError::on(call, name, crate::Errno::last()));
        }
        // SAFETY: openat returned a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// Opens a directory an operator named, following symbolic links; only to be used before mounting.
///
/// # Errors
/// ENOENT, ENOTDIR, EACCES, ELOOP and the like.
pub fn open_dir_path(path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    openat(
        "open",
        libc::AT_FDCWD,
        path.as_os_str().as_bytes(),
        flags,
        0,
    )
}

/// Opens the directory `name` of `dir` as an O_PATH descriptor; a symbolic link is ENOTDIR.
///
/// # Errors
/// ENOENT, ENOTDIR, EMFILE and the like.
pub fn open_dir(dir: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    openat("openat", dir.as_raw_fd(), name.as_bytes(), flags, 0)
}

/// Opens any object as an O_PATH descriptor, a symbolic link itself included.
///
/// # Errors
/// ENOENT, EMFILE and the like.
pub fn open_path(dir: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd> {
    openat(
        "openat",
        dir.as_raw_fd(),
        name.as_bytes(),
        libc::O_PATH | libc::O_NOFOLLOW,
        0,
    )
}

/// Opens a regular file for I/O. The caller knows that `at` is a regular file and checks its
/// identity afterwards: opening a device or fifo would have effects.
///
/// # Errors
/// ENOENT, ELOOP for a symbolic link, EMFILE, ETXTBSY and the like.
pub fn open_file(at: At<'_>, access: Access) -> Result<OwnedFd> {
    let flags = access.flags() | libc::O_NONBLOCK | libc::O_NOCTTY;
    if at.is_object() {
        openat("open", libc::AT_FDCWD, &at.proc_path(), flags, 0)
    } else {
        openat(
            "openat",
            at.raw(),
            at.subject(),
            flags | libc::O_NOFOLLOW,
            0,
        )
    }
}

/// Opens a directory for reading its entries, for fsync and for ioctl.
///
/// # Errors
/// ENOENT, ENOTDIR, EACCES and the like.
pub fn open_dir_for_list(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    openat(
        "openat",
        dir.as_raw_fd(),
        b".",
        libc::O_RDONLY | libc::O_DIRECTORY,
        0,
    )
}

/// Makes a nameless regular file in the file system of `dir` (O_TMPFILE).
///
/// # Errors
/// EOPNOTSUPP where the file system cannot; ENOSPC and the like.
pub fn open_tmpfile(dir: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd> {
    openat(
        "openat(O_TMPFILE)",
        dir.as_raw_fd(),
        b".",
        libc::O_TMPFILE | libc::O_RDWR,
        mode,
    )
}

/// Creates the regular file `name`, which must not exist, open for reading and writing.
///
/// # Errors
/// EEXIST, ENOSPC and the like.
pub fn create_file(dir: BorrowedFd<'_>, name: &Name, mode: u32) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    openat(
        "openat(O_CREAT)",
        dir.as_raw_fd(),
        name.as_bytes(),
        flags,
        mode,
    )
}

/// Duplicates a descriptor.
///
/// # Errors
/// EMFILE.
pub fn dup(fd: &impl AsFd) -> Result<OwnedFd> {
    gate("dup")?;
    fd.as_fd().try_clone_to_owned().map_err(|e| {
        SysError::new(
            "dup",
            crate::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EMFILE)),
        )
    })
}

/// Opens the target of an `*at` call as an O_PATH descriptor.
///
/// # Errors
/// ENOENT, EMFILE and the like.
pub fn open_path_at(at: At<'_>) -> Result<OwnedFd> {
    if at.is_object() {
        return openat("open", libc::AT_FDCWD, &at.proc_path(), libc::O_PATH, 0);
    }
    openat(
        "openat",
        at.raw(),
        at.subject(),
        libc::O_PATH | libc::O_NOFOLLOW,
        0,
    )
}

#[cfg(test)]
mod tests;
