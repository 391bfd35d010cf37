//! Open files for I/O: an LRU with a budget, as nobody tells us when a file is opened or closed.
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use plyfs_layer::{CountedLru, LayerIdx, Served};

use crate::inode::NodeId;

const SHARDS: usize = 8;

/// A regular file of a layer, open for I/O.
#[derive(Debug)]
pub(crate) struct OpenFile {
    fd: Arc<OwnedFd>,
    layer: LayerIdx,
    writable: bool,
    /// The file was seen without suid, sgid and capabilities, and none have been set since.
    plain: AtomicBool,
}

impl OpenFile {
    /// A file to be read that the cache does not hold.
    pub(crate) fn alone(fd: OwnedFd, layer: LayerIdx) -> Arc<Self> {
        Self::new(fd, layer, false)
    }

    fn new(fd: OwnedFd, layer: LayerIdx, writable: bool) -> Arc<Self> {
        Arc::new(Self {
            fd: Arc::new(fd),
            layer,
            writable,
            plain: AtomicBool::new(false),
        })
    }

    /// The descriptor, for one who outlives the cache.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the file is known to have nothing that a write would take off.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Acquire)
    }

    /// Records what [`OpenFile::is_plain`] is to say.
    pub(crate) fn set_plain(&self, plain: bool) {
        self.plain.store(plain, Ordering::Release);
    }

    /// Whether the file is that of `layer` and allows what is asked.
    pub(crate) fn serves(&self, layer: LayerIdx, write: bool) -> bool {
        self.layer == layer && (self.writable || !write)
    }
}

/// The open files by inode. A user of one holds it by `Arc`, so eviction never closes it early.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    shards: [Mutex<Shard>; SHARDS],
}

type Shard = CountedLru<NodeId, Arc<OpenFile>>;

impl OpenFiles {
    pub(crate) fn new(budget: usize) -> Self {
        let cap = NonZeroUsize::new(budget / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: std::array::from_fn(|_| Mutex::new(CountedLru::new(cap))),
        }
    }

    /// How the cache has served so far.
    pub(crate) fn served(&self) -> Served {
        self.shards.iter().map(|shard| shard.lock().served()).sum()
    }

    fn shard(&self, id: NodeId) -> &Mutex<Shard> {
        &self.shards[(id.0 as usize) % SHARDS]
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<OpenFile>> {
        self.shard(id).lock().get(&id)
    }

    pub(crate) fn put(&self, id: NodeId, fd: OwnedFd, layer: LayerIdx, writable: bool) {
        drop(self.add(id, fd, layer, writable));
    }

    pub(crate) fn add(
        &self,
        id: NodeId,
        fd: OwnedFd,
        layer: LayerIdx,
        writable: bool,
    ) -> Arc<OpenFile> {
        let file = OpenFile::new(fd, layer, writable);
        // Closing can take long (last reference to a deleted file): not under the lock.
        let evicted = self.shard(id).lock().put(id, Arc::clone(&file));
        drop(evicted);
        file
    }

    /// The file of this inode may have something from now on that a write takes off.
    pub(crate) fn is_privileged(&self, id: NodeId) {
        if let Some(file) = self.get(id) {
            file.set_plain(false);
        }
    }

    pub(crate) fn remove(&self, id: NodeId) {
        let removed = self.shard(id).lock().pop(&id);
        drop(removed);
    }
}
