//! One record for each inode that is known: 64 bytes beside its name.
//!
//! A slot says how to find the inode again: the slot of its directory, its name there, and what
//! must be found. An inode's number is its slot and how often that was used before, so no other
//! index is needed and no number is given out twice.
use std::sync::atomic::{AtomicU64, Ordering};

use plyfs_layer::LayerIdx;
use plyfs_sys::stat::{Kind, LayerIno, Time};
use plyfs_sys::{Name, NameBuf};

use super::{HEADER, Journal, Pool, TICKETS};
use crate::inode::NodeId;

const START: usize = HEADER + TICKETS;
pub(super) const WORDS: usize = 8;
/// Most inodes; the records of so many take 4 GiB.
pub(super) const MAX: usize = 1 << 26;
/// The slot of the root, whose number FUSE fixes.
const ROOT: u32 = 1;

/// Times used << 32 | kind << 12 | flags; kind 0: the slot is free. Stored last.
const STATE: usize = 0;
/// Lookups the kernel holds.
const LOOKUPS: usize = 1;
const DEV: usize = 2;
const INO: usize = 3;
const ST_INO: usize = 4;
/// Slot of the directory << 32 | name: one word, so that a rename is one store.
const LINK: usize = 5;
/// Descriptor + 1 << 32 | nanoseconds + 1 of the time that is kept; 0: none.
const PIN: usize = 6;
/// Seconds of the time that is kept.
const MTIME: usize = 7;

/// The identity is that of an upper object.
const UPPER: u64 = 1;
/// A copy-up is being noted: what the disk says counts.
const RISING: u64 = 2;
/// A name of a lower object is about to go, or has gone; the disk says which.
const REMOVED: u64 = 4;
/// The kernel has not been told yet that attributes have changed.
const UNTOLD: u64 = 8;

const KINDS: [Kind; 7] = [
    Kind::File,
    Kind::Dir,
    Kind::Symlink,
    Kind::Char,
    Kind::Block,
    Kind::Fifo,
    Kind::Socket,
];

/// A slot, as long as it belongs to one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(super) u32);

impl Slot {
    pub(crate) fn is_not_root(self) -> bool {
        self.0 != ROOT
    }
}

/// A directory and a name in it, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(pub(super) u64);

impl Link {
    pub(super) fn new(dir: Slot, name: u32) -> Self {
        Self((u64::from(dir.0) << 32) | u64::from(name))
    }

    /// The slot of the directory.
    pub(crate) fn dir(self) -> Slot {
        Slot((self.0 >> 32) as u32)
    }

    pub(super) fn name(self) -> u32 {
        self.0 as u32
    }
}

/// A new inode.
#[derive(Debug)]
pub(crate) struct NewSlot<'a> {
    pub(crate) kind: Kind,
    pub(crate) layer: LayerIdx,
    pub(crate) id: LayerIno,
    pub(crate) st_ino: u64,
    /// Directory and name; None for the root.
    pub(crate) at: Option<(NodeId, &'a Name)>,
}

/// What a slot says.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) node: NodeId,
    pub(crate) kind: Kind,
    pub(crate) id: LayerIno,
    /// The identity is that of an upper object.
    pub(crate) upper: bool,
    /// The identity is not to be relied on.
    pub(crate) rising: bool,
    pub(crate) removed: bool,
    pub(crate) untold: bool,
    pub(crate) st_ino: u64,
    pub(crate) lookups: u64,
    pub(crate) link: Link,
    pub(crate) name: Option<NameBuf>,
    pub(crate) pin: Option<i32>,
    pub(crate) mtime: Option<Time>,
}

/// Which slots are free.
#[derive(Debug)]
pub(super) struct Slots {
    top: u32,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            top: ROOT,
            free: Vec::new(),
        }
    }

    pub(super) fn found(journal: &Journal) -> Self {
        let top = journal.slots_top();
        let free = (ROOT..top).filter(|i| !journal.is_used(Slot(*i))).collect();
        Self { top, free }
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(free) = self.free.pop() {
            return Some(free);
        }
        let next = self.top;
        self.top = (next as usize).lt(&MAX).then(|| next + 1)?;
        Some(next)
    }
}

fn update(word: &AtomicU64, with: impl Fn(u64) -> u64) {
    let mut seen = word.load(Ordering::Acquire);
    while let Err(now) =
        word.compare_exchange_weak(seen, with(seen), Ordering::AcqRel, Ordering::Acquire)
    {
        seen = now;
    }
}

/// The slot of an inode.
pub(crate) fn slot_of(node: NodeId) -> Slot {
    Slot(node.0 as u32)
}

impl Journal {
    fn at(&self, slot: Slot, word: usize) -> &AtomicU64 {
        self.word(START + (slot.0 as usize).min(MAX - 1) * WORDS + word)
    }

