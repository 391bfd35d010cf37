//! What a live view knows about itself: inodes, caches, copy-ups in progress.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plyfs_layer::{Caps, Obj, Served};
use plyfs_sys::NameBuf;

use crate::Union;
use crate::inode::{Inode, NodeId};

/// Deepest path that is told; of deeper ones the last names.
const MAX_DEPTH: usize = 4096;

/// How one cache has served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStats {
    /// What it holds.
    pub name: &'static str,
    /// What was asked for and there.
    pub hits: u64,
    /// What was asked for and not there.
    pub misses: u64,
    /// What is there.
    pub entries: u64,
    /// Bytes it holds, where its budget is in bytes.
    pub bytes: Option<u64>,
    /// Its budget: bytes where `bytes` is told, else entries.
    pub capacity: u64,
}

/// A copy-up of data in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStats {
    /// Path in the view; None for a file without a name.
    pub path: Option<Vec<u8>>,
    /// Bytes that are copied.
    pub done: u64,
    /// Bytes there are to copy.
    pub total: u64,
    /// For how long it has been going on.
    pub since: Duration,
}

/// Figures of a view at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnionStats {
    /// Inodes that are known.
    pub inodes: u64,
    /// Names the kernel or an operation holds them by: lookups that were not forgotten yet.
    pub references: u64,
    /// The caches.
    pub caches: Vec<CacheStats>,
    /// Files whose data has been copied up.
    pub copied_files: u64,
    /// Bytes of data that have been copied up.
    pub copied_bytes: u64,
    /// Copies in progress, the oldest first.
    pub copying: Vec<CopyStats>,
}

/// Copies of data, those in progress and those done.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    running: Mutex<Vec<Arc<Copy>>>,
    files: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Copy {
    inode: Arc<Inode>,
    total: u64,
    done: AtomicU64,
    since: Instant,
}

/// A copy in progress; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    copies: &'a Copies,
    copy: Arc<Copy>,
}

impl Copies {
    pub(crate) fn begin(&self, inode: &Arc<Inode>, total: u64) -> Running<'_> {
        let copy = Arc::new(Copy {
            inode: Arc::clone(inode),
            total,
            done: AtomicU64::new(0),
            since: Instant::now(),
        });
        self.running.lock().push(Arc::clone(&copy));
        Running { copies: self, copy }
    }
}

impl Running<'_> {
    /// Everything before `upto` is copied.
    pub(crate) fn tell(&self, upto: u64) {
        self.copy.done.store(upto, Ordering::Relaxed);
    }

    /// The copy is complete.
    pub(crate) fn finish(self) {
        self.copies.files.fetch_add(1, Ordering::Relaxed);
        self.copies
            .bytes
            .fetch_add(self.copy.total, Ordering::Relaxed);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.copies.running.lock();
        running.retain(|copy| !Arc::ptr_eq(copy, &self.copy));
    }
}

impl Union {
    /// Figures of the view now. Takes only locks that are held for moments, so it answers while
    /// a disk is stuck.
    #[must_use]
    pub fn stats(&self) -> UnionStats {
        let copying: Vec<Arc<Copy>> = self.copies.running.lock().clone();
        UnionStats {
            inodes: self.table.len() as u64,
            references: self.table.references(),
            caches: vec![
                self.lower_cache.stats("lower listings"),
                self.upper_cache.stats("upper listings"),
                of_descriptors("open files", self.files.served()),
                of_descriptors("directories", self.reach.served()),
            ],
            copied_files: self.copies.files.load(Ordering::Relaxed),
            copied_bytes: self.copies.bytes.load(Ordering::Relaxed),
            copying: copying.iter().map(|copy| self.copy_stats(copy)).collect(),
        }
    }

    fn copy_stats(&self, copy: &Copy) -> CopyStats {
        CopyStats {
            path: path_of(&copy.inode),
            done: copy.done.load(Ordering::Relaxed),
            total: copy.total,
            since: copy.since.elapsed(),
        }
    }

    /// Where in the view an inode is, for messages; None where it is not known or has no name.
    #[must_use]
    pub fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        if node == NodeId::ROOT {
            return Some(b"/".to_vec());
        }
        path_of(&self.table.get(node)?)
    }

    /// What the file system of the upper can do; None without an upper.
    #[must_use]
    pub fn upper_caps(&self) -> Option<Caps> {
        self.stack.upper.as_ref().map(|u| u.upper.caps)
    }

    /// Where the overlay keeps its marks in this view.
    #[must_use]
    pub fn xattr_namespace(&self) -> plyfs_format::names::XattrNamespace {
        self.stack.ns
    }

    /// Whether an index is kept, which needs file handles of both file systems.
    #[must_use]
    pub fn has_index(&self) -> bool {
        self.stack.index.is_some()
    }
}

fn of_descriptors(name: &'static str, served: Served) -> CacheStats {
    CacheStats {
        name,
        hits: served.hits,
        misses: served.misses,
        entries: served.entries,
        bytes: None,
        capacity: served.capacity,
    }
}

fn path_of(inode: &Arc<Inode>) -> Option<Vec<u8>> {
    match inode.upper() {
        Some(obj) => path_in_upper(obj),
        None => path_by_links(inode),
    }
}

/// What is in the upper has the same path there and in the view.
fn path_in_upper(obj: &Arc<Obj>) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    let mut at = Arc::clone(obj);
    loop {
        let step = {
            let place = at.try_place()?;
            match place.names.first() {
                Some((dir, name)) => Some((Arc::clone(dir), name.clone())),
                // The root of a layer is reached by its descriptor; so is what has lost its names.
                None if names.is_empty() && Arc::ptr_eq(&at, obj) => return None,
                None => None,
            }
        };
        let Some((dir, name)) = step.filter(|_| names.len() < MAX_DEPTH) else {
            return Some(joined(&names));
        };
        names.push(name);
        at = dir;
    }
}

/// What has no upper is known by the links that copy-up needs.
fn path_by_links(inode: &Arc<Inode>) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    let mut at = Arc::clone(inode);
    while at.id != NodeId::ROOT && names.len() < MAX_DEPTH {
        let (parent, name) = {
            let link = at.link.lock();
            let link = link.as_ref()?;
            (Arc::clone(&link.parent), link.name.clone())
        };
        names.push(name);
        at = parent;
    }
    Some(joined(&names))
}

/// A path from its names, the last one first.
fn joined(names: &[NameBuf]) -> Vec<u8> {
    let parts = names.iter().rev();
    let path: Vec<u8> = parts
        .flat_map(|name| [b"/", name.as_bytes()].concat())
        .collect();
    if path.is_empty() { b"/".to_vec() } else { path }
}
