//! Open files for I/O: an LRU with a budget, as nobody tells us when a file is opened or closed.
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use plyfs_layer::{LayerIdx, Served};

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

/// One part of the cache. Counters are beside what they count, under its lock.
#[derive(Debug)]
struct Shard {
    files: LruCache<NodeId, Arc<OpenFile>>,
    hits: u64,
    misses: u64,
}

impl OpenFiles {
    pub(crate) fn new(budget: usize) -> Self {
        let cap = NonZeroUsize::new(budget / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    files: LruCache::new(cap),
                    hits: 0,
                    misses: 0,
                })
            }),
        }
    }

    /// How the cache has served so far.
    pub(crate) fn served(&self) -> Served {
        self.shards.iter().fold(Served::default(), |sum, shard| {
            let shard = shard.lock();
            Served {
                hits: sum.hits + shard.hits,
                misses: sum.misses + shard.misses,
                entries: sum.entries + shard.files.len() as u64,
                capacity: sum.capacity + shard.files.cap().get() as u64,
            }
        })
    }

    fn shard(&self, id: NodeId) -> &Mutex<Shard> {
        &self.shards[(id.0 as usize) % SHARDS]
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<OpenFile>> {
        let mut shard = self.shard(id).lock();
        let found = shard.files.get(&id).cloned();
        match found {
            Some(_) => shard.hits += 1,
            None => shard.misses += 1,
        }
        found
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
        let file = Arc::new(OpenFile {
            fd: Arc::new(fd),
            layer,
            writable,
            plain: AtomicBool::new(false),
        });
        // Closing can take long (last reference to a deleted file): not under the lock.
        let evicted = self.shard(id).lock().files.push(id, Arc::clone(&file));
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
        let removed = self.shard(id).lock().files.pop(&id);
        drop(removed);
    }
}
