//! Reading, writing and syncing open files, and the ioctls of chattr.
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::{check, check_len, gate};
use crate::error::{Errno, Result, SysError};

fn offset(call: &'static str, off: u64) -> Result<i64> {
    i64::try_from(off).map_err(|_| SysError::new(call, Errno::EINVAL))
}

/// Bytes; a read that ends within one has met the end of the file and not a break between pages.
const PAGE: usize = 4096;

/// Reads at `off` until `buf` is full or the file ends; answers the bytes read.
///
/// # Errors
/// EIO and the like.
pub fn pread(fd: BorrowedFd<'_>, buf: &mut [u8], off: u64) -> Result<usize> {
    let start = offset("pread", off)?;
    gate("pread")?;
    let mut done = 0;
    while done < buf.len() {
        let rest = &mut buf[done..];
        // SAFETY: the kernel writes at most rest.len() bytes into rest.
        let rc = unsafe {
            libc::pread(
                fd.as_raw_fd(),
                rest.as_mut_ptr().cast(),
                rest.len(),
                start.saturating_add(done.cast_signed() as i64),
            )
        };
        match check_len("pread", b"", rc) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                if !(start.cast_unsigned() as usize)
                    .wrapping_add(done)
                    .is_multiple_of(PAGE)
                {
                    break;
                }
            }
            Err(e) if e.errno() == Errno::EINTR => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes `buf` at `off`; answers the bytes written, fewer only when the rest failed.
///
/// # Errors
/// ENOSPC, EDQUOT, EFBIG, EIO and the like when nothing was written.
pub fn pwrite(fd: BorrowedFd<'_>, buf: &[u8], off: u64) -> Result<usize> {
    let start = offset("pwrite", off)?;
    gate("pwrite")?;
    let mut done = 0;
    while done < buf.len() {
        let rest = &buf[done..];
        // SAFETY: rest is only read.
        let rc = unsafe {
            libc::pwrite(
                fd.as_raw_fd(),
                rest.as_ptr().cast(),
                rest.len(),
                start.saturating_add(done.cast_signed() as i64),
            )
        };
        match check_len("pwrite", b"", rc) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.errno() == Errno::EINTR => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Makes data and attributes of an open file or directory durable; `data_only` leaves out
/// attributes that are not needed to read the data back.
///
/// # Errors
/// EIO, ENOSPC and the like.
pub fn fsync(fd: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    gate("fsync")?;
    // SAFETY: no memory is touched.
    let rc = unsafe {
        if data_only {
            libc::fdatasync(fd.as_raw_fd())
        } else {
            libc::fsync(fd.as_raw_fd())
        }
    };
    check("fsync", b"", rc)
}

/// Makes everything in the file system of `fd` (open for reading) durable.
///
/// # Errors
/// EIO, ENOSPC and the like.
pub fn syncfs(fd: BorrowedFd<'_>) -> Result<()> {
    gate("syncfs")?;
    // SAFETY: no memory is touched.
    check("syncfs", b"", unsafe { libc::syncfs(fd.as_raw_fd()) })
}

/// Mode of [`fallocate`]: takes the range out of the file, whose size stays.
pub const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// `fallocate(2)` with its modes.
///
/// # Errors
/// EOPNOTSUPP, ENOSPC, EINVAL and the like.
pub fn fallocate(fd: BorrowedFd<'_>, mode: i32, off: u64, len: u64) -> Result<()> {
    let (off, len) = (offset("fallocate", off)?, offset("fallocate", len)?);
    gate("fallocate")?;
    // SAFETY: no memory is touched.
    check("fallocate", b"", unsafe {
        libc::fallocate(fd.as_raw_fd(), mode, off, len)
    })
}

/// `whence` of a search for data.
pub const SEEK_DATA: i32 = libc::SEEK_DATA;
/// `whence` of a search for a hole.
pub const SEEK_HOLE: i32 = libc::SEEK_HOLE;

/// `lseek(2)`: the resulting offset, for SEEK_DATA and SEEK_HOLE.
///
/// # Errors
/// ENXIO past the end, EINVAL for an unknown whence.
pub fn lseek(fd: BorrowedFd<'_>, off: i64, whence: i32) -> Result<i64> {
    gate("lseek")?;
    // SAFETY: no memory is touched.
    let rc = unsafe { libc::lseek(fd.as_raw_fd(), off, whence) };
    if rc == -1 {
        Err(SysError::last("lseek"))
    } else {
        Ok(rc)
    }
}

/// `copy_file_range(2)` between two open files at given offsets.
///
/// # Errors
/// EXDEV, EINVAL, ENOSPC and the like.
pub fn copy_range(
    src: BorrowedFd<'_>,
    src_off: u64,
    dst: BorrowedFd<'_>,
    dst_off: u64,
    len: usize,
) -> Result<usize> {
    gate("copy_file_range")?;
    let mut from = offset("copy_file_range", src_off)?;
    let mut to = offset("copy_file_range", dst_off)?;
    // SAFETY: the two offsets are valid for reads and writes during the call.
    let rc = unsafe {
        libc::copy_file_range(
            src.as_raw_fd(),
            &raw mut from,
            dst.as_raw_fd(),
            &raw mut to,
            len,
            0,
        )
    };
    check_len("copy_file_range", b"", rc)
}

/// Writes all of `bufs` in one `writev(2)`; a FUSE reply is one such write.
///
/// # Errors
/// ENOENT when the request is gone, EINVAL and the like.
pub fn write_vectored(fd: BorrowedFd<'_>, bufs: &[std::io::IoSlice<'_>]) -> Result<usize> {
    nix::sys::uio::writev(fd, bufs).map_err(|e| SysError::new("writev", e))
}

/// An ioctl of chattr(1) and its kin that reads or writes a fixed block of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileIoctl {
    /// FS_IOC_GETFLAGS: 4 or 8 bytes out.
    GetFlags,
    /// FS_IOC_SETFLAGS: 4 or 8 bytes in.
    SetFlags,
    /// FS_IOC_GETVERSION: 4 or 8 bytes out.
    GetVersion,
    /// FS_IOC_FSGETXATTR: struct fsxattr out.
    FsGetXattr,
    /// FS_IOC_FSSETXATTR: struct fsxattr in.
    FsSetXattr,
}

bitflags::bitflags! {
    /// The flags of chattr(1) that plyfs knows the meaning of (`FS_*_FL`); others are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FileFlags: u32 {
        /// Changes are written at once.
        const SYNC = 0x8;
        /// Nothing may change.
        const IMMUTABLE = 0x10;
        /// Data may only be appended.
        const APPEND_ONLY = 0x20;
        /// Reading does not change the access time.
        const NOATIME = 0x80;
        /// Those a copy-up takes along.
        const COPIED = Self::SYNC.bits() | Self::NOATIME.bits();
        const _ = !0;
    }
}