    fn read(&self, slot: Slot, word: usize) -> u64 {
        self.at(slot, word).load(Ordering::Acquire)
    }

    fn write(&self, slot: Slot, word: usize, value: u64) {
        self.at(slot, word).store(value, Ordering::Release);
        plyfs_sys::die::step();
    }

    fn is_used(&self, slot: Slot) -> bool {
        self.read(slot, STATE) >> 12 & 0xf != 0
    }

    /// The slot of an inode, if it is noted.
    fn own(&self, node: NodeId) -> Option<Slot> {
        let slot = slot_of(node);
        (self.node(slot) == node && self.is_used(slot)).then_some(slot)
    }

    /// The number of the inode that a slot belongs to.
    pub(crate) fn node(&self, slot: Slot) -> NodeId {
        let used = self.read(slot, STATE) >> 32;
        NodeId((used << 32) | u64::from(slot.0))
    }

    /// The first slot that was never used. It is found and not noted: one word less to store.
    fn slots_top(&self) -> u32 {
        let (mut low, mut high) = (ROOT, MAX as u32);
        while low < high {
            let mid = low + (high - low) / 2;
            match self.read(Slot(mid), STATE) {
                0 => high = mid,
                _ => low = mid + 1,
            }
        }
        low
    }

    /// Notes a new inode and gives it its number; None when there is no room.
    pub(crate) fn add(&self, new: &NewSlot<'_>) -> Option<NodeId> {
        let mut pool = self.pool.lock();
        let Pool { slots, names, .. } = &mut *pool;
        let link = match new.at {
            Some((dir, name)) => {
                let at = self.store_name(names, name)?;
                Link::new(slot_of(dir), at).0
            }
            None => 0,
        };
        let slot = Slot(slots.take()?);
        let before = self.read(slot, STATE);
        // A slot that was never used has all words 0; the root begins with 0 uses.
        let used = if before == 0 { 0 } else { (before >> 32) + 1 };
        self.write(slot, LOOKUPS, 0);
        self.write(slot, DEV, new.id.dev);
        self.write(slot, INO, new.id.ino);
        self.write(slot, ST_INO, new.st_ino);
        self.write(slot, LINK, link);
        self.write(slot, PIN, 0);
        let upper = u64::from(new.layer == LayerIdx::UPPER) * UPPER;
        let kind = KINDS.iter().position(|k| *k == new.kind)? as u64 + 1;
        let state = (used & 0xffff_ffff) << 32 | kind << 12 | upper;
        self.write(slot, STATE, state);
        Some(NodeId(((used & 0xffff_ffff) << 32) | u64::from(slot.0)))
    }

    /// An inode is known no more; answers its directory, which was counted on.
    pub(crate) fn remove(&self, node: NodeId) -> Option<NodeId> {
        let slot = self.own(node)?;
        let mut pool = self.pool.lock();
        let link = Link(self.read(slot, LINK));
        let parent = (link.0 != 0).then(|| self.node(link.dir()));
        // Used, and free: no kind.
        let used = self.read(slot, STATE) >> 32;
        self.write(slot, STATE, used << 32 | FREED);
        self.drop_name(&mut pool.names, link.name());
        pool.slots.free.push(slot.0);
        parent
    }

    /// The kernel gets `n` lookups of an inode.
    pub(super) fn count(&self, node: NodeId, n: u64) {
        if let Some(slot) = self.own(node) {
            self.at(slot, LOOKUPS).fetch_add(n, Ordering::AcqRel);
        }
    }

    /// The kernel gives `n` lookups back.
    pub(crate) fn uncount(&self, node: NodeId, n: u64) {
        if let Some(slot) = self.own(node) {
            update(self.at(slot, LOOKUPS), |have| have.saturating_sub(n));
        }
    }

    fn flag(&self, slot: Slot, on: u64, off: u64) {
        let state = self.at(slot, STATE);
        state.fetch_or(on, Ordering::AcqRel);
        plyfs_sys::die::step();
        state.fetch_and(!off, Ordering::AcqRel);
    }

    /// An inode has been copied up; `pin` where the copy has no name.
    pub(crate) fn rise(&self, node: NodeId, id: LayerIno, st_ino: u64, pin: Option<i32>) {
        let Some(slot) = self.own(node) else { return };
        self.flag(slot, RISING | UNTOLD, 0);
        if pin.is_some() {
            self.pin(node, pin);
        }
        self.write(slot, DEV, id.dev);
        self.write(slot, INO, id.ino);
        self.write(slot, ST_INO, st_ino);
        self.flag(slot, UPPER, RISING);
    }

    /// The kernel knows the attributes of the inode, or is about to ask.
    pub(crate) fn told(&self, node: NodeId) {
        if let Some(slot) = self.own(node)
            && self.read(slot, STATE) & UNTOLD != 0
        {
            self.flag(slot, 0, UNTOLD);
        }
    }

