//! Why an operation on the merged view failed, and the errno the caller gets.
use plyfs_sys::{Errno, SysError};

/// Result of an operation on the merged view.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a layer failed; the caller gets its errno.
    #[error("{0}")]
    Sys(#[from] SysError),
    /// Nothing has the name.
    #[error("no such name")]
    NotFound,
    /// Something has the name already.
    #[error("the name exists")]
    Exists,
    /// A directory was expected.
    #[error("not a directory")]
    NotDir,
    /// Anything but a directory was expected.
    #[error("is a directory")]
    IsDir,
    /// The directory has visible entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The view has no upper.
    #[error("read-only view")]
    ReadOnly,
    /// A directory with a lower part would need a redirect, which is off.
    #[error("rename of a directory with a lower part needs redirect_dir=on")]
    CrossDevice,
    /// The kernel named an inode that is not known.
    #[error("unknown inode")]
    Stale,
    /// The kernel has to look the name up again (see [`crate::opens`]).
    #[error("the file has another number now")]
    Moved,
    /// The operation does not fit the object or its arguments.
    #[error("{0}")]
    Invalid(&'static str),
    /// The layers contradict each other or themselves.
    #[error("malformed layer: {0}")]
    Malformed(&'static str),
    /// The extended attribute belongs to the overlay.
    #[error("reserved extended attribute")]
    NotPermitted,
    /// The object or its directory is immutable or append-only.
    #[error("immutable or append-only")]
    Protected,
    /// The file system or object has no such operation.
    #[error("not supported")]
    NotSupported,
    /// The id map has no id on disk for this owner.
    #[error("the owner is not in the id map")]
    Unmapped,
    /// The view shows no extended attributes at all.
    #[error("extended attributes are off")]
    NoXattrs,
    /// The extended attribute is not set.
    #[error("no such attribute")]
    NoData,
    /// The ioctl is not known.
    #[error("unknown ioctl")]
    NotTty,
}

impl Error {
    /// The errno that says this to a program.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Sys(e) => e.errno(),
            Self::NotFound => Errno::ENOENT,
            Self::Exists => Errno::EEXIST,
            Self::NotDir => Errno::ENOTDIR,
            Self::IsDir => Errno::EISDIR,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::ReadOnly => Errno::EROFS,
            Self::CrossDevice => Errno::EXDEV,
            Self::Stale | Self::Moved => Errno::ESTALE,
            Self::Invalid(_) => Errno::EINVAL,
            Self::Malformed(_) => Errno::EIO,
            Self::NotPermitted | Self::Protected => Errno::EPERM,
            Self::NotSupported => Errno::EOPNOTSUPP,
            Self::Unmapped => Errno::EOVERFLOW,
            Self::NoXattrs => Errno::ENOSYS,
            Self::NoData => Errno::ENODATA,
            Self::NotTty => Errno::ENOTTY,
        }
    }

    /// Whether programs meet this in ordinary work, so that it is no news for the log.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        if matches!(self, Self::Moved) {
            return true;
        }
        !matches!(
            self.errno(),
            Errno::EIO | Errno::ESTALE | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM
        )
    }
}
