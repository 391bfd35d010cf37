//! Backing files of FUSE passthrough: files that the kernel reads and writes for us.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::call::check;
use crate::error::{Errno, Result, SysError};
use crate::thread::Unprivileged;

/// FUSE_DEV_IOC_BACKING_OPEN: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::c_ulong = 0x4010_e501;
/// FUSE_DEV_IOC_BACKING_CLOSE: `_IOW(229, 2, u32)`.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// struct fuse_backing_map.
#[repr(C)]
struct Map {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// Registers a regular file with a FUSE connection; `file` may be an O_PATH descriptor and need not
/// stay open. The kernel does all I/O on the file with the credentials of this thread.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the initial user namespace or where passthrough was not
/// negotiated, ELOOP for a file on too deep a stack of file systems, ENOTTY before Linux 6.9.
pub fn register(connection: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<u32> {
    let map = Map {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: the kernel reads one struct fuse_backing_map, which `map` is, and writes nothing.
    let id = unsafe { libc::ioctl(connection.as_raw_fd(), BACKING_OPEN as _, &raw const map) };
    match u32::try_from(id) {
        Ok(id) if id > 0 => Ok(id),
        Ok(_) => Err(SysError::new("FUSE_DEV_IOC_BACKING_OPEN", Errno::EINVAL)),
        Err(_) => Err(SysError::last("FUSE_DEV_IOC_BACKING_OPEN")),
    }
}

/// [`register`] for a file that others than root write to: what the kernel does for them takes suid
/// and sgid off, and leaves the blocks kept for root alone.
///
/// # Errors
/// As [`register`].
pub fn register_for_writers(connection: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<u32> {
    let _unprivileged = Unprivileged::begin()?;
    register(connection, file)
}

/// Ends a registration; files that are open by it stay so.
///
/// # Errors
/// ENOENT for an id that is not registered.
pub fn unregister(connection: BorrowedFd<'_>, id: u32) -> Result<()> {
    // SAFETY: the kernel reads one u32 and writes nothing.
    let rc = unsafe { libc::ioctl(connection.as_raw_fd(), BACKING_CLOSE as _, &raw const id) };
    check("FUSE_DEV_IOC_BACKING_CLOSE", b"", rc)
}

/// Tries whether files can be registered with the connection at all.
///
/// # Errors
/// As [`register`].
pub fn probe(connection: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the name is a C string that outlives the call.
    let fd = unsafe { libc::memfd_create(c"plyfs".as_ptr(), libc::MFD_CLOEXEC) };
    if fd == -1 {
        return Err(SysError::last("memfd_create"));
    }
    // SAFETY: the kernel has just opened the descriptor for us.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let id = register(connection, file.as_fd())?;
    unregister(connection, id)
}