/// FS_XFLAG_IMMUTABLE in the first word of struct fsxattr.
pub const FSX_IMMUTABLE: u32 = 0x8;
/// FS_XFLAG_APPEND in the first word of struct fsxattr.
pub const FSX_APPEND_ONLY: u32 = 0x10;

/// The flags of an open file or directory.
///
/// # Errors
/// ENOTTY where the file system has none.
pub fn flags(fd: BorrowedFd<'_>) -> Result<FileFlags> {
    let arg = file_ioctl(fd, FileIoctl::GetFlags, &[])?;
    let word = u32::from_ne_bytes([arg[0], arg[1], arg[2], arg[3]]);
    Ok(FileFlags::from_bits_retain(word))
}

/// Sets the flags of an open file or directory.
///
/// # Errors
/// EPERM, EOPNOTSUPP for a flag the file system does not have, ENOTTY.
pub fn set_flags(fd: BorrowedFd<'_>, flags: FileFlags) -> Result<()> {
    file_ioctl(fd, FileIoctl::SetFlags, &flags.bits().to_ne_bytes()).map(|_| ())
}

/// Size of struct fsxattr in bytes.
pub const FSXATTR_SIZE: usize = 28;

impl FileIoctl {
    /// The operation with the request number `cmd`, both the native and the 32-bit form.
    #[must_use]
    pub fn from_request(cmd: u32) -> Option<Self> {
        Some(match cmd {
            0x8008_6601 | 0x8004_6601 => Self::GetFlags,
            0x4008_6602 | 0x4004_6602 => Self::SetFlags,
            0x8008_7601 | 0x8004_7601 => Self::GetVersion,
            0x801c_581f => Self::FsGetXattr,
            0x401c_5820 => Self::FsSetXattr,
            _ => return None,
        })
    }

    /// Whether the operation changes the file.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::SetFlags | Self::FsSetXattr)
    }

    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::GetFlags,
        Self::SetFlags,
        Self::GetVersion,
        Self::FsGetXattr,
        Self::FsSetXattr,
    ];

    pub(crate) fn request(self) -> libc::Ioctl {
        let request: u32 = match self {
            Self::GetFlags => 0x8008_6601,
            Self::SetFlags => 0x4008_6602,
            Self::GetVersion => 0x8008_7601,
            Self::FsGetXattr => 0x801c_581f,
            Self::FsSetXattr => 0x401c_5820,
        };
        request as libc::Ioctl
    }
}

/// Runs the ioctl on an open file or directory; `data` is its argument, in and out.
///
/// # Errors
/// ENOTTY where the file system has no such ioctl, EPERM, EINVAL and the like.
pub fn file_ioctl(fd: BorrowedFd<'_>, op: FileIoctl, data: &[u8]) -> Result<[u8; 32]> {
    gate("ioctl")?;
    let mut arg = [0u8; 32];
    let n = data.len().min(FSXATTR_SIZE);
    arg[..n].copy_from_slice(&data[..n]);
    // SAFETY: every operation reads or writes at most 28 bytes of arg, which has 32.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), op.request(), arg.as_mut_ptr()) };
    check("ioctl", b"", rc)?;
    Ok(arg)
}

/// Takes an exclusive `flock(2)` without waiting; false when another open file holds it.
///
/// # Errors
/// ENOLCK and the like.
pub fn try_lock(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: no memory is touched.
    let rc = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match check("flock", b"", rc) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Errno::EWOULDBLOCK => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether nobody holds the lock of [`try_lock`] on the file. Many may ask at a time without
/// meeting one another; whoever asks holds a shared lock until `fd` is closed.
///
/// # Errors
/// ENOLCK and the like.
pub fn is_unlocked(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: no memory is touched.
    let rc = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) };
    match check("flock", b"", rc) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Errno::EWOULDBLOCK => Ok(false),
        Err(e) => Err(e),
    }
}

/// Locks a file for this process alone, waiting for others.
///
/// # Errors
/// ENOLCK and the like.
pub fn lock(fd: BorrowedFd<'_>) -> Result<()> {
    loop {
        // SAFETY: no memory is touched.
        let rc = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) };
        match check("flock", b"", rc) {
            Err(e) if e.errno() == Errno::EINTR => {}
            other => return other,
        }
    }
}

/// Whether a read from `fd` would find something, without waiting.
///
/// # Errors
/// EINTR, ENOMEM.
pub fn has_input(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut ask = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: ask is one pollfd, which the call may write.
    let rc = unsafe { libc::poll(&raw mut ask, 1, 0) };
    check("poll", b"", rc)?;
    Ok(ask.revents & libc::POLLIN != 0)
}

#[cfg(test)]
mod tests;