    /// The object is reached by this descriptor if its name has gone.
    pub(crate) fn pin(&self, node: NodeId, pin: Option<i32>) {
        let number = pin.map_or(0, |fd| u64::from(fd.cast_unsigned()) + 1);
        if let Some(slot) = self.own(node) {
            update(self.at(slot, PIN), |word| word & 0xffff_ffff | number << 32);
        }
    }

    /// The name of a lower object is about to go.
    pub(crate) fn loses_name(&self, node: NodeId) {
        if let Some(slot) = self.own(node) {
            self.flag(slot, REMOVED, 0);
        }
    }

    /// Directory and name under which the journal has an inode.
    pub(crate) fn link(&self, node: NodeId) -> Option<(NodeId, NameBuf)> {
        let link = Link(self.read(self.own(node)?, LINK));
        Some((self.node(link.dir()), self.name(link.name())?))
    }

    /// Whether that is the place where the journal has an inode.
    pub(crate) fn is_at(&self, node: NodeId, dir: NodeId, name: &Name) -> bool {
        self.link(node)
            .is_some_and(|(d, n)| d == dir && *n == *name)
    }

    /// Stores a place, to be used by [`Journal::set_link`] or given back by [`Journal::drop_link`].
    pub(crate) fn new_link(&self, dir: NodeId, name: &Name) -> Option<Link> {
        let mut pool = self.pool.lock();
        let at = self.store_name(&mut pool.names, name)?;
        Some(Link::new(slot_of(dir), at))
    }

    /// Gives back a place that no inode has.
    pub(crate) fn drop_link(&self, link: Link) {
        self.drop_name(&mut self.pool.lock().names, link.name());
    }

    /// The inode is at another place from now on; answers the old one.
    pub(crate) fn set_link(&self, slot: Slot, link: Link) -> Link {
        let old = Link(self.at(slot, LINK).swap(link.0, Ordering::AcqRel));
        plyfs_sys::die::step();
        old
    }

    /// The time that a file shows while the disk may have another; None: the disk's.
    pub(crate) fn keep_mtime(&self, node: NodeId, mtime: Option<Time>) {
        let Some(slot) = self.own(node) else { return };
        let set = |nanos| update(self.at(slot, PIN), |word| word & !0xffff_ffff | nanos);
        // Never a mixture of two times: none in between.
        set(0);
        if let Some(mtime) = mtime {
            self.write(slot, MTIME, mtime.sec.cast_unsigned());
            set(u64::from(mtime.nsec) + 1);
        }
    }

    /// All slots that belong to an inode.
    pub(crate) fn used_slots(&self) -> Vec<Slot> {
        let top = self.slots_top();
        (ROOT..top).map(Slot).filter(|s| self.is_used(*s)).collect()
    }

    pub(super) fn named_blocks(&self) -> Vec<u32> {
        let slots = self.used_slots();
        let of_slots = slots.iter().map(|s| Link(self.read(*s, LINK)).name());
        let of_tickets = self.links_in_tickets().into_iter().map(Link::name);
        of_slots.chain(of_tickets).filter(|at| *at != 0).collect()
    }

    /// What a slot says; None where it is free.
    pub(crate) fn facts(&self, slot: Slot) -> Option<Facts> {
        let state = self.read(slot, STATE);
        let kind = (state >> 12 & 0xf) as usize;
        let kind = *KINDS.get(kind.checked_sub(1)?)?;
        let link = Link(self.read(slot, LINK));
        let pin = self.read(slot, PIN);
        let number = (pin >> 32) as u32;
        let nanos = (pin as u32).checked_sub(1);
        Some(Facts {
            node: self.node(slot),
            kind,
            id: LayerIno {
                dev: self.read(slot, DEV),
                ino: self.read(slot, INO),
            },
            upper: state & UPPER != 0,
            rising: state & RISING != 0,
            removed: state & REMOVED != 0,
            untold: state & UNTOLD != 0,
            st_ino: self.read(slot, ST_INO),
            lookups: self.read(slot, LOOKUPS),
            link,
            name: self.name(link.name()),
            pin: number.checked_sub(1).map(u32::cast_signed),
            mtime: nanos.map(|nsec| Time {
                sec: self.read(slot, MTIME).cast_signed(),
                nsec,
            }),
        })
    }

    /// The name of a place that no inode has yet.
    pub(crate) fn name_of(&self, link: Link) -> Option<NameBuf> {
        self.name(link.name())
    }

    /// An inode was not found again: nobody will give it back.
    pub(crate) fn lose(&self, slot: Slot) {
        if self.is_used(slot) {
            self.remove(self.node(slot));
        }
    }

    /// The name of an inode has not gone after all.
    pub(crate) fn kept_name(&self, slot: Slot) {
        self.flag(slot, 0, REMOVED);
    }
}

/// A bit that says of a free slot that it has been used; it is none of the flags above.
const FREED: u64 = 1 << 11;
