//! File handles: an identity of an object that survives renames and remounts.
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::at::At;
use crate::call::{check, gate};
use crate::error::{Errno, Result, SysError};

/// MAX_HANDLE_SZ of linux/exportfs.h, in bytes.
const MAX_HANDLE: usize = 128;
/// `FS_IOC_GETFSUUID` (Linux 6.9): `struct fsuuid2 { u8 len; u8 uuid[16]; }`.
const FS_IOC_GETFSUUID: libc::Ioctl = 0x8011_1500_u32 as libc::Ioctl;

/// A file handle as `name_to_handle_at(2)` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Encoding the file system chose (FILEID_*).
    pub kind: i32,
    /// The bytes of the handle.
    pub bytes: Vec<u8>,
}

#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
}

/// The handle of the target; None where the file system has none.
///
/// # Errors
/// ENOENT, EIO and the like.
pub fn handle(at: At<'_>) -> Result<Option<Handle>> {
    let mut raw = RawHandle {
        len: MAX_HANDLE as u32,
        kind: 0,
        bytes: [0; MAX_HANDLE],
    };
    let mut mount_id = 0i32;
    let flags = if at.is_object() {
        libc::AT_EMPTY_PATH
    } else {
        0
    };
    let got = at.with_name("name_to_handle_at", |c| {
        // SAFETY: c is a C string; raw has room for MAX_HANDLE bytes as it says.
        check("name_to_handle_at", at.subject(), unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                at.raw(),
                c.as_ptr(),
                &raw mut raw,
                &raw mut mount_id,
                flags,
            ) as i32
        })
    });
    match got {
        Ok(()) => {
            let len = (raw.len as usize).min(MAX_HANDLE);
            Ok(Some(Handle {
                kind: raw.kind,
                bytes: raw.bytes[..len].to_vec(),
            }))
        }
        Err(e)
            if matches!(
                e.errno(),
                Errno::EOPNOTSUPP | Errno::EOVERFLOW | Errno::ENOSYS
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Opens the object of a handle as an O_PATH descriptor; `mount` is any readable descriptor of
/// the same file system. None when the object is gone or the process may not (it needs
/// CAP_DAC_READ_SEARCH).
///
/// # Errors
/// EMFILE, EIO and the like.
pub fn open(mount: BorrowedFd<'_>, handle: &Handle) -> Result<Option<OwnedFd>> {
    gate("open_by_handle_at")?;
    let len = handle.bytes.len();
    if len > MAX_HANDLE {
        return Ok(None);
    }
    let mut raw = RawHandle {
        len: len as u32,
        kind: handle.kind,
        bytes: [0; MAX_HANDLE],
    };
    raw.bytes[..len].copy_from_slice(&handle.bytes);
    // SAFETY: raw is a file_handle of len bytes; the kernel only reads it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        ) as i32
    };
    if fd >= 0 {
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    match Errno::last() {
        Errno::ESTALE | Errno::EPERM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS => {
            Ok(None)
        }
        e => Err(SysError::new("open_by_handle_at", e)),
    }
}

/// The UUID of the file system of `fd` (open for reading), all zero where it tells none.
#[must_use]
pub fn fs_uuid(fd: BorrowedFd<'_>) -> [u8; 16] {
    let mut arg = [0u8; 17];
    // SAFETY: the kernel writes at most 17 bytes (struct fsuuid2) into arg.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFSUUID, arg.as_mut_ptr()) };
    let mut uuid = [0u8; 16];
    if rc == 0 && arg[0] == 16 {
        uuid.copy_from_slice(&arg[1..]);
    }
    uuid
}

#[cfg(test)]
mod tests;
