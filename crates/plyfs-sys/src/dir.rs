//! Reading the entries of a directory.
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::{check_long, gate};
use crate::error::{Errno, Result, SysError};
use crate::stat::Kind;

/// Bytes read from the kernel at a time.
const BUFFER: usize = 64 << 10;
/// Offset of d_name in struct linux_dirent64: ino 8, off 8, reclen 2, type 1.
const NAME_OFFSET: usize = 19;

/// One entry of a directory; never `.` or `..`.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// Name as the file system stores it.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// Type, where the file system says.
    pub kind: Option<Kind>,
}

/// Calls `f` for each entry of the directory `fd`, which is open for reading and at its start.
///
/// # Errors
/// What getdents64 answers, or the error `f` returns.
pub fn for_each<E: From<SysError>>(
    fd: BorrowedFd<'_>,
    mut f: impl FnMut(DirEntry<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut buf = vec![0u8; BUFFER];
    loop {
        let n = getdents(fd, &mut buf)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &buf[..n];
        while !rest.is_empty() {
            let (entry, len) = parse(rest).ok_or(SysError::new("getdents64", Errno::EIO))?;
            if !matches!(entry.name, b"." | b"..") {
                f(entry)?;
            }
            rest = &rest[len..];
        }
    }
}

fn getdents(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    gate("getdents64")?;
    // SAFETY: the kernel writes at most buf.len() bytes into buf.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buf.as_mut_ptr(),
            buf.len(),
        )
    };
    check_long("getdents64", b"", rc)
}

fn parse(buf: &[u8]) -> Option<(DirEntry<'_>, usize)> {
    let ino = u64::from_ne_bytes(buf.get(..8)?.try_into().ok()?);
    let len = usize::from(u16::from_ne_bytes(buf.get(16..18)?.try_into().ok()?));
    let dtype = *buf.get(18)?;
    let name = buf.get(NAME_OFFSET..len)?;
    let end = name.iter().position(|b| *b == 0)?;
    Some((
        DirEntry {
            name: &name[..end],
            ino,
            kind: Kind::from_dtype(dtype),
        },
        len,
    ))
}

#[cfg(test)]
mod tests;
