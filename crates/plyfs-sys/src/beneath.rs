//! Resolving paths that a stranger wrote, without leaving the directory they are relative to.
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::call::{check_long, with_cstr};
use crate::error::{Errno, Result, SysError};

/// `RESOLVE_*` of linux/openat2.h.
const NO_XDEV: u64 = 0x01;
const NO_MAGICLINKS: u64 = 0x02;
const NO_SYMLINKS: u64 = 0x04;
const BENEATH: u64 = 0x08;
const IN_ROOT: u64 = 0x10;
/// The kernel answers EAGAIN when a rename elsewhere made it unsure; it means "ask again".
const TRIES: usize = 64;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn openat2(root: BorrowedFd<'_>, path: &[u8], flags: i32, resolve: u64) -> Result<OwnedFd> {
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()),
        mode: 0,
        resolve,
    };
    with_cstr("openat2", path, |c| {
        let mut tries = TRIES;
        loop {
            // SAFETY: c is a C string and how the structure the call reads.
            let rc = unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    root.as_raw_fd(),
                    c.as_ptr(),
                    &raw const how,
                    size_of::<OpenHow>(),
                )
            };
            tries -= 1;
            match check_long("openat2", path, rc) {
                Err(e) if e.errno() == Errno::EAGAIN && tries > 0 => {}
                Err(e) => return Err(e),
                Ok(fd) => {
                    let fd = RawFd::try_from(fd)
                        .map_err(|_| SysError::on("openat2", path, Errno::EBADF))?;
                    // SAFETY: openat2 returned a new descriptor that nobody else owns.
                    return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
    })
}

/// Opens the directory at `path` below `root` as an O_PATH descriptor. No symbolic link is
/// followed, no other file system entered and `root` not left: ELOOP, EXDEV.
///
/// # Errors
/// ENOENT, ENOTDIR, ELOOP, EXDEV and the like; ENOSYS before Linux 5.6.
pub fn open_dir_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let resolve = BENEATH | NO_SYMLINKS | NO_MAGICLINKS | NO_XDEV;
    openat2(root, path, flags, resolve)
}

/// Opens a regular file for reading as a process would that has `root` as its root directory:
/// symbolic links are followed and stay inside. The caller checks what it got.
///
/// # Errors
/// ENOENT, ENOTDIR, ELOOP and the like; ENOSYS before Linux 5.6.
pub fn open_file_in_root(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    openat2(root, path, flags, IN_ROOT | NO_MAGICLINKS)
}
