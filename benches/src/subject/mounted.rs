//! A stack that is mounted, until it is not.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::daemon::Daemon;

/// A merged view; dropping it unmounts without a word, [`Mounted::unmount`] with an error.
#[derive(Debug)]
pub struct Mounted {
    root: PathBuf,
    mounted: bool,
    daemon: Option<Daemon>,
}

impl Mounted {
    /// A directory that needs no mount.
    #[must_use]
    pub fn nothing(root: PathBuf) -> Self {
        Self {
            root,
            mounted: false,
            daemon: None,
        }
    }

    /// A mount of the kernel's own.
    #[must_use]
    pub fn kernel(root: PathBuf) -> Self {
        Self {
            root,
            mounted: true,
            daemon: None,
        }
    }

    pub(crate) fn served(root: PathBuf, daemon: Daemon) -> Self {
        Self {
            root,
            mounted: true,
            daemon: Some(daemon),
        }
    }

    /// The merged view.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The process that serves the mount, where there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Unmounts and waits for the daemon.
    ///
    /// # Errors
    /// When the mount stays busy, or the daemon does not end well.
    pub fn unmount(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.mounted, false) {
            unmount(&self.root)?;
        }
        self.daemon
            .take()
            .map_or(Ok(()), |mut daemon| daemon.wait())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

/// A program that has just ended may hold the mount for a moment more.
fn unmount(root: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        match umount2(root, MntFlags::empty()) {
            Err(Errno::EBUSY) if start.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.with_context(|| format!("unmount {}", root.display())),
        }
    }
}
