//! One file or directory of the merged view, and what it is made of.
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::NameBuf;
use plyfs_sys::stat::{Kind, LayerIno};
use smallvec::SmallVec;

use crate::index::IndexState;
use crate::protect::KnownProtection;
use crate::table::InodeRef;

/// What FUSE calls an inode; given out once and never again in the life of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root directory (FUSE_ROOT_ID).
    pub const ROOT: Self = Self(1);
}

/// What an inode is known by while it is in the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The object of a layer; all names of that object are one inode.
    Obj(LayerIdx, LayerIno),
    /// One name of a lower file that has several: without an index each becomes a file of its own
    /// at copy-up (`ovl_hash_bylower()`), so each is an inode of its own before it.
    Alias(LayerIdx, LayerIno, NameBuf),
}

/// Where in the merged view an inode is: the parent stays known as long as the child is.
#[derive(Debug)]
pub(crate) struct Link {
    /// The directory.
    pub parent: InodeRef,
    /// The name in it.
    pub name: NameBuf,
}

/// A list of lower objects, topmost first.
pub(crate) type Lowers = SmallVec<[Arc<Obj>; 1]>;

/// One file or directory of the merged view.
#[derive(Debug)]
pub struct Inode {
    /// What FUSE calls it.
    pub id: NodeId,
    /// Its type, which never changes.
    pub kind: Kind,
    /// References: lookups the kernel holds, children, operations in progress.
    pub(crate) refs: AtomicU64,
    /// The key under which the table has it; None once no lookup may find it.
    pub(crate) key: Mutex<Option<Key>>,
    /// What `stat` shows as st_ino.
    st_ino: AtomicU64,
    /// The upper object. Set once and never taken back (B1: a backing only rises).
    upper: OnceLock<Arc<Obj>>,
    /// The lower objects, topmost first: all that merge, for a directory; for a file the topmost,
    /// followed by the one with the data where the topmost is a metacopy.
    pub(crate) lowers: Lowers,
    /// The upper file has attributes only, its data is the lower's.
    pub(crate) metacopy: AtomicBool,
    /// Serialises copy-up of this inode; held for as long as the copy takes.
    pub(crate) copy_up: Mutex<()>,
    /// Where it is. None for the root and for what has been removed.
    pub(crate) link: Mutex<Option<Link>>,
    /// What it has to do with the index.
    pub(crate) index: IndexState,
    /// Whether it is immutable or append-only.
    pub(crate) protection: KnownProtection,
    /// What only a directory has.
    pub(crate) dir: Option<Box<DirState>>,
}

/// The state of a directory.
#[derive(Debug, Default)]
pub(crate) struct DirState {
    /// Held for reading by lookups and listings in the directory, for writing by whoever changes
    /// a name in it. Several are taken by [`crate::lock::lock_dirs`] alone, in ascending `NodeId`.
    pub(crate) names: RwLock<()>,
    /// Counts changes of names; a cached listing of another count is old.
    pub(crate) version: AtomicU64,
    /// The directory has been removed; nothing can be made in it.
    pub(crate) removed: AtomicBool,
    /// The upper directory may hold objects with an origin (kernel mark `impure`).
    pub(crate) impure: AtomicBool,
}

/// What a new inode is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    pub(crate) st_ino: u64,
    pub(crate) upper: Option<Arc<Obj>>,
    pub(crate) lowers: Lowers,
    pub(crate) metacopy: bool,
    pub(crate) impure: bool,
    pub(crate) link: Option<Link>,
    pub(crate) index: IndexState,
}

impl Inode {
    pub(crate) fn new(id: NodeId, key: Key, parts: Parts) -> Self {
        let upper = OnceLock::new();
        if let Some(obj) = parts.upper {
            upper.get_or_init(|| obj);
        }
        let dir = (parts.kind == Kind::Dir).then(|| {
            let state = DirState::default();
            state.impure.store(parts.impure, Ordering::Relaxed);
            Box::new(state)
        });
        Self {
            id,
            kind: parts.kind,
            refs: AtomicU64::new(1),
            key: Mutex::new(Some(key)),
            st_ino: AtomicU64::new(parts.st_ino),
            upper,
            lowers: parts.lowers,
            metacopy: AtomicBool::new(parts.metacopy),
            copy_up: Mutex::new(()),
            link: Mutex::new(parts.link),
            index: parts.index,
            protection: KnownProtection::default(),
            dir,
        }
    }

    /// The upper object, if there is one.
    #[must_use]
    pub fn upper(&self) -> Option<&Arc<Obj>> {
        self.upper.get()
    }

    /// Records that the object has been copied up. Done after it is published on disk (B2).
    pub(crate) fn rise(&self, obj: Arc<Obj>) {
        self.upper.get_or_init(|| obj);
    }

    /// The object whose attributes the view shows: the upper, else the topmost lower.
    #[must_use]
    pub fn top(&self) -> Option<&Arc<Obj>> {
        self.upper().or_else(|| self.lowers.first())
    }

    /// Whether the upper file still takes its data from the lower.
    #[must_use]
    pub fn is_metacopy(&self) -> bool {
        self.metacopy.load(Ordering::Acquire)
    }

    /// The object that holds the data of a regular file: the upper unless that is a metacopy,
    /// else the deepest lower found, as metacopies stand above their data.
    #[must_use]
    pub fn data(&self) -> Option<&Arc<Obj>> {
        match self.upper() {
            Some(upper) if !self.is_metacopy() => Some(upper),
            _ => self.lowers.last(),
        }
    }

    /// What `stat` shows as st_ino.
    #[must_use]
    pub fn st_ino(&self) -> u64 {
        self.st_ino.load(Ordering::Relaxed)
    }

    pub(crate) fn set_st_ino(&self, ino: u64) {
        self.st_ino.store(ino, Ordering::Relaxed);
    }

    /// Whether it is a directory with a lower part: merged, or only in lowers.
    #[must_use]
    pub fn has_lower(&self) -> bool {
        !self.lowers.is_empty()
    }

    /// The state only a directory has.
    pub(crate) fn dir_state(&self) -> crate::Result<&DirState> {
        self.dir.as_deref().ok_or(crate::Error::NotDir)
    }

    /// The state of a directory that has not been removed.
    pub(crate) fn live_dir(&self) -> crate::Result<&DirState> {
        let dir = self.dir_state()?;
        if dir.removed.load(Ordering::Acquire) {
            return Err(crate::Error::NotFound);
        }
        Ok(dir)
    }

    /// Notes that a name in the directory has changed.
    pub(crate) fn touch_names(&self) {
        if let Some(dir) = &self.dir {
            dir.version.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn names_version(&self) -> u64 {
        self.dir
            .as_ref()
            .map_or(0, |d| d.version.load(Ordering::Acquire))
    }
}
