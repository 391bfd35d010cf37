//! Passthrough: registering data files with the connection, and what OPEN and CREATE answer.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fuser::FopenFlags;
use plyfs_sys::backing;
use plyfs_sys::open::{O_ACCMODE, O_APPEND, O_DSYNC, O_RDONLY, O_TRUNC, O_WRONLY};
use plyfs_union::{Backings, How, Way};

/// Registers files with the connection.
#[derive(Debug)]
pub(crate) struct KernelBackings {
    connection: OwnedFd,
}

impl KernelBackings {
    /// Tries whether the kernel takes files from this process.
    pub(crate) fn try_on(connection: OwnedFd) -> plyfs_sys::Result<Self> {
        backing::probe(connection.as_fd())?;
        Ok(Self { connection })
    }
}

impl Backings for KernelBackings {
    fn register(&self, file: BorrowedFd<'_>, written: bool) -> plyfs_sys::Result<u32> {
        match written {
            true => backing::register_for_writers(self.connection.as_fd(), file),
            false => backing::register(self.connection.as_fd(), file),
        }
    }

    fn unregister(&self, id: u32) {
        if let Err(e) = backing::unregister(self.connection.as_fd(), id) {
            tracing::warn!("a backing file stays registered: {e}");
        }
    }
}

/// What the flags of open(2) ask for.
pub(crate) fn how(flags: i32) -> How {
    let mode = flags & O_ACCMODE;
    How {
        reads: mode != O_WRONLY,
        writes: mode != O_RDONLY,
        appends: flags & O_APPEND != 0,
        syncs: flags & O_DSYNC != 0,
        truncates: flags & O_TRUNC != 0,
        // Programs have O_LARGEFILE in their flags; `fuse_priv_ioctl_prepare()` has none at all.
        by_kernel: flags == O_RDONLY,
    }
}

/// Handle of an open for writing, and of one for reading: RELEASE brings it back.
const WRITER: u64 = 1;
const READER: u64 = 0;

/// What struct fuse_open_out says: handle, flags, backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenOut {
    pub(crate) handle: u64,
    pub(crate) flags: u32,
    pub(crate) backing: u32,
}

impl OpenOut {
    pub(crate) fn new(how: How, way: Way) -> Self {
        let (flags, backing) = match way {
            Way::Passed(backing) => (FopenFlags::FOPEN_PASSTHROUGH, backing),
            Way::Asked(backing) => (
                FopenFlags::FOPEN_PASSTHROUGH | FopenFlags::FOPEN_DIRECT_IO,
                backing,
            ),
            Way::Served { cached: true } => (FopenFlags::FOPEN_KEEP_CACHE, 0),
            Way::Served { cached: false } => (FopenFlags::empty(), 0),
        };
        Self {
            handle: if how.writes { WRITER } else { READER },
            flags: flags.bits(),
            backing,
        }
    }
}

/// Whether the open with this handle was one for writing.
pub(crate) fn was_for_writing(handle: u64) -> bool {
    handle == WRITER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_is_known_again_by_its_handle() {
        for (flags, writes) in [
            (O_RDONLY, false),
            (O_RDONLY | O_TRUNC, false),
            (O_WRONLY | O_APPEND, true),
            (O_ACCMODE & !O_WRONLY, true),
        ] {
            let how = how(flags);
            assert_eq!(how.writes, writes);
            let out = OpenOut::new(how, Way::Passed(7));
            assert_eq!(was_for_writing(out.handle), writes);
            assert_eq!(out.backing, 7);
        }
    }

    /// With other flags beside it the kernel refuses FOPEN_PASSTHROUGH (`FOPEN_PASSTHROUGH_MASK`).
    #[test]
    fn the_cache_is_kept_by_served_opens_alone() {
        let flags = |way| OpenOut::new(How::default(), way).flags;
        assert_eq!(flags(Way::Passed(1)), 1 << 7);
        assert_eq!(flags(Way::Asked(1)), 1 << 7 | 1);
        assert_eq!(flags(Way::Served { cached: true }), 1 << 1);
        assert_eq!(flags(Way::Served { cached: false }), 0);
    }
}
