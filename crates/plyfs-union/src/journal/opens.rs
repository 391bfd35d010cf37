//! Open files of a passed-through connection, and second numbers of inodes: a record for each.
//!
//! A count that a dead daemon has made for a reply that was not sent is taken back when the request
//! comes again ([`super::Intent`]). It is stored before the intent, and given back after it: a
//! kill in between counts too much and never too little, and a binding that stays is never wrong.
use std::sync::atomic::Ordering;

use plyfs_layer::LayerIdx;
use plyfs_sys::stat::LayerIno;

use super::header::OPENS_AT;
use super::{HEADER, Journal, NAMES, SLOTS, TICKETS};
use crate::inode::NodeId;

const START: usize = HEADER + TICKETS + SLOTS + NAMES;
pub(super) const WORDS: usize = 8;
/// Most records; they take 256 MiB.
pub(super) const MAX: usize = 1 << 22;

/// The kernel's number of the inode; 0: the record is free. Stored last.
const NODE: usize = 0;
/// Layer of the data file; the first number, where this record has a second one.
const LAYER: usize = 1;
const DEV: usize = 2;
const INO: usize = 3;
/// Number of the registration + 1; 0: the kernel did not take the file.
const BACKING: usize = 4;
/// Opens << 32 | opens for writing.
const COUNTS: usize = 5;
/// Thread that was sent away + 1.
const SENT_AWAY: usize = 6;
const FLAGS: usize = 7;

/// The file is open.
const BOUND: u64 = 1;
/// It may be mapped for writing.
const MAPPED: u64 = 2;
/// The record is of a second number.
const SECOND: u64 = 4;

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record(u32);

/// What is open, as it is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) layer: LayerIdx,
    pub(crate) file: LayerIno,
    pub(crate) backing: Option<u32>,
    pub(crate) opens: u32,
    pub(crate) writers: u32,
    pub(crate) sent_away: Option<u32>,
}

/// Which records are free.
#[derive(Debug, Default)]
pub(super) struct Records {
    top: u32,
    free: Vec<u32>,
}

impl Records {
    pub(super) fn found(journal: &Journal) -> Self {
        let top = journal.opens_top();
        let free = (0..top).filter(|at| journal.of(Record(*at), NODE) == 0);
        let free = free.collect();
        Self { top, free }
    }
}

fn plus_one(number: Option<u32>) -> u64 {
    number.map_or(0, |n| u64::from(n) + 1)
}

fn minus_one(word: u64) -> Option<u32> {
    word.checked_sub(1).map(|n| n as u32)
}

impl Journal {
    fn opens_top(&self) -> u32 {
        (self.get(OPENS_AT) as u32).min(MAX as u32)
    }

    fn of(&self, record: Record, word: usize) -> u64 {
        self.get(START + record.0 as usize * WORDS + word)
    }

    fn put(&self, record: Record, word: usize, value: u64) {
        self.set(START + record.0 as usize * WORDS + word, value);
    }

    fn take_record(&self) -> Option<Record> {
        let mut pool = self.pool.lock();
        let at = pool.opens.free.pop().or_else(|| {
            let next = pool.opens.top;
            pool.opens.top = (next as usize).lt(&MAX).then(|| next + 1)?;
            self.word(OPENS_AT)
                .fetch_max(u64::from(next) + 1, Ordering::AcqRel);
            Some(next)
        });
        if at.is_none() {
            drop(pool);
            self.break_off("too many open files");
        }
        at.map(Record)
    }

    /// Notes what is known of an inode of the kernel from now on.
    pub(crate) fn note_open(
        &self,
        record: &mut Option<Record>,
        node: NodeId,
        opened: Option<Opened>,
        mapped: bool,
    ) {
        let is_new = record.is_none();
        let Some(own) = record.or_else(|| self.take_record()) else {
            return;
        };
        *record = Some(own);
        let flags = if mapped { MAPPED } else { 0 };
        let was_bound = !is_new && self.of(own, FLAGS) & BOUND != 0;
        let Some(opened) = opened else {
            self.put(own, FLAGS, flags);
            if is_new {
                self.put(own, NODE, node.0);
            }
            return;
        };
        // What it is bound to does not change as long as it is bound.
        if !was_bound {
            self.put(own, LAYER, u64::from(opened.layer.0));
            self.put(own, DEV, opened.file.dev);
            self.put(own, INO, opened.file.ino);
            self.put(own, BACKING, plus_one(opened.backing));
        }
        self.put(own, SENT_AWAY, plus_one(opened.sent_away));
        let counts = (u64::from(opened.opens) << 32) | u64::from(opened.writers);
        self.put(own, COUNTS, counts);
        self.put(own, FLAGS, flags | BOUND);
        if is_new {
            self.put(own, NODE, node.0);
        }
    }

    /// Notes a second number of an inode.
    pub(crate) fn note_second(&self, second: NodeId, first: NodeId) -> Option<Record> {
        let own = self.take_record()?;
        self.put(own, LAYER, first.0);
        self.put(own, FLAGS, SECOND);
        self.put(own, NODE, second.0);
        Some(own)
    }

    /// What was noted is not so any more.
    pub(crate) fn drop_record(&self, record: Record) {
        self.put(record, NODE, 0);
        self.pool.lock().opens.free.push(record.0);
    }

    fn records(&self) -> impl Iterator<Item = (Record, NodeId, u64)> {
        let all = (0..self.opens_top()).map(Record);
        let all = all.map(|own| (own, NodeId(self.of(own, NODE)), self.of(own, FLAGS)));
        all.filter(|(_, node, _)| node.0 != 0)
    }

    /// All second numbers, each with the first.
    pub(crate) fn seconds(&self) -> Vec<(Record, NodeId, NodeId)> {
        let seconds = self.records().filter(|(.., flags)| flags & SECOND != 0);
        let first = |own| NodeId(self.of(own, LAYER));
        seconds
            .map(|(own, second, _)| (own, second, first(own)))
            .collect()
    }

    /// What is noted of inodes that are or were open, and whether they may be mapped.
    pub(crate) fn opened(&self) -> Vec<(Record, NodeId, Option<Opened>, bool)> {
        let files = self.records().filter(|(.., flags)| flags & SECOND == 0);
        files
            .map(|(own, node, flags)| {
                let opened = (flags & BOUND != 0).then(|| self.opened_in(own));
                (own, node, opened, flags & MAPPED != 0)
            })
            .collect()
    }

    fn opened_in(&self, own: Record) -> Opened {
        let counts = self.of(own, COUNTS);
        Opened {
            layer: LayerIdx(self.of(own, LAYER) as u16),
            file: LayerIno {
                dev: self.of(own, DEV),
                ino: self.of(own, INO),
            },
            backing: minus_one(self.of(own, BACKING)),
            opens: (counts >> 32) as u32,
            writers: counts as u32,
            sent_away: minus_one(self.of(own, SENT_AWAY)),
        }
    }
}
