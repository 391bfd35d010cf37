//! The store: every layer once, images and tags as pointers, consistent at any moment.
//!
//! # Layout, format 1
//!
//! ```text
//! ROOT/plyfs-store.json          {"format":1}
//! ROOT/lock                      flock: shared by everybody who uses the store, exclusive for gc
//! ROOT/blobs/ALG/HEX             a blob as it came: layers, configs, manifests
//! ROOT/blobs/ALG/HEX.zst         a blob that came unpacked (a plain tar), packed by zstd at rest
//! ROOT/layers/ALG/HEX/fs         a layer by its DiffID, ready to be a lower directory
//! ROOT/layers/ALG/HEX/layer.json what is known of it
//! ROOT/images/ALG/HEX.json       an image by the digest of its config
//! ROOT/stacks/ALG/HEX            by ChainID: `stack.json`, and `fs` where the stack needs one more
//!                                directory on top, see [`stacks`]
//! ROOT/refs/HEX.json             a tag; HEX is the sha256 of its name
//! ROOT/containers/NAME/          a container, see [`containers`]
//! ROOT/uses/                     what mounts without a container use, locked while they live
//! ROOT/staging/                  what is being made or removed
//! ```
//!
//! # Promises
//!
//! Everything is made in `staging`, checked, synced and then renamed to its name, in the order
//! blobs and layers, image, tag: a name never stands for something that is not whole. Removal is a
//! rename into `staging` first. Whatever a killed process leaves in `staging` is removed by gc,
//! which has the store for itself. Two processes may make the same thing: the second rename
//! finds the first one's result and drops its own.
//!
//! The compressed blob is kept beside the unpacked layer: only so can an image be sent on with the
//! digests it came with, whoever compressed it.
mod blobs;
pub mod containers;
mod files;
mod gc;
mod images;
mod layers;
mod names;
mod partial;
pub mod stacks;
mod uses;
mod verify;

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plyfs_format::names::XattrNamespace;
use plyfs_sys::process;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestAlgorithm};
use crate::error::{ImageError, Result};
use crate::limits::Limits;

pub use blobs::Blob;
pub(crate) use blobs::read_bounded;
pub use gc::Collected;
pub(crate) use images::diff_ids;
pub use images::{Image, Tagged};
pub use layers::{LayerRecord, LayerSource, StagedLayer};
pub use names::{check_container_name, normalized};
pub use partial::Partial;
pub use uses::Use;
pub use verify::Fault;

/// The format that this plyfs writes.
const FORMAT: u64 = 1;
const FORMAT_FILE: &str = "plyfs-store.json";

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u64,
}

/// An open store. While it is open nothing in it is collected.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    lock: File,
    limits: Limits,
}

impl Store {
    /// Where the store is unless somebody says otherwise: `/var/lib/plyfs` for root,
    /// `$XDG_DATA_HOME/plyfs` or `~/.local/share/plyfs` for a user.
    #[must_use]
    pub fn default_root() -> PathBuf {
        if process::euid() == 0 && process::in_initial_user_ns() {
            return "/var/lib/plyfs".into();
        }
        let absolute = |name| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .unwrap_or_else(|| "/var/lib".into())
            .join("plyfs")
    }

    /// Opens the store at `root`, making an empty one where there is none. Waits while it is
    /// being collected.
    ///
    /// # Errors
    /// When the directory cannot be made or read, or was written by a later plyfs.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| ImageError::file("resolving", root, e))?;
        // Nobody else may reach setuid programs and devices of images through the store.
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for dir in [
            "blobs",
            "layers",
            "images",
            "stacks",
            "refs",
            "containers",
            "uses",
            "staging",
        ] {
            let path = root.join(dir);
            builder
                .create(&path)
                .map_err(|e| ImageError::file("making the store's", &path, e))?;
        }
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| ImageError::file("opening", &path, e))?;
        lock.lock_shared()
            .map_err(|e| ImageError::file("locking", &path, e))?;
        let store = Self {
            root,
            lock,
            limits: Limits::default(),
        };
        store.check_format()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<()> {
        let path = self.root.join(FORMAT_FILE);
        match files::read_json::<Format>(&path)? {
            None => self.write_json(&path, &Format { format: FORMAT }),
            Some(found) if found.format > FORMAT => Err(ImageError::NewerFormat {
                path: self.root.clone(),
                found: found.format,
                known: FORMAT,
            }),
            Some(_) => Ok(()),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What layers may ask of us.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes what layers may ask of us.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Which xattrs carry the marks of layers and uppers here.
    #[must_use]
    pub fn namespace(&self) -> XattrNamespace {
        if process::has_sys_admin() && process::in_initial_user_ns() {
            XattrNamespace::Trusted
        } else {
            XattrNamespace::User
        }
    }

    /// The place of a digest below one of the directories.
    fn place(&self, dir: &str, digest: &Digest) -> Result<PathBuf> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512 => Ok(self
                .root
                .join(dir)
                .join(digest.algorithm().as_ref())
                .join(digest.digest())),
            _ => Err(ImageError::Algorithm(digest.clone())),
        }
    }

    /// A new directory in which something can be made; removed when dropped.
    fn staging(&self) -> Result<tempfile::TempDir> {
        let dir = self.root.join("staging");
        tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&dir)
            .map_err(|e| ImageError::file("making a directory in", &dir, e))
    }
}

#[cfg(test)]
mod tests;
