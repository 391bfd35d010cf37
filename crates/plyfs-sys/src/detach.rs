//! A directory as it is now, out of reach of later mounts.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::error::{Errno, Result, SysError};

/// A private clone of the mount that `dir` is in, with `dir` as its root: what is mounted on or
/// below the directory later is not seen through it, and neither is what is mounted below it now,
/// as in the lower layers of kernel overlayfs (`clone_private_mount()`).
///
/// In a user namespace mounts of the parent cannot be looked under, so there the clone keeps what
/// is mounted below already.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the mount namespace, ENOSYS before Linux 5.2.
pub fn private_clone(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let alone = open_tree(dir, 0);
    let clone = match alone {
        Err(e) if e.errno() == Errno::EINVAL => open_tree(dir, libc::AT_RECURSIVE)?,
        other => other?,
    };
    match make_private(&clone) {
        // Before Linux 5.12 a detached clone gets no mounts from its peers either.
        Err(e) if e.errno() != Errno::ENOSYS => Err(e),
        _ => Ok(clone),
    }
}

/// A clone of the mounts at and below `path` that nothing can be written through and no program
/// started from.
///
/// # Errors
/// As [`private_clone`].
pub(crate) fn read_only_clone(path: &Path) -> Result<OwnedFd> {
    let dir = crate::open::open_dir_path(path)?;
    let clone = open_tree(dir.as_fd(), libc::AT_RECURSIVE)?;
    make_private(&clone)?;
    let closed = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    set_attr(
        &clone,
        &libc::mount_attr {
            attr_set: closed | libc::MOUNT_ATTR_NODEV,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        },
    )?;
    Ok(clone)
}

fn open_tree(dir: BorrowedFd<'_>, flags: i32) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::c_uint::from_ne_bytes((flags | libc::AT_EMPTY_PATH).to_ne_bytes());
    // SAFETY: the path is a C string that outlives the call, which writes nothing.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = Errno::result(fd).map_err(|e| SysError::new("open_tree", e))?;
    let fd = RawFd::try_from(fd).map_err(|_| SysError::new("open_tree", Errno::EBADF))?;
    // SAFETY: the kernel has just opened the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a private clone one through which nothing can be written, not even an access time, as in
/// the lower layers of kernel overlayfs (`ovl_get_layers()`).
///
/// # Errors
/// EPERM where the flags belong to another user namespace, ENOSYS before Linux 5.12.
pub fn only_read(clone: &OwnedFd) -> Result<()> {
    set_attr(
        clone,
        &libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME,
            attr_clr: libc::MOUNT_ATTR__ATIME,
            propagation: 0,
            userns_fd: 0,
        },
    )
}

fn make_private(clone: &OwnedFd) -> Result<()> {
    set_attr(
        clone,
        &libc::mount_attr {
            attr_set: 0,
            attr_clr: 0,
            propagation: libc::MS_PRIVATE,
            userns_fd: 0,
        },
    )
}

fn set_attr(clone: &OwnedFd, attr: &libc::mount_attr) -> Result<()> {
    // SAFETY: the kernel reads `attr`, whose size it is told, and the path, and writes nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done)
        .map(drop)
        .map_err(|e| SysError::new("mount_setattr", e))
}
