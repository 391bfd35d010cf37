//! Which inodes are known: by the number FUSE uses, and by what they are.
//!
//! An inode is in the table as long as anybody counts on it: the kernel (one count a lookup), its
//! children, an operation in progress. The last count takes it out; a count never revives from 0.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::inode::{Inode, Key, NodeId, Parts};

const SHARDS: usize = 16;

/// All known inodes.
#[derive(Debug)]
pub struct Table {
    by_key: [Mutex<HashMap<Key, Arc<Inode>>>; SHARDS],
    by_id: [Mutex<HashMap<NodeId, Arc<Inode>>>; SHARDS],
    next: AtomicU64,
    hasher: RandomState,
}

/// A counted reference: dropping it gives the count back.
#[derive(Debug)]
pub struct InodeRef {
    table: Arc<Table>,
    inode: Arc<Inode>,
    counted: bool,
}

impl Deref for InodeRef {
    type Target = Arc<Inode>;
    fn deref(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl InodeRef {
    /// Takes over one count that has just been made.
    fn counted(table: &Arc<Table>, inode: Arc<Inode>) -> Self {
        Self {
            table: Arc::clone(table),
            inode,
            counted: true,
        }
    }

    /// Hands the count to the kernel: it comes back by [`Table::forget`].
    pub fn leak(mut self) {
        self.counted = false;
    }
}

impl InodeRef {
    /// Gives the count back; if that was the last of the inode, what its own link counted on.
    fn release(mut self) -> Option<Self> {
        self.table.put(&self.inode, 1);
        self.counted = false;
        let inode = Arc::clone(&self.inode);
        drop(self);
        let link = Arc::into_inner(inode)?.link.get_mut().take()?;
        Some(link.parent)
    }
}

impl Drop for Inode {
    /// The last one to know a deep tree lets go of it level by level, not by recursion.
    fn drop(&mut self) {
        let mut next = self.link.get_mut().take().map(|l| l.parent);
        while let Some(parent) = next {
            next = parent.release();
        }
    }
}

impl Drop for InodeRef {
    fn drop(&mut self) {
        if self.counted {
            self.table.put(&self.inode, 1);
        }
    }
}

/// One more count, unless the last has just gone.
fn revive(inode: &Inode) -> bool {
    inode
        .refs
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n > 0).then_some(n + 1)
        })
        .is_ok()
}

impl Table {
    /// An empty table; the first inode made becomes the root.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            by_key: std::array::from_fn(|_| Mutex::default()),
            by_id: std::array::from_fn(|_| Mutex::default()),
            next: AtomicU64::new(NodeId::ROOT.0),
            hasher: RandomState::new(),
        })
    }

    fn key_shard(&self, key: &Key) -> &Mutex<HashMap<Key, Arc<Inode>>> {
        &self.by_key[(self.hasher.hash_one(key) as usize) % SHARDS]
    }

    fn id_shard(&self, id: NodeId) -> &Mutex<HashMap<NodeId, Arc<Inode>>> {
        &self.by_id[(id.0 as usize) % SHARDS]
    }

    /// The inode with number `id`.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<Arc<Inode>> {
        self.id_shard(id).lock().get(&id).cloned()
    }

    /// A counted reference to the inode with number `id`.
    #[must_use]
    pub fn get_ref(self: &Arc<Self>, id: NodeId) -> Option<InodeRef> {
        let inode = self.get(id)?;
        revive(&inode).then(|| InodeRef::counted(self, inode))
    }

    /// One more reference to a known inode.
    #[must_use]
    pub fn again(self: &Arc<Self>, inode: &Arc<Inode>) -> Option<InodeRef> {
        revive(inode).then(|| InodeRef::counted(self, Arc::clone(inode)))
    }

    /// The inode with this key, if it is known.
    #[must_use]
    pub fn find(self: &Arc<Self>, key: &Key) -> Option<InodeRef> {
        let shard = self.key_shard(key).lock();
        let inode = shard.get(key)?;
        self.again(inode)
    }

    /// The inode with this key; made of `parts` if it is not known.
    pub(crate) fn intern(self: &Arc<Self>, key: Key, parts: impl FnOnce() -> Parts) -> InodeRef {
        let mut shard = self.key_shard(&key).lock();
        if let Some(found) = shard.get(&key).and_then(|inode| self.again(inode)) {
            return found;
        }
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let inode = Arc::new(Inode::new(id, key.clone(), parts()));
        self.id_shard(id).lock().insert(id, Arc::clone(&inode));
        shard.insert(key, Arc::clone(&inode));
        InodeRef::counted(self, inode)
    }

    /// Gives an inode another key (it was copied up), or none (no lookup may find it any more).
    pub(crate) fn rekey(&self, inode: &Arc<Inode>, key: Option<Key>) {
        let mut own = inode.key.lock();
        if let Some(old) = own.take() {
            remove_if_same(&mut self.key_shard(&old).lock(), &old, inode);
        }
        if let Some(new) = key {
            // What was there is on its way out; it is dropped after the shard is let go.
            let replaced = self
                .key_shard(&new)
                .lock()
                .insert(new.clone(), Arc::clone(inode));
            *own = Some(new);
            drop(own);
            drop(replaced);
        }
    }

    /// The kernel gives back `count` lookups of `id`; true when the inode is no longer known.
    pub fn forget(&self, id: NodeId, count: u64) -> bool {
        match self.get(id) {
            Some(inode) => self.put(&inode, count),
            None => false,
        }
    }

    /// Gives back `count` references; the last one takes the inode out. The count never goes
    /// below 0, whatever the kernel says.
    fn put(&self, inode: &Arc<Inode>, count: u64) -> bool {
        let before = inode
            .refs
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                Some(n.saturating_sub(count))
            });
        if !matches!(before, Ok(n) if n > 0 && n <= count) {
            return false;
        }
        self.rekey(inode, None);
        self.id_shard(inode.id).lock().remove(&inode.id);
        true
    }

    /// Lets go of all inodes. They hold the table by the links to their parents, so that without
    /// this neither would ever be freed.
    pub(crate) fn clear(&self) {
        let known: Vec<Arc<Inode>> = self
            .by_id
            .iter()
            .flat_map(|shard| std::mem::take(&mut *shard.lock()))
            .map(|(_, i)| i)
            .collect();
        for shard in &self.by_key {
            drop(std::mem::take(&mut *shard.lock()));
        }
        for inode in known {
            let link = inode.link.lock().take();
            if let Some(link) = link {
                link.parent.leak();
            }
        }
    }

    /// How many inodes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.iter().map(|s| s.lock().len()).sum()
    }

    /// References to all inodes together.
    #[must_use]
    pub fn references(&self) -> u64 {
        let of = |inode: &Arc<Inode>| inode.refs.load(Ordering::Relaxed);
        let shards = self.by_id.iter();
        shards.map(|s| s.lock().values().map(of).sum::<u64>()).sum()
    }

    /// Whether no inode is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn remove_if_same(map: &mut HashMap<Key, Arc<Inode>>, key: &Key, inode: &Arc<Inode>) {
    if map.get(key).is_some_and(|known| Arc::ptr_eq(known, inode)) {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests;
