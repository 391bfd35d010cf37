//! The directories of one sample, and what the workload finds in them.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fixture::{Archive, Built, Sizes};

/// What a workload does to the layers; it decides what the plain directory has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Only reads: the plain directory is the lower layer itself.
    Reads,
    /// Adds files of its own: the plain directory starts empty.
    Adds,
    /// Changes what the lower holds: the plain directory is a copy of it.
    ChangesLower,
}

/// The stack that a subject mounts for one sample.
#[derive(Debug)]
pub struct Stack {
    /// Lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// An empty upper.
    pub upper: PathBuf,
    /// An empty workdir.
    pub work: PathBuf,
    /// An empty directory to mount on.
    pub mountpoint: PathBuf,
    /// What shows the same files without any union: see [`Touch`].
    pub plain: PathBuf,
    /// Mount options beside the layers, in overlayfs's words.
    pub options: &'static [(&'static str, &'static str)],
}

/// What a workload is given to run on.
#[derive(Debug, Clone)]
pub struct Site {
    /// The merged view.
    pub root: PathBuf,
    /// The lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// What the lower layers hold.
    pub built: Arc<Built>,
    /// How much to do.
    pub sizes: Sizes,
    /// An archive of a source tree.
    pub archive: Arc<Archive>,
}

impl Site {
    /// A path in the merged view.
    #[must_use]
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }
}
