//! The opened root directory of a layer.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use plyfs_sys::stat::LayerIno;
use plyfs_sys::{Result, detach, open, stat};

/// The root directory of a layer, opened once before mounting; later accesses start from its fd.
#[derive(Debug)]
pub struct LayerRoot {
    path: PathBuf,
    fd: OwnedFd,
    id: LayerIno,
}

impl LayerRoot {
    /// Opens the directory at `path`, following symbolic links.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EACCES and the like from `open(2)` with O_PATH|O_DIRECTORY.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = open::open_dir_path(path)?;
        let id = stat::stat_fd(fd.as_fd())?.id();
        Ok(Self {
            path: path.to_owned(),
            fd,
            id,
        })
    }

    /// The directory that another process had open under the descriptor `fd`.
    ///
    /// # Errors
    /// EBADF and the like.
    pub fn inherited(path: &Path, fd: OwnedFd) -> Result<Self> {
        let id = stat::stat_fd(fd.as_fd())?.id();
        Ok(Self {
            path: path.to_owned(),
            fd,
            id,
        })
    }

    /// The path the operator gave; for messages only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode number of the root directory.
    #[must_use]
    pub fn id(&self) -> LayerIno {
        self.id
    }

    /// The same directory out of reach of mounts below it (see [`plyfs_sys::detach`]).
    ///
    /// # Errors
    /// EPERM where the process may not clone mounts, ENOSYS before Linux 5.2.
    pub fn detached(&self) -> Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            fd: detach::private_clone(self.fd.as_fd())?,
            id: self.id,
        })
    }

    /// [`LayerRoot::detached`], through a mount that lets nobody write, not even an access time.
    ///
    /// # Errors
    /// As [`LayerRoot::detached`].
    pub fn only_read(&self) -> Result<Self> {
        let detached = self.detached()?;
        detach::only_read(&detached.fd)?;
        Ok(detached)
    }

    /// Gives up the path and returns the descriptor.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for LayerRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
