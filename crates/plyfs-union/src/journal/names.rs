//! The names of inodes in shared memory: blocks of whole words, the length in the first two bytes.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use plyfs_sys::{Name, NameBuf};

use super::{HEADER, Journal, NAMES, SLOTS, TICKETS};

const START: usize = HEADER + TICKETS + SLOTS;
/// Words of the longest name: 255 bytes and its length.
const LONGEST: usize = 33;

/// Where free blocks are; word 0 means "no name".
#[derive(Debug)]
pub(super) struct Names {
    top: usize,
    free: [Vec<u32>; LONGEST + 1],
}

fn words_for(len: usize) -> usize {
    (2 + len).div_ceil(8)
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            top: 1,
            free: std::array::from_fn(|_| Vec::new()),
        }
    }

    /// What is free beside the names that slots and requests in progress refer to.
    pub(super) fn found(journal: &Journal) -> Self {
        let mut used: BTreeMap<usize, usize> = BTreeMap::new();
        for at in journal.named_blocks() {
            used.insert(at as usize, words_for(journal.name_len(at)));
        }
        let mut names = Self::new();
        for (at, words) in used {
            names.give_back(names.top, at);
            names.top = names.top.max(at + words);
        }
        names
    }

    /// The words from `from` to `to` are free.
    fn give_back(&mut self, mut from: usize, to: usize) {
        while from < to {
            let words = (to - from).min(LONGEST);
            if let Ok(at) = u32::try_from(from) {
                self.free[words].push(at);
            }
            from += words;
        }
    }

    fn take(&mut self, words: usize) -> Option<u32> {
        if let Some(at) = self.free[words].pop() {
            return Some(at);
        }
        if let Some(at) = self.free[LONGEST].pop() {
            self.free[LONGEST - words].push(at + words as u32);
            return Some(at);
        }
        let at = self.top;
        if at + words > NAMES {
            return None;
        }
        self.top = at + words;
        u32::try_from(at).ok()
    }
}

impl Journal {
    /// Stores a name; None when there is no room.
    pub(super) fn store_name(&self, names: &mut Names, name: &Name) -> Option<u32> {
        let bytes = name.as_bytes();
        let len = u16::try_from(bytes.len()).ok()?;
        let at = names.take(words_for(bytes.len()))?;
        let mut block = Vec::with_capacity(LONGEST * 8);
        block.extend_from_slice(&len.to_ne_bytes());
        block.extend_from_slice(bytes);
        block.resize(words_for(bytes.len()) * 8, 0);
        for (i, word) in block.chunks_exact(8).enumerate() {
            let word = word.try_into().map_or(0, u64::from_ne_bytes);
            self.word(START + at as usize + i)
                .store(word, Ordering::Relaxed);
        }
        Some(at)
    }

    pub(super) fn drop_name(&self, names: &mut Names, at: u32) {
        if at != 0 {
            let words = words_for(self.name_len(at));
            names.free[words].push(at);
        }
    }

    fn name_len(&self, at: u32) -> usize {
        let first = self.get(START + at as usize).to_ne_bytes();
        usize::from(u16::from_ne_bytes([first[0], first[1]])).min(255)
    }

    /// The name that is stored at `at`.
    pub(super) fn name(&self, at: u32) -> Option<NameBuf> {
        if at == 0 {
            return None;
        }
        let len = self.name_len(at);
        let words = 0..words_for(len);
        let bytes = words.flat_map(|i| self.get(START + at as usize + i).to_ne_bytes());
        let bytes: Vec<u8> = bytes.skip(2).take(len).collect();
        Name::new(&bytes).ok().map(Name::to_owned)
    }
}
