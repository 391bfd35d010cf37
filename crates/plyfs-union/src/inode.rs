//! One file or directory of the merged view, and what it is made of.
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::NameBuf;
use plyfs_sys::stat::{Kind, LayerIno};

use crate::durable::Durable;
use crate::index::IndexState;
use crate::lowers::{LowerObjs, Lowers};
use crate::protect::KnownProtection;
use crate::table::{Parent, Table};

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

/// Which of its own parts an inode takes its [`Key`] from, so that it need not keep one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KnownBy {
    /// No lookup may find it.
    Nothing,
    /// The upper object.
    Upper,
    /// The topmost lower object.
    Lower,
    /// The name of the topmost lower object.
    Name,
}

impl KnownBy {
    pub(crate) fn of(key: &Key) -> Self {
        match key {
            Key::Obj(LayerIdx::UPPER, _) => Self::Upper,
            Key::Obj(..) => Self::Lower,
            Key::Alias(..) => Self::Name,
        }
    }

    fn from_bits(bits: u8) -> Self {
        let all = [Self::Upper, Self::Lower, Self::Name];
        let found = all.into_iter().find(|by| *by as u8 == bits);
        found.unwrap_or(Self::Nothing)
    }
}

/// Where in the merged view an inode is: the parent stays known as long as the child is.
#[derive(Debug)]
pub(crate) struct Link {
    /// The directory.
    pub parent: Parent,
    /// The name in it.
    pub name: NameBuf,
}

/// One file or directory of the merged view.
#[derive(Debug)]
pub struct Inode {
    /// What FUSE calls it.
    pub id: NodeId,
    /// Its type, which never changes.
    pub kind: Kind,
    /// References: lookups the kernel holds, children, operations in progress.
    pub(crate) refs: AtomicU64,
    /// What makes the key under which the table has it; changed by the table alone.
    known_by: AtomicU8,
    /// Held by the table while the key changes.
    pub(crate) rekeying: Mutex<()>,
    /// What `stat` shows as st_ino.
    st_ino: AtomicU64,
    /// The upper object. Set once and never taken back (B1: a backing only rises).
    upper: OnceLock<Arc<Obj>>,
    /// The lower objects, topmost first: all that merge, for a directory; for a file the topmost,
    /// followed by the one with the data where the topmost is a metacopy. They never change.
    pub(crate) lowers: Lowers,
    /// The upper file has attributes only, its data is the lower's.
    pub(crate) metacopy: AtomicBool,
    /// Whether its name and marks are known to be durable.
    pub(crate) durable: Durable,
    /// Serialises copy-up of this inode; held for as long as the copy takes.
    pub(crate) copy_up: Mutex<()>,
    /// Where it is. None for the root and for what has been removed.
    pub(crate) link: Mutex<Option<Link>>,
    /// Whether it is immutable or append-only.
    pub(crate) protection: KnownProtection,
    /// What few inodes have.
    more: Option<Box<More>>,
}

/// What only a directory has, and what only a file has that has to do with the index.
#[derive(Debug)]
enum More {
    Dir(DirState),
    Indexed(IndexState),
}

/// The state of a directory.
#[derive(Debug)]
pub(crate) struct DirState {
    /// Where the children give back their counts.
    pub(crate) table: Weak<Table>,
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
    pub(crate) lowers: LowerObjs,
    pub(crate) metacopy: bool,
    pub(crate) impure: bool,
    pub(crate) link: Option<Link>,
    pub(crate) index: Option<IndexState>,
}

