//! Where samples are taken: each on a file system of its own, the copy of a kept image.
//!
//! ext4 remembers what was created and deleted before, for minutes: allocation gets slow, the
//! journal has work left. A subject must not pay for the subject before it, so every sample runs
//! on a fresh copy of an image that holds the layers. Where images cannot be mounted, plain
//! directories have to do, and results are noisier.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use crate::fixture::Sizes;

/// Inodes in an image: fixtures and what workloads add need a tenth to a half of them.
const INODES: &str = "200000";

/// Where to work when nobody says: in memory if there is room for images of `sizes`, so that the
/// disk stays out of the results, else on the disk.
#[must_use]
pub fn default_scratch(sizes: &Sizes) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = statvfs(memory).map_or(0, |s| s.blocks_available() * s.fragment_size());
    let is_memory = statfs(memory).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC);
    if is_memory && room >= 4 * sizes.big + (1 << 30) {
        memory.join("plyfs-bench")
    } else {
        PathBuf::from("/var/tmp/plyfs-bench")
    }
}

/// The scratch directory and what it can do.
#[derive(Debug)]
pub(crate) struct Ground {
    scratch: PathBuf,
    images: bool,
    in_memory: bool,
}

/// Layers that were made once; samples work on copies.
#[derive(Debug, Clone)]
pub(crate) struct Mold {
    path: PathBuf,
}

/// The directories of one sample, gone when the value goes.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    layers: PathBuf,
    image: Option<PathBuf>,
}

impl Ground {
    /// Prepares `scratch`, which may exist from an earlier run.
    pub(crate) fn new(scratch: &Path) -> Result<Self> {
        for dir in [scratch.to_owned(), scratch.join("fixtures")] {
            fs::create_dir_all(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        let scratch = fs::canonicalize(scratch)?;
        let in_memory = statfs(&scratch).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC);
        let images = Path::new("/dev/loop-control").exists()
            && ["/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"]
                .iter()
                .any(|p| Path::new(p).exists());
        Ok(Self {
            scratch,
            images,
            in_memory,
        })
    }

    /// One line for people: what is below the layers.
    pub(crate) fn describe(&self) -> String {
        let place = if self.in_memory { "memory" } else { "the disk" };
        if self.images {
            format!("fresh ext4 images in {place}")
        } else {
            format!("directories in {}", self.scratch.display())
        }
    }

    /// Whether a fresh place has nothing in any cache, so that none has to be dropped.
    pub(crate) fn is_cold_when_fresh(&self) -> bool {
        self.images && self.in_memory
    }

    /// A directory that is kept between runs; a half-made one never gets the name.
    pub(crate) fn keep(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let dir = self.scratch.join("fixtures").join(name);
        if dir.is_dir() {
            return Ok(dir);
        }
        let partial = dir.with_extension("partial");
        remove(&partial)?;
        fs::create_dir(&partial).with_context(|| format!("mkdir {}", partial.display()))?;
        make(&partial).with_context(|| format!("make the fixture {name}"))?;
        fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))?;
        Ok(dir)
    }

    /// Layers by name, `bytes` large at most; `plant` fills the directory of the layers.
    pub(crate) fn mold(
        &self,
        name: &str,
        bytes: u64,
        plant: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Mold> {
        let kind = if self.images { "image" } else { "dir" };
        let path = self.keep(&format!("{name}-{kind}"), |dir| {
            if !self.images {
                return plant(dir);
            }
            let image = dir.join("image");
            make_image(&image, bytes)?;
            let mount = dir.join("mnt");
            fs::create_dir(&mount)?;
            mount_image(&image, &mount)?;
            let layers = mount.join("layers");
            let planted = fs::create_dir(&layers)
                .map_err(Into::into)
                .and_then(|()| plant(&layers));
            umount2(&mount, MntFlags::empty()).context("unmount the image")?;
            planted?;
            command(Command::new("fallocate").arg("--dig-holes").arg(&image))
        })?;
        Ok(Mold { path })
    }

    /// A place for one sample: a copy of `mold`.
    pub(crate) fn place(&self, mold: &Mold) -> Result<Place> {
        let dir = self.scratch.join("run");
        remove(&dir)?;
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        if !self.images {
            return Ok(Place {
                dir,
                layers: mold.path.clone(),
                image: None,
            });
        }
        let image = self.scratch.join("run.image");
        let mut copy = Command::new("cp");
        command(
            copy.arg("--sparse=always")
                .arg(mold.path.join("image"))
                .arg(&image),
        )?;
        mount_image(&image, &dir)?;
        Ok(Place {
            layers: dir.join("layers"),
            dir,
            image: Some(image),
        })
    }
}

impl Place {
    /// A directory of this name, empty if nobody else made it.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(dir)
    }

    /// Layer `index`.
    pub(crate) fn layer(&self, index: usize) -> PathBuf {
        self.layers.join(index.to_string())
    }

    /// Nothing waits to be written to the file system below any more.
    pub(crate) fn settle(&self) -> Result<()> {
        nix::unistd::syncfs(File::open(&self.dir)?).context("syncfs")
    }

    fn take_away(&mut self) -> Result<()> {
        if let Some(image) = self.image.take() {
            umount2(&self.dir, MntFlags::MNT_DETACH).context("unmount the image")?;
            fs::remove_file(&image).with_context(|| format!("remove {}", image.display()))?;
        }
        remove(&self.dir)
    }

    /// Removes it.
    pub(crate) fn clear(mut self) -> Result<()> {
        self.take_away()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.take_away());
    }
}

/// An ext4 of which nothing is initialised later, in the background of somebody's sample.
fn make_image(image: &Path, bytes: u64) -> Result<()> {
    let size = 4 * bytes + (1 << 30);
    File::create(image)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("create {}", image.display()))?;
    let lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args([
        "-q", "-F", "-m", "0", "-J", "size=64", "-N", INODES, "-E", lazy,
    ])
    .arg(image);
    command(&mut mkfs)
}

fn mount_image(image: &Path, dir: &Path) -> Result<()> {
    command(
        Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(image)
            .arg(dir),
    )
}

/// Runs a program that has to end well.
pub(crate) fn command(command: &mut Command) -> Result<()> {
    let out = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{command:?} ended with {}: {}",
        out.status,
        said.trim()
    );
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}
