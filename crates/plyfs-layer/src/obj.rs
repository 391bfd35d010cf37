//! One object of one layer, and the names by which it is reached.
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use plyfs_sys::NameBuf;
use plyfs_sys::stat::LayerIno;
use smallvec::SmallVec;

/// Position of a layer in the stack; the upper is 0, lowers follow from 1, topmost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerIdx(pub u16);

impl LayerIdx {
    /// The upper layer.
    pub const UPPER: Self = Self(0);
}

/// How an object is reached.
#[derive(Debug, Default)]
pub struct Place {
    /// Known names: the directory that holds the name, and the name. Lower objects have one that
    /// never changes; an upper object has those its hard links were seen under.
    pub names: SmallVec<[(Arc<Obj>, NameBuf); 1]>,
    /// A descriptor that keeps the object reachable when no name is known.
    pub pinned: Option<Arc<OwnedFd>>,
}

/// One thing in one layer.
///
/// Whoever makes a call through a name of the object holds its place for reading; whoever changes
/// what the name means on disk holds it for writing. So a call never meets another object.
#[derive(Debug)]
pub struct Obj {
    layer: LayerIdx,
    id: LayerIno,
    serial: u64,
    xwhiteouts: AtomicBool,
    place: RwLock<Place>,
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

impl Obj {
    /// The object `id` found as `name` in `dir`.
    #[must_use]
    pub fn found(layer: LayerIdx, id: LayerIno, dir: &Arc<Self>, name: NameBuf) -> Arc<Self> {
        let mut place = Place::default();
        place.names.push((Arc::clone(dir), name));
        Self::with_place(layer, id, place)
    }

    /// An object reached through a descriptor: a layer's root, or a file without names.
    #[must_use]
    pub fn pinned(layer: LayerIdx, id: LayerIno, fd: Arc<OwnedFd>) -> Arc<Self> {
        Self::with_place(
            layer,
            id,
            Place {
                names: SmallVec::new(),
                pinned: Some(fd),
            },
        )
    }

    fn with_place(layer: LayerIdx, id: LayerIno, place: Place) -> Arc<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            layer,
            id,
            serial,
            xwhiteouts: AtomicBool::new(false),
            place: RwLock::new(place),
        })
    }

    /// The layer the object is in.
    #[must_use]
    pub fn layer(&self) -> LayerIdx {
        self.layer
    }

    /// Identity of the object in its file system.
    #[must_use]
    pub fn id(&self) -> LayerIno {
        self.id
    }

    /// Number of this `Obj` in the process; the key of descriptor caches and the lock order.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Notes what the marks of a lower directory say: whiteouts in xattr form may be in it. Whoever
    /// makes the object known does so before.
    pub fn set_xwhiteouts(&self) {
        self.xwhiteouts.store(true, Ordering::Release);
    }

    /// Whether whiteouts in xattr form may be in this directory.
    #[must_use]
    pub fn has_xwhiteouts(&self) -> bool {
        self.xwhiteouts.load(Ordering::Acquire)
    }

    /// The place, held so that the names keep their meaning on disk.
    pub fn place(&self) -> RwLockReadGuard<'_, Place> {
        self.place.read()
    }

    /// The place, unless it is just being changed: for those who must not wait for a disk.
    pub fn try_place(&self) -> Option<RwLockReadGuard<'_, Place>> {
        self.place.try_read()
    }

    /// The place, held by one who changes what its names mean on disk.
    pub fn place_mut(&self) -> RwLockWriteGuard<'_, Place> {
        self.place.write()
    }
}

impl Drop for Obj {
    /// The last one to know a deep tree takes it down level by level, not by recursion.
    fn drop(&mut self) {
        let mut dirs: Vec<Arc<Self>> = self.place.get_mut().take_dirs();
        while let Some(dir) = dirs.pop() {
            if let Some(mut last) = Arc::into_inner(dir) {
                dirs.append(&mut last.place.get_mut().take_dirs());
            }
        }
    }
}

impl Place {
    fn take_dirs(&mut self) -> Vec<Arc<Obj>> {
        self.names.drain(..).map(|(dir, _)| dir).collect()
    }

    /// Records that the object has the name `name` in `dir`; a pin is no longer needed.
    pub fn add_name(&mut self, dir: &Arc<Obj>, name: NameBuf) {
        if !self
            .names
            .iter()
            .any(|(d, n)| d.id() == dir.id() && *n == name)
        {
            self.names.push((Arc::clone(dir), name));
        }
    }

    /// Records that `name` in `dir` no longer means the object.
    pub fn remove_name(&mut self, dir: &Obj, name: &plyfs_sys::Name) {
        self.names
            .retain(|(d, n)| d.id() != dir.id() || **n != *name);
    }
}

#[cfg(test)]
mod tests;
