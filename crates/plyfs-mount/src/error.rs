//! Why a mount is not made: one variant and one line for each reason, with what to do about it.
use std::fmt;
use std::path::PathBuf;

use plyfs_sys::SysError;

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A read-only layer.
    Lower,
    /// The writable layer.
    Upper,
    /// The staging area of the writable layer.
    Work,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lower => "lower layer",
            Self::Upper => "upper",
            Self::Work => "workdir",
        })
    }
}

/// A directory the operator named, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is for.
    pub role: Role,
    /// As the operator wrote it.
    pub path: PathBuf,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.role, self.path)
    }
}

/// Why a mount is not made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Nothing to stack.
    #[error("no lower layer given: name at least one with --lower DIR or lowerdir=DIR")]
    NoLower,
    /// More layers than the kernel's overlayfs takes.
    #[error("{count} lower layers given: at most {max} can be stacked")]
    TooManyLowers {
        /// How many were given.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// An upper needs a place to stage changes.
    #[error(
        "upper {upper:?} has no workdir: add --work DIR (or workdir=DIR) on the same file system"
    )]
    UpperWithoutWork {
        /// The upper.
        upper: PathBuf,
    },
    /// A workdir alone is of no use.
    #[error("workdir {work:?} has no upper: add --upper DIR (or upperdir=DIR), or leave both out")]
    WorkWithoutUpper {
        /// The workdir.
        work: PathBuf,
    },
    /// Nothing has that name.
    #[error("{0} does not exist")]
    Missing(Place),
    /// It is something else.
    #[error("{0} is not a directory")]
    NotDirectory(Place),
    /// It exists and cannot be used.
    #[error("{place} cannot be read: {source}")]
    Unreadable {
        /// Which.
        place: Place,
        /// What failed.
        source: SysError,
    },
    /// The same directory twice.
    #[error("{first} and {second} are the same directory")]
    SameTwice {
        /// One name.
        first: Place,
        /// The other name.
        second: Place,
    },
    /// A directory within another that must be apart from it.
    #[error("{inner} lies inside {outer}: they must be apart")]
    Nested {
        /// The one inside.
        inner: Place,
        /// The one around it.
        outer: Place,
    },
    /// What is written lies below a layer that is only read, and the two cannot be told apart.
    #[error(
        "{inner} lies inside {outer}, which needs a clone of that mount ({source}): keep them \
         apart, or mount as root or in a user namespace (unshare -Urm)"
    )]
    NestedWithoutClone {
        /// The one inside.
        inner: Place,
        /// The one around it.
        outer: Place,
        /// Why there is no clone.
        source: SysError,
    },
    /// A rename from one to the other would fail.
    #[error("workdir {work:?} is not on the same mounted file system as upper {upper:?}")]
    WorkElsewhere {
        /// The workdir.
        work: PathBuf,
        /// The upper.
        upper: PathBuf,
    },
    /// Another mount writes there.
    #[error("{0} is in use by another mount: unmount that first")]
    InUse(Place),
    /// A volatile mount was not finished.
    #[error(
        "workdir {work:?} was last used by a volatile mount, so the upper may be incomplete after \
         a crash: if it is not, remove {marker:?}"
    )]
    VolatileLeft {
        /// The workdir.
        work: PathBuf,
        /// What to remove.
        marker: PathBuf,
    },
    /// There is nothing to mount on.
    #[error("mountpoint {path:?} does not exist")]
    MountpointMissing {
        /// As given.
        path: PathBuf,
    },
    /// Only directories can be mounted on.
    #[error("mountpoint {path:?} is not a directory")]
    MountpointNotDirectory {
        /// As given.
        path: PathBuf,
    },
    /// A daemon died and left its mount behind.
    #[error("mountpoint {path:?} holds a dead FUSE mount: fusermount3 -uz {path:?} takes it away")]
    MountpointDead {
        /// As given.
        path: PathBuf,
    },
    /// It exists and cannot be used.
    #[error("mountpoint {path:?} cannot be used: {source}")]
    Mountpoint {
        /// As given.
        path: PathBuf,
        /// What failed.
        source: SysError,
    },
    /// The mount would contain itself.
    #[error("mountpoint {path:?} lies inside {layer}: the mount would contain itself")]
    MountpointInside {
        /// As given.
        path: PathBuf,
        /// Which directory holds it.
        layer: Place,
    },
    /// The mount would contain itself, and the layer cannot be cloned.
    #[error(
        "mountpoint {path:?} lies inside {layer}, which needs a clone of that mount ({source}): \
         mount elsewhere, or as root or in a user namespace (unshare -Urm)"
    )]
    MountpointWithoutClone {
        /// As given.
        path: PathBuf,
        /// Which directory holds it.
        layer: Place,
        /// Why there is no clone.
        source: SysError,
    },
    /// The kernel has no FUSE, or the container does not show it.
    #[error("/dev/fuse does not exist: load the fuse module, or give /dev/fuse to the container")]
    NoDevFuse,
    /// It is there, but not for us.
    #[error("/dev/fuse may not be opened ({0}): give this user access to it")]
    DevFuseDenied(SysError),
    /// It cannot be opened for another reason.
    #[error("/dev/fuse: {0}")]
    DevFuse(SysError),
    /// An ordinary user without the helper.
    #[error(
        "mounting needs root, a user namespace (unshare -Urm) or fusermount3 of the package fuse3; \
         none is there"
    )]
    NoPrivilege,
    /// The helper said no.
    #[error("{text}")]
    HelperRefused {
        /// In its own words.
        text: String,
    },
    /// The kernel said no.
    #[error("cannot mount on {path:?}: {source}")]
    Mount {
        /// Where.
        path: PathBuf,
        /// What failed.
        source: SysError,
    },
    /// The engine cannot use the layers.
    #[error(transparent)]
    Union(#[from] plyfs_union::OpenError),
    /// Data is to be passed through and cannot be.
    #[error(
        "data=passthrough needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH and CAP_SYS_ADMIN outside of any \
         user namespace ({0}): use data=cached"
    )]
    Passthrough(std::io::Error),
    /// The kernel does not talk to us.
    #[error("the FUSE connection failed: {0}")]
    Session(std::io::Error),
    /// What another program has left cannot be read.
    #[error("what the other program has left is not understood: {0}")]
    Plan(std::io::Error),
    /// Another daemon serves, or is about to.
    #[error("nobody waits for this daemon any more")]
    NotAwaited,
    /// This program cannot go on with the mount; the one from before does.
    #[error("{0}")]
    NotTakenOver(Box<MountError>),
    /// A system call around the mount failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The daemon said why it did not start.
    #[error("{0}")]
    Reported(String),
    /// The daemon died without a word.
    #[error("the daemon ended before the mount was ready (exit status {status})")]
    DaemonDied {
        /// Exit status, or 128 + signal.
        status: i32,
    },
}

impl MountError {
    /// Whether the mount lives on without the process that says so.
    #[must_use]
    pub fn leaves_mount(&self) -> bool {
        matches!(self, Self::NotAwaited | Self::NotTakenOver(_))
    }
}

/// Why a mount is not taken away.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Nothing is mounted there.
    #[error("nothing is mounted on {path:?}")]
    NotMounted {
        /// As given.
        path: PathBuf,
    },
    /// Something else is mounted there.
    #[error("{path:?} is no plyfs mount but of type {fstype}")]
    NotOurs {
        /// As given.
        path: PathBuf,
        /// What it is.
        fstype: String,
    },
    /// Somebody uses it.
    #[error("{path:?} is in use: close what is open there, or use --lazy")]
    Busy {
        /// As given.
        path: PathBuf,
    },
    /// The helper said no.
    #[error("{text}")]
    HelperRefused {
        /// In its own words.
        text: String,
    },
    /// The mount is gone and its daemon is not.
    #[error("{path:?} is unmounted, but its daemon still works (process {pid})")]
    DaemonLingers {
        /// As given.
        path: PathBuf,
        /// Process id, in the daemon's own namespace.
        pid: u32,
    },
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}
