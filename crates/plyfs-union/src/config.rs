//! What a merged view is made of and how it behaves.
use plyfs_format::names::XattrNamespace;
use plyfs_layer::LayerRoot;
use plyfs_sys::SysError;

use crate::owner::Ownership;

/// The writable part of a stack.
#[derive(Debug)]
pub struct UpperRoots {
    /// Where changes are kept.
    pub upper: LayerRoot,
    /// Where changes are prepared; on the same file system as `upper`.
    pub work: LayerRoot,
}

/// The layers and options of a merged view.
#[derive(Debug)]
pub struct UnionConfig {
    /// Lower layers, topmost first; never written.
    pub lowers: Vec<LayerRoot>,
    /// Layers below all lowers that hold nothing but the data of metacopy files (kernel `::`).
    pub data_only: Vec<LayerRoot>,
    /// The writable layer; without it the view is read-only.
    pub upper: Option<UpperRoots>,
    /// Behaviour.
    pub options: UnionOptions,
}

/// What happens when a directory that has a lower part is renamed (kernel `redirect_dir=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectDir {
    /// Redirects are made and followed.
    On,
    /// Redirects are followed; a rename that would need one answers EXDEV.
    Follow,
    /// Redirects are neither made nor followed.
    NoFollow,
}

/// Options of a merged view; the defaults are kernel overlayfs's.
#[derive(Debug, Clone)]
pub struct UnionOptions {
    /// `redirect_dir=`; default follow.
    pub redirect_dir: RedirectDir,
    /// `metacopy=`; default off.
    pub metacopy: bool,
    /// `index=`; default off.
    pub index: bool,
    /// `userxattr`: None probes which namespace the upper (or the process) can use.
    pub xattr_namespace: Option<XattrNamespace>,
    /// Whom objects belong to.
    pub ownership: Ownership,
    /// Access control lists are shown and kept; off with `noacl`.
    pub acl: bool,
    /// Extended attributes are shown; off with `noxattrs`.
    pub xattrs: bool,
    /// `static_nlink`: directories show a link count of 1.
    pub static_nlink: bool,
    /// `volatile`: no fsync reaches the upper.
    pub volatile: bool,
    /// Largest number of descriptors the engine keeps open in caches.
    pub fd_budget: usize,
    /// Largest number of bytes merged listings may take in the cache.
    pub cache_bytes: usize,
}

impl Default for UnionOptions {
    fn default() -> Self {
        Self {
            redirect_dir: RedirectDir::Follow,
            metacopy: false,
            index: false,
            xattr_namespace: None,
            ownership: Ownership::default(),
            acl: true,
            xattrs: true,
            static_nlink: false,
            volatile: false,
            fd_budget: 1024,
            cache_bytes: 64 << 20,
        }
    }
}

/// Why a merged view could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is neither an upper nor a lower.
    #[error("no layers given")]
    NoLayers,
    /// A system call on a layer failed.
    #[error("{layer}: {source}")]
    Layer {
        /// Path of the layer.
        layer: String,
        /// What failed.
        source: SysError,
    },
}
