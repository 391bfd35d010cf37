//! Which inodes are known: by the number FUSE uses, and by what they are.
//!
//! An inode is in the table as long as anybody counts on it: the kernel (one count a lookup), its
//! children, an operation in progress. The last count takes it out; a count never revives from 0.
//!
//! Both maps hold nothing but the inode, which says itself by what it is known. That changes only
//! while the inode is in no map of keys, so a map finds an inode where it once put it.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use plyfs_layer::LayerIdx;
use plyfs_sys::Name;

use crate::inode::{Inode, Key, KnownBy, NodeId, Parts};
use crate::journal::{Journal, NewSlot, Record};

const SHARDS: usize = 16;

type Shard = Mutex<HashTable<Arc<Inode>>>;

/// All known inodes.
#[derive(Debug)]
pub struct Table {
    by_key: [Shard; SHARDS],
    by_id: [Shard; SHARDS],
    next: AtomicU64,
    second: RwLock<Second>,
    hasher: RandomState,
    /// Where inodes are noted for the daemon after this one; it gives out the numbers then.
    journal: Option<Arc<Journal>>,
}

/// The inodes that have a second number (see [`crate::opens`]), which are few.
#[derive(Debug, Default)]
struct Second {
    /// The second number, by the first.
    numbers: HashMap<NodeId, NodeId>,
    /// The inode, by its second number, and where that is noted.
    inodes: HashMap<NodeId, (Arc<Inode>, Option<Record>)>,
}
/// Numbers of inodes that the journal has no room for begin here.
const BEYOND: u64 = 1 << 62;

/// A counted reference: dropping it gives the count back.
#[derive(Debug)]
pub struct InodeRef {
    table: Arc<Table>,
    inode: Arc<Inode>,
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
        }
    }

    /// The journal of the mount, if it has one.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.table.journal()
    }

    /// Hands the count to the kernel: it comes back by [`Table::forget`].
    pub fn leak(self) {
        self.inode.refs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InodeRef {
    fn drop(&mut self) {
        self.table.put(&self.inode, 1);
    }
}

/// The directory an inode is in, counted as long as the inode says so. It knows the table by the
/// directory, since most inodes have a parent and few are one.
#[derive(Debug)]
pub(crate) struct Parent(Arc<Inode>);

impl Parent {
    /// None when the last count of `dir` has just gone.
    pub(crate) fn of(dir: &Arc<Inode>) -> Option<Self> {
        (dir.dir().is_some() && revive(dir)).then(|| Self(Arc::clone(dir)))
    }

    /// Gives the count back; if that was the last of the inode, what its own link counted on.
    fn release(self) -> Option<Self> {
        let inode = Arc::clone(&self.0);
        drop(self);
        let link = Arc::into_inner(inode)?.link.get_mut().take()?;
        Some(link.parent)
    }
}

impl Deref for Parent {
    type Target = Arc<Inode>;
    fn deref(&self) -> &Arc<Inode> {
        &self.0
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let table = self.0.dir().and_then(|dir| dir.table.upgrade());
        if let Some(table) = table {
            table.put(&self.0, 1);
        }
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

/// One more count, unless the last has just gone.
fn revive(inode: &Inode) -> bool {
    inode
        .refs
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n > 0).then_some(n + 1)
        })
        .is_ok()
}

