//! Memory that several processes share: what one has stored is there when it is dead.
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Errno, Result, SysError};

/// Shared memory seen as words that are read and stored atomically. Pages take memory once they
/// are touched, so it may be made much larger than it will ever be.
#[derive(Debug)]
pub struct Shared {
    start: NonNull<AtomicU64>,
    words: usize,
    fd: OwnedFd,
}

// SAFETY: all access goes through atomics, and the mapping lives as long as the value.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Makes memory of so many words, all 0.
    ///
    /// # Errors
    /// ENOMEM, EMFILE; EFBIG where the size of files is limited.
    pub fn create(name: &CStr, words: usize) -> Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC)
            .map_err(|e| SysError::new("memfd_create", e))?;
        let bytes = bytes(words)?;
        File::from(fd.try_clone().map_err(|e| broken(&e))?)
            .set_len(bytes as u64)
            .map_err(|e| broken(&e))?;
        Self::map(fd, words)
    }

    /// Maps memory that another process has made.
    ///
    /// # Errors
    /// EINVAL where it is smaller than `words`; ENOMEM.
    pub fn map(fd: OwnedFd, words: usize) -> Result<Self> {
        let size = bytes(words)?;
        let there = crate::stat::stat_fd(fd.as_fd())?.size;
        if there < size as u64 {
            return Err(SysError::new("shared memory is too small", Errno::EINVAL));
        }
        // SAFETY: a new mapping at a place the kernel chooses; nothing of ours is there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(SysError::new("mmap", Errno::last()));
        }
        let start = NonNull::new(start.cast()).ok_or(SysError::new("mmap", Errno::EINVAL))?;
        Ok(Self { start, words, fd })
    }

    /// The memory.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has that many words, is aligned to a page, and any bits are a u64.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

/// A file in memory with this in it.
///
/// # Errors
/// ENOMEM, EMFILE.
pub fn file_of(name: &CStr, bytes: &[u8]) -> Result<File> {
    let fd =
        memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| SysError::new("memfd_create", e))?;
    let file = File::from(fd);
    file.write_all_at(bytes, 0).map_err(|e| broken(&e))?;
    Ok(file)
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}

fn bytes(words: usize) -> Result<usize> {
    words
        .checked_mul(8)
        .ok_or(SysError::new("mmap", Errno::ENOMEM))
}

fn broken(e: &std::io::Error) -> SysError {
    let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    SysError::new("shared memory", errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_second_mapping_sees_what_was_stored() {
        let one = Shared::create(c"test", 1 << 30).unwrap();
        one.words()[(1 << 30) - 1].store(7, Ordering::Relaxed);
        let fd = one.as_fd().try_clone_to_owned().unwrap();
        let other = Shared::map(fd, 1 << 30).unwrap();
        drop(one);
        assert_eq!(other.words()[(1 << 30) - 1].load(Ordering::Relaxed), 7);
        let fd = other.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(
            Shared::map(fd, (1 << 30) + 1).unwrap_err().errno(),
            Errno::EINVAL
        );
    }
}
