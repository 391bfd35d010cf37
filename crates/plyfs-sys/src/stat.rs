//! Attributes of files and file systems.
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::at::At;
use crate::call::{check, gate};
use crate::error::{Errno, Result, SysError};

/// Identity of an object in the file system that holds a layer: (st_dev, st_ino).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerIno {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number in that file system.
    pub ino: u64,
}

/// A point in time: seconds since 1970 (may be negative) and nanoseconds (0 to 999,999,999).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
}

impl Kind {
    /// From the S_IFMT bits of a mode; anything unknown counts as a regular file.
    #[must_use]
    pub fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Dir,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFCHR => Self::Char,
            libc::S_IFBLK => Self::Block,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            _ => Self::File,
        }
    }

    /// From the d_type of a directory entry; None for DT_UNKNOWN.
    #[must_use]
    pub fn from_dtype(dtype: u8) -> Option<Self> {
        Some(match dtype {
            libc::DT_REG => Self::File,
            libc::DT_DIR => Self::Dir,
            libc::DT_LNK => Self::Symlink,
            libc::DT_CHR => Self::Char,
            libc::DT_BLK => Self::Block,
            libc::DT_FIFO => Self::Fifo,
            libc::DT_SOCK => Self::Socket,
            _ => return None,
        })
    }

    /// The S_IFMT bits.
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Dir => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Char => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
        }
    }
}

/// Attributes of one object, as `statx(2)` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device of the file system that holds the object.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node (major, minor).
    pub rdev: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last status change.
    pub ctime: Time,
    /// Mount that holds the object (0 where the kernel does not say).
    pub mnt_id: u64,
    /// Data may only be appended (`chattr +a`), where the file system says so.
    pub append_only: bool,
    /// Nothing may change (`chattr +i`), where the file system says so.
    pub immutable: bool,
}

impl Stat {
    /// Identity of the object.
    #[must_use]
    pub fn id(&self) -> LayerIno {
        LayerIno {
            dev: self.dev,
            ino: self.ino,
        }
    }

    /// Type of the object.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }

    /// Permission bits including suid, sgid and sticky.
    #[must_use]
    pub fn perm(&self) -> u32 {
        self.mode & 0o7777
    }
}

fn time(t: libc::statx_timestamp) -> Time {
    Time {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    }
}

/// Attributes of the target; absence is an error here.
///
/// # Errors
/// ENOENT and whatever else `statx(2)` answers.
pub fn stat(at: At<'_>) -> Result<Stat> {
    let mut buf = MaybeUninit::<libc::statx>::uninit();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    at.with_name("statx", |name| {
        // SAFETY: name is a C string, buf is valid for writes of one statx.
        let rc = unsafe {
            libc::statx(
                at.raw(),
                name.as_ptr(),
                at.flags() | libc::AT_NO_AUTOMOUNT,
                mask,
                buf.as_mut_ptr(),
            )
        };
        check("statx", at.subject(), rc)
    })?;
    // SAFETY: statx succeeded, so it filled the buffer.
    let s = unsafe { buf.assume_init() };
    Ok(Stat {
        dev: libc::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: u32::from(s.stx_mode),
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: (s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blocks: s.stx_blocks,
        blksize: s.stx_blksize,
        atime: time(s.stx_atime),
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
        mnt_id: if s.stx_mask & libc::STATX_MNT_ID == 0 {
            0
        } else {
            s.stx_mnt_id
        },
        append_only: s.stx_attributes & (libc::STATX_ATTR_APPEND as u64) != 0,
        immutable: s.stx_attributes & (libc::STATX_ATTR_IMMUTABLE as u64) != 0,
    })
}

/// Attributes of the target; None when nothing has that name.
///
/// # Errors
/// Whatever `statx(2)` answers except ENOENT.
pub fn stat_opt(at: At<'_>) -> Result<Option<Stat>> {
    match stat(at) {
        Ok(s) => Ok(Some(s)),
        Err(e) if e.errno() == Errno::ENOENT => Ok(None),
        Err(e) => Err(e),
    }
}

/// Attributes of an open object.
///
/// # Errors
/// EBADF, EIO.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat> {
    stat(At::object(&fd))
}

/// Figures of a file system, as `statfs(2)` gives them.
#[derive(Debug, Clone, Copy)]
pub struct StatFs {
    /// Magic number of the file system type.
    pub magic: i64,
    /// Block size in bytes.
    pub bsize: u32,
    /// Fragment size in bytes.
    pub frsize: u32,
    /// Blocks in total.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for ordinary users.
    pub bavail: u64,
    /// Inodes in total.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Longest name in bytes.
    pub namelen: u32,
}

/// Figures of the file system that holds `fd` (O_PATH will do).
///
/// # Errors
/// EIO and the like.
pub fn statfs(fd: BorrowedFd<'_>) -> Result<StatFs> {
    gate("fstatfs")?;
    let mut buf = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: buf is valid for writes of one statfs.
    let rc = unsafe { libc::fstatfs(fd.as_raw_fd(), buf.as_mut_ptr()) };
    if rc == -1 {
        return Err(SysError::last("fstatfs"));
    }
    // SAFETY: fstatfs succeeded, so it filled the buffer.
    let s = unsafe { buf.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "musl has it unsigned")]
    let magic = s.f_type as i64;
    Ok(StatFs {
        magic,
        bsize: u32::try_from(s.f_bsize).unwrap_or(4096),
        frsize: u32::try_from(s.f_frsize).unwrap_or(4096),
        blocks: s.f_blocks,
        bfree: s.f_bfree,
        bavail: s.f_bavail,
        files: s.f_files,
        ffree: s.f_ffree,
        namelen: u32::try_from(s.f_namelen).unwrap_or(255),
    })
}