/// The numbers follow each other, and a hash has to differ in all its bits.
fn id_hash(id: NodeId) -> u64 {
    id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn take_out(shard: &Shard, hash: u64, inode: &Arc<Inode>) {
    let mut shard = shard.lock();
    if let Ok(found) = shard.find_entry(hash, |known| Arc::ptr_eq(known, inode)) {
        found.remove();
    }
}

impl Table {
    /// An empty table; the first inode made becomes the root.
    #[must_use]
    pub fn new(journal: Option<Arc<Journal>>) -> Arc<Self> {
        let next = if journal.is_some() {
            BEYOND
        } else {
            NodeId::ROOT.0
        };
        Arc::new(Self {
            by_key: std::array::from_fn(|_| Mutex::default()),
            by_id: std::array::from_fn(|_| Mutex::default()),
            next: AtomicU64::new(next),
            second: RwLock::default(),
            hasher: RandomState::new(),
            journal,
        })
    }

    /// The journal of the mount, if it has one.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref()
    }

    fn key_hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// What a map of keys hashes by. It holds no inode without a key.
    fn own_hash(&self, inode: &Arc<Inode>) -> u64 {
        inode.key().map_or(0, |key| self.key_hash(&key))
    }

    /// A map uses the lowest bits and the highest; the shard is chosen by others.
    fn key_shard(&self, hash: u64) -> &Shard {
        &self.by_key[((hash >> 40) as usize) % SHARDS]
    }

    fn id_shard(&self, id: NodeId) -> &Shard {
        &self.by_id[(id.0 as usize) % SHARDS]
    }

    /// The inode with number `id`.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<Arc<Inode>> {
        let shard = self.id_shard(id).lock();
        if let Some(found) = shard.find(id_hash(id), |inode| inode.id == id) {
            return Some(Arc::clone(found));
        }
        drop(shard);
        let second = self.second.read();
        second.inodes.get(&id).map(|(inode, _)| Arc::clone(inode))
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
        let hash = self.key_hash(key);
        let shard = self.key_shard(hash).lock();
        self.find_in(&shard, hash, key)
    }

    fn find_in(
        self: &Arc<Self>,
        shard: &HashTable<Arc<Inode>>,
        hash: u64,
        key: &Key,
    ) -> Option<InodeRef> {
        let inode = shard.find(hash, |inode| inode.has_key(key))?;
        self.again(inode)
    }

    /// The inode with this key; made of `parts` if it is not known. `at` is where it was found,
    /// and None for the root.
    pub(crate) fn intern(
        self: &Arc<Self>,
        key: &Key,
        at: Option<(&Arc<Inode>, &Name)>,
        parts: impl FnOnce() -> Parts,
    ) -> InodeRef {
        let hash = self.key_hash(key);
        let mut shard = self.key_shard(hash).lock();
        if let Some(found) = self.find_in(&shard, hash, key) {
            return found;
        }
        let parts = parts();
        let id = self.number(&parts, at);
        let inode = Arc::new(Inode::new(id, self, KnownBy::of(key), parts));
        debug_assert!(inode.has_key(key), "{inode:?} is not {key:?}");
        self.put_by_id(&inode);
        let replaced = self.put_in(&mut shard, hash, &inode);
        drop(shard);
        drop(replaced);
        InodeRef::counted(self, inode)
    }

    fn put_by_id(&self, inode: &Arc<Inode>) {
        let id = inode.id;
        self.id_shard(id)
            .lock()
            .insert_unique(id_hash(id), Arc::clone(inode), |i| id_hash(i.id));
    }

    /// Makes an inode known again that a dead daemon knew by the number `id`. The count is the
    /// caller's; those of the kernel and of children are added by [`Table::owe`].
    pub(crate) fn restore(
        self: &Arc<Self>,
        id: NodeId,
        key: Option<&Key>,
        parts: Parts,
    ) -> InodeRef {
        let inode = Arc::new(Inode::new(id, self, KnownBy::Nothing, parts));
        self.put_by_id(&inode);
        if let Some(key) = key {
            self.rekey(&inode, KnownBy::of(key));
        }
        InodeRef::counted(self, inode)
    }

    /// Counts `n` references that somebody else will give back.
    pub(crate) fn owe(inode: &Inode, n: u64) {
        inode.refs.fetch_add(n, Ordering::AcqRel);
    }

    /// A number for a new inode: its place in the journal, which counts on the directory from then
    /// on, as it is found again by it.
    fn number(&self, parts: &Parts, at: Option<(&Arc<Inode>, &Name)>) -> NodeId {
        let beyond = || NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let Some(journal) = &self.journal else {
            return beyond();
        };
        let upper = parts.upper.as_ref();
        let Some(top) = upper.or(parts.lowers.first()) else {
            return beyond();
        };
        // The caller has a count on the directory, so this is never the first.
        let dir = at.filter(|(dir, _)| revive(dir));
        let noted = journal.add(&NewSlot {
            kind: parts.kind,
            layer: upper.map_or(top.layer(), |_| LayerIdx::UPPER),
            id: top.id(),
            st_ino: parts.st_ino,
            at: dir.map(|(dir, name)| (dir.id, name)),
        });
        noted.unwrap_or_else(|| {
            journal.break_off("too many inodes");
            if let Some((dir, _)) = dir {
                self.put(dir, 1);
            }
            beyond()
        })
    }

    /// Puts an inode in the place of what has its key and is on its way out.
    fn put_in(
        &self,
        shard: &mut HashTable<Arc<Inode>>,
        hash: u64,
        inode: &Arc<Inode>,
    ) -> Option<Arc<Inode>> {
        let key = inode.key()?;
        if let Some(there) = shard.find_mut(hash, |known| known.has_key(&key)) {
            return Some(std::mem::replace(there, Arc::clone(inode)));
        }
        shard.insert_unique(hash, Arc::clone(inode), |known| self.own_hash(known));
        None
    }

    /// Makes an inode known by something else (it was copied up), or by nothing: no lookup may find
    /// it any more.
    pub(crate) fn rekey(&self, inode: &Arc<Inode>, by: KnownBy) {
        let one_at_a_time = inode.rekeying.lock();
        if let Some(old) = inode.key() {
            let hash = self.key_hash(&old);
            take_out(self.key_shard(hash), hash, inode);
        }
        let Some(new) = inode.key_by(by) else {
            inode.set_known_by(KnownBy::Nothing);
            return;
        };
        let hash = self.key_hash(&new);
        let mut shard = self.key_shard(hash).lock();
        inode.set_known_by(by);
        let replaced = self.put_in(&mut shard, hash, inode);
        drop(shard);
        drop(one_at_a_time);
        // What was there takes locks when it goes.
        drop(replaced);
    }

    /// The kernel gives back `count` lookups of `id`; true when the inode is no longer known.
    pub fn forget(&self, id: NodeId, count: u64) -> bool {
        let inode = self.get(id);
        if let Some(journal) = &self.journal {
            // First, so that a kill in between never leaves a count that nobody holds.
            journal.uncount(inode.as_ref().map_or(id, |inode| inode.id), count);
        }
        inode.is_some_and(|inode| self.put(&inode, count))
    }

    /// Gives back `count` references; the last one takes the inode out. The count never goes
    /// below 0, whatever the kernel says.
    fn put(&self, inode: &Arc<Inode>, count: u64) -> bool {
        if !self.put_one(inode, count) {
            return false;
        }
        // A loop and not a recursion: users can make trees deeper than a stack.
        let mut child = inode.id;
        while let Some(parent) = self.journal.as_ref().and_then(|j| j.remove(child)) {
            match self.get(parent) {
                Some(inode) if self.put_one(&inode, 1) => child = parent,
                _ => break,
            }
        }
        true
    }

    /// The inode is found at another place from now on, and counts on the directory there.
    pub(crate) fn moved(&self, old_dir: Option<NodeId>) {
        if let Some(old) = old_dir.and_then(|dir| self.get(dir)) {
            self.put(&old, 1);
        }
    }

    fn put_one(&self, inode: &Arc<Inode>, count: u64) -> bool {
        let before = inode
            .refs
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                Some(n.saturating_sub(count))
            });
        if !matches!(before, Ok(n) if n > 0 && n <= count) {
            return false;
        }
        self.rekey(inode, KnownBy::Nothing);
        take_out(self.id_shard(inode.id), id_hash(inode.id), inode);
        if self.node_of(inode) != inode.id {
            let mut second = self.second.write();
            let number = second.numbers.remove(&inode.id);
            let gone = number.and_then(|id| second.inodes.remove(&id));
            drop(second);
            let record = gone.as_ref().and_then(|(_, record)| *record);
            if let (Some(journal), Some(record)) = (&self.journal, record) {
                journal.drop_record(record);
            }
            drop(gone);
        }
        true
    }

    /// Gives an inode a second number, by which it is found as by the first; false if it has one.
    pub(crate) fn number_again(&self, inode: &Arc<Inode>) -> bool {
        let mut second = self.second.write();
        if second.numbers.contains_key(&inode.id) {
            return false;
        }
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let journal = self.journal.as_ref();
        let record = journal.and_then(|j| j.note_second(id, inode.id));
        second.numbers.insert(inode.id, id);
        second.inodes.insert(id, (Arc::clone(inode), record));
        true
    }

    /// The second numbers that dead daemons have given to inodes that are known again.
    pub(crate) fn restore_seconds(&self, journal: &Journal) {
        for (record, id, first) in journal.seconds() {
            // No number is given out twice.
            self.next.fetch_max(id.0 + 1, Ordering::Relaxed);
            let Some(inode) = self.get(first) else {
                journal.drop_record(record);
                continue;
            };
            let mut second = self.second.write();
            second.numbers.insert(first, id);
            second.inodes.insert(id, (inode, Some(record)));
        }
    }

    /// The number by which the kernel is to know an inode from now on: the last one given to it.
    #[must_use]
    pub fn node_of(&self, inode: &Inode) -> NodeId {
        let second = self.second.read();
        second.numbers.get(&inode.id).map_or(inode.id, |id| *id)
    }

    /// Whether the inode with number `id` has another number besides.
    #[must_use]
    pub fn has_two_numbers(&self, id: NodeId) -> bool {
        let second = self.second.read();
        second.numbers.contains_key(&id) || second.inodes.contains_key(&id)
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
        shards.map(|s| s.lock().iter().map(of).sum::<u64>()).sum()
    }

    /// Whether no inode is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
