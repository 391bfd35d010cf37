//! Taking a mount away from the outside, and waiting until its daemon is gone.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfs_sys::mount::{self, HelperError, MountEntry, Unmount};
use plyfs_sys::{Errno, SysError};

use crate::error::UnmountError;
use crate::state::{Watched, is_our_type};

/// How long a daemon may take to finish after its mount is gone.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// The mount of ours that is seen at `path`.
///
/// Only the parent of the mountpoint is resolved: asking the mount itself would wait for a daemon
/// that may hang.
///
/// # Errors
/// When nothing or something else is mounted there.
pub fn find(path: &Path) -> Result<MountEntry, UnmountError> {
    let full = resolve(path);
    let mut found = mount::mount_at(&full)?;
    if found.is_none()
        && let Ok(target) = std::fs::canonicalize(path)
    {
        // The name itself is a symbolic link to the mountpoint.
        found = mount::mount_at(&target)?;
    }
    let entry = found.ok_or_else(|| UnmountError::NotMounted {
        path: path.to_owned(),
    })?;
    if is_our_type(&entry.fstype) {
        Ok(entry)
    } else {
        Err(UnmountError::NotOurs {
            path: path.to_owned(),
            fstype: entry.fstype,
        })
    }
}

fn resolve(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (full.parent().map(std::fs::canonicalize), full.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => full,
    }
}

/// Unmounts and waits until the daemon has ended; with [`Unmount::Lazy`] only until the mount is
/// gone from the tree.
///
/// # Errors
/// See [`UnmountError`].
pub fn unmount(path: &Path, how: Unmount) -> Result<(), UnmountError> {
    let entry = find(path)?;
    let daemon = Watched::open(entry.dev);
    match mount::unmount(&entry.target, how) {
        Ok(()) => {}
        Err(e) if e.errno() == Errno::EBUSY => {
            return Err(UnmountError::Busy {
                path: path.to_owned(),
            });
        }
        Err(e) if e.errno() == Errno::EPERM => by_helper(&entry.target, how, e)?,
        Err(e) => return Err(e.into()),
    }
    match daemon {
        Some(daemon) if how == Unmount::Idle => wait_for(&daemon, path),
        _ => Ok(()),
    }
}

fn by_helper(target: &Path, how: Unmount, direct: SysError) -> Result<(), UnmountError> {
    mount::unmount_by_helper(target, how).map_err(|e| match e {
        HelperError::Missing => direct.into(),
        HelperError::Refused(text) => UnmountError::HelperRefused { text },
        HelperError::Sys(e) => e.into(),
    })
}

fn wait_for(daemon: &Watched, path: &Path) -> Result<(), UnmountError> {
    let until = Instant::now() + PATIENCE;
    while !daemon.daemon_is_gone() {
        if Instant::now() >= until {
            return Err(UnmountError::DaemonLingers {
                path: path.to_owned(),
                pid: daemon.state.pid,
            });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
