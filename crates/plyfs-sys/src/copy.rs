//! Copying the data of a file: shared extents where the file system can, holes kept.
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::gate;
use crate::error::{Errno, Result, SysError};
use crate::io;

/// Bytes asked of one copy_file_range call; bounds the time a signal or unmount waits.
const CHUNK: usize = 64 << 20;
/// Bytes moved at a time where the kernel cannot copy by itself.
const BUFFER: usize = 1 << 20;
/// `FICLONE` of linux/fs.h.
const FICLONE: libc::Ioctl = 0x4004_9409;

/// Copies `size` bytes of `src` into the empty file `dst`, which ends with the same size.
///
/// # Errors
/// ENOSPC, EDQUOT, EIO and the like; `dst` is then incomplete.
pub fn copy_data(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, size: u64) -> Result<()> {
    copy_data_telling(src, dst, size, &mut |_| {})
}

/// The same, and tells after each part up to where the copy is complete.
///
/// # Errors
/// As [`copy_data`].
pub fn copy_data_telling(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    size: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<()> {
    if size > 0 && !reflink(src, dst) {
        crate::attr::truncate(dst, size)?;
        let mut pos = 0;
        while pos < size {
            let Some((start, end)) = next_data(src, pos, size)? else {
                break;
            };
            copy_extent(src, dst, start, end, tell)?;
            pos = end;
        }
    }
    tell(size);
    Ok(())
}

/// Shares all extents of `src` with `dst`; false where the file system cannot.
#[must_use]
pub fn reflink(src: BorrowedFd<'_>, dst: BorrowedFd<'_>) -> bool {
    // SAFETY: FICLONE takes a descriptor as its argument.
    gate("ioctl(FICLONE)").is_ok()
        && unsafe { libc::ioctl(dst.as_raw_fd(), FICLONE, src.as_raw_fd()) == 0 }
}

/// The next stretch of data at or after `pos`; the whole rest where holes are not told.
fn next_data(src: BorrowedFd<'_>, pos: u64, size: u64) -> Result<Option<(u64, u64)>> {
    let at = i64::try_from(pos).map_err(|_| SysError::new("lseek", Errno::EFBIG))?;
    let start = match io::lseek(src, at, libc::SEEK_DATA) {
        Ok(start) => start,
        Err(e) if e.errno() == Errno::ENXIO => return Ok(None),
        Err(e) if e.errno() == Errno::EINVAL => return Ok(Some((pos, size))),
        Err(e) => return Err(e),
    };
    let end = io::lseek(src, start, libc::SEEK_HOLE)?;
    let (start, end) = (start.cast_unsigned(), end.cast_unsigned().min(size));
    Ok((start < end).then_some((start, end)))
}

fn copy_extent(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    start: u64,
    end: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut pos = start;
    while pos < end {
        let len = usize::try_from(end - pos).unwrap_or(CHUNK).min(CHUNK);
        match io::copy_range(src, pos, dst, pos, len) {
            Ok(0) => return Err(SysError::new("copy_file_range", Errno::EIO)),
            Ok(n) => {
                pos += n as u64;
                tell(pos);
            }
            Err(e) if e.errno() == Errno::EINTR => {}
            Err(e) if needs_buffer(e.errno()) => return copy_by_buffer(src, dst, pos, end, tell),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn needs_buffer(e: Errno) -> bool {
    matches!(
        e,
        Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP
    )
}

fn copy_by_buffer(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    start: u64,
    end: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut buf = vec![0u8; BUFFER];
    let mut pos = start;
    while pos < end {
        let want = usize::try_from(end - pos).unwrap_or(BUFFER).min(BUFFER);
        let got = io::pread(src, &mut buf[..want], pos)?;
        if got == 0 {
            return Err(SysError::new("pread", Errno::EIO));
        }
        let mut done = 0;
        while done < got {
            let n = io::pwrite(dst, &buf[done..got], pos + done as u64)?;
            if n == 0 {
                return Err(SysError::new("pwrite", Errno::EIO));
            }
            done += n;
        }
        pos += got as u64;
        tell(pos);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
