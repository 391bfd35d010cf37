//! A disk that lives in the test: it records what is written and flushed, and fails or hangs on demand.
//!
//! A FUSE file system has one file, a loop device lies on that, and any file system on the device.
//! What comes to the file is what a disk would be told, in the order in which it would be.

mod image;
mod serve;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fuser::{BackgroundSession, Config, MountOption};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

pub use image::Image;
pub use serve::Event;
use serve::{NAME, Server, Shared};

/// How long a file system may take to let go of its device.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file system that can be made on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4 with a small journal, 24 MiB.
    Ext4,
    /// xfs, 300 MiB, the least that it takes.
    Xfs,
    /// btrfs, 120 MiB.
    Btrfs,
}

impl Kind {
    /// What mount(8) calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// An image with a new file system; `dir` is where it is made.
    ///
    /// # Errors
    /// When mkfs fails.
    pub fn make(self, dir: &Path) -> Result<Image> {
        let file = dir.join("new-image");
        let (size, words): (u64, &[&str]) = match self {
            Self::Ext4 => (24, &["-qF", "-J", "size=4", "-E", "nodiscard"]),
            Self::Xfs => (300, &["-qfK"]),
            Self::Btrfs => (120, &["-qfK"]),
        };
        fs::File::create(&file)?.set_len(size << 20)?;
        let mut mkfs = Command::new(format!("mkfs.{}", self.name()));
        let path = std::env::var("PATH").unwrap_or_default();
        mkfs.args(words)
            .arg(&file)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"));
        run(&mut mkfs)?;
        let image = Image::of_file(&file)?;
        fs::remove_file(&file)?;
        Ok(image)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let out = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{command:?}: {said}");
    Ok(())
}

/// A file system from an image, mounted by a loop device; it is unmounted with the value.
#[derive(Debug)]
pub struct MountedImage(PathBuf);

impl MountedImage {
    /// Mounts the file system in `image` at `dir`, which makes it recover from a crash.
    ///
    /// # Errors
    /// When mount(8) fails.
    pub fn new(image: &Path, kind: Kind, dir: &Path, options: &str) -> Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", kind.name(), "-o", &format!("loop{options}")]);
        run(mount.arg(image).arg(dir))?;
        Ok(Self(dir.to_owned()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        if let Err(e) = unmount(&self.0) {
            eprintln!("umount {}: {e}", self.0.display());
        }
    }
}

/// Unmounts; what stays busy is detached.
fn unmount(dir: &Path) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match umount2(dir, MntFlags::empty()) {
            Err(Errno::EBUSY) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::EBUSY) => return Ok(umount2(dir, MntFlags::MNT_DETACH)?),
            other => return Ok(other?),
        }
    }
}

/// A disk of this process.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// A disk that holds `image`; its file is made in `dir`, where nothing else may be.
    ///
    /// # Errors
    /// When FUSE cannot be mounted.
    pub fn new(image: Image, dir: &Path) -> Result<Self> {
        let shared = Arc::new(Shared::new(image));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("disk".to_owned())];
        // Requests that wait for a stuck disk keep a thread each.
        config.n_threads = Some(4);
        let session = fuser::spawn_mount(Server(Arc::clone(&shared)), dir, &config)?;
        Ok(Self {
            shared,
            dir: dir.to_owned(),
            session: Some(session),
        })
    }

    /// Mounts the file system on this disk at `at`.
    ///
    /// # Errors
    /// When mount(8) fails.
    pub fn mount(&self, kind: Kind, at: &Path, options: &str) -> Result<MountedImage> {
        MountedImage::new(&self.dir.join(NAME), kind, at, options)
    }

    /// Records from now on; answers the image as it is now.
    #[must_use]
    pub fn record(&self) -> Image {
        let mut state = self.shared.lock();
        state.recording = true;
        state.image.clone()
    }

    /// What the disk holds now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.shared.lock().image.clone()
    }

    /// How many events have been recorded.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.shared.lock().events.len()
    }

    /// The number of the last flush that was recorded.
    #[must_use]
    pub fn last_flush(&self) -> Option<usize> {
        let state = self.shared.lock();
        state.events.iter().rposition(|e| matches!(e, Event::Flush))
    }

    /// Ends the recording and answers what was recorded.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        let mut state = self.shared.lock();
        state.recording = false;
        std::mem::take(&mut state.events)
    }

    /// Makes all blocks that have `bytes` in them unreadable; answers how many those are.
    pub fn break_blocks_with(&self, bytes: &[u8]) -> usize {
        let bad = self.image().blocks_with(bytes);
        let count = bad.len();
        self.shared.change(|state| state.bad.extend(bad));
        count
    }

    /// Makes everything unreadable and unwritable, or all well again.
    pub fn set_gone(&self, gone: bool) {
        self.shared.change(|state| {
            state.gone = gone;
            state.bad.clear();
        });
    }

    /// Makes all requests wait, or go on.
    pub fn set_stuck(&self, stuck: bool) {
        self.shared.change(|state| state.stuck = stuck);
    }

    /// How many requests wait at a stuck disk.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.set_stuck(false);
        // A loop device lets go a moment after its file system has.
        if let Err(e) = unmount(&self.dir) {
            eprintln!("umount {}: {e}", self.dir.display());
        }
        if let Some(Err(e)) = self.session.take().map(BackgroundSession::join) {
            eprintln!("{}: {e}", self.dir.display());
        }
    }
}