impl Inode {
    pub(crate) fn new(id: NodeId, table: &Arc<Table>, known_by: KnownBy, parts: Parts) -> Self {
        let upper = OnceLock::new();
        if let Some(obj) = parts.upper {
            upper.get_or_init(|| obj);
        }
        let dir = || {
            More::Dir(DirState {
                table: Arc::downgrade(table),
                names: RwLock::default(),
                version: AtomicU64::default(),
                removed: AtomicBool::default(),
                impure: AtomicBool::new(parts.impure),
            })
        };
        let more = match parts.kind {
            Kind::Dir => Some(dir()),
            _ => parts.index.map(More::Indexed),
        };
        Self {
            id,
            kind: parts.kind,
            refs: AtomicU64::new(1),
            known_by: AtomicU8::new(known_by as u8),
            rekeying: Mutex::new(()),
            st_ino: AtomicU64::new(parts.st_ino),
            upper,
            lowers: Lowers::new(parts.kind, parts.lowers),
            metacopy: AtomicBool::new(parts.metacopy),
            durable: Durable::default(),
            copy_up: Mutex::new(()),
            link: Mutex::new(parts.link),
            protection: KnownProtection::default(),
            more: more.map(Box::new),
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

    /// What the table knows it by; None once no lookup may find it.
    pub(crate) fn key(&self) -> Option<Key> {
        self.key_by(self.known_by())
    }

    /// [`Inode::key`] if it were known by this part of it.
    pub(crate) fn key_by(&self, by: KnownBy) -> Option<Key> {
        match by {
            KnownBy::Nothing => None,
            KnownBy::Upper => self.upper().map(|obj| Key::Obj(obj.layer(), obj.id())),
            KnownBy::Lower => self.lowers.first_id().map(|(l, id)| Key::Obj(l, id)),
            KnownBy::Name => {
                let (dir, name) = self.lowers.first_place()?;
                Some(Key::Alias(dir.layer(), dir.id(), name))
            }
        }
    }

    pub(crate) fn has_key(&self, key: &Key) -> bool {
        KnownBy::of(key) == self.known_by() && self.key().as_ref() == Some(key)
    }

    /// Whether a lookup may find it.
    pub(crate) fn is_findable(&self) -> bool {
        self.known_by() != KnownBy::Nothing
    }

    fn known_by(&self) -> KnownBy {
        KnownBy::from_bits(self.known_by.load(Ordering::Acquire))
    }

    pub(crate) fn set_known_by(&self, by: KnownBy) {
        self.known_by.store(by as u8, Ordering::Release);
    }

    /// What the index has to do with it; None where a copy-up does not go to the index.
    pub(crate) fn indexed(&self) -> Option<&IndexState> {
        match self.more.as_deref() {
            Some(More::Indexed(index)) => Some(index),
            _ => None,
        }
    }

    /// The name in the index, once there is a copy.
    pub(crate) fn index_name(&self) -> Option<&NameBuf> {
        self.indexed()?.name.get()
    }

    /// The state only a directory has.
    pub(crate) fn dir(&self) -> Option<&DirState> {
        match self.more.as_deref() {
            Some(More::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    /// The object whose attributes the view shows: the upper, else the topmost lower.
    #[must_use]
    pub fn top(&self) -> Option<Arc<Obj>> {
        self.upper().cloned().or_else(|| self.lowers.first())
    }

    /// Whether the upper file still takes its data from the lower.
    #[must_use]
    pub fn is_metacopy(&self) -> bool {
        self.metacopy.load(Ordering::Acquire)
    }

    /// The object that holds the data of a regular file: the upper unless that is a metacopy,
    /// else the deepest lower found, as metacopies stand above their data.
    #[must_use]
    pub fn data(&self) -> Option<Arc<Obj>> {
        match self.upper() {
            Some(upper) if !self.is_metacopy() => Some(Arc::clone(upper)),
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

    /// [`Inode::dir`], or the error for what is none.
    pub(crate) fn dir_state(&self) -> crate::Result<&DirState> {
        self.dir().ok_or(crate::Error::NotDir)
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
        if let Some(dir) = self.dir() {
            dir.version.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn names_version(&self) -> u64 {
        self.dir().map_or(0, |d| d.version.load(Ordering::Acquire))
    }
}
