//! An LRU of shared descriptors that counts how it serves.
use std::hash::Hash;
use std::iter::Sum;
use std::num::NonZeroUsize;

use lru::LruCache;

/// How a cache of descriptors has served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// What was asked for and there.
    pub hits: u64,
    /// What was asked for and not there.
    pub misses: u64,
    /// What is there.
    pub entries: u64,
    /// How much may be there.
    pub capacity: u64,
}

impl Sum for Served {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            hits: sum.hits + part.hits,
            misses: sum.misses + part.misses,
            entries: sum.entries + part.entries,
            capacity: sum.capacity + part.capacity,
        })
    }
}

/// One part of a cache. Counters are beside what they count, under its lock.
#[derive(Debug)]
pub struct CountedLru<K: Hash + Eq, V> {
    values: LruCache<K, V>,
    hits: u64,
    misses: u64,
}

impl<K: Hash + Eq, V: Clone> CountedLru<K, V> {
    /// An empty one that holds at most `cap` values.
    #[must_use]
    pub fn new(cap: NonZeroUsize) -> Self {
        Self {
            values: LruCache::new(cap),
            hits: 0,
            misses: 0,
        }
    }

    /// What is there for `key`, which counts as use.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let found = self.values.get(key).cloned();
        match found {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        found
    }

    /// Puts a value in; the one of this key or the one that had to go for it.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        self.values.push(key, value).map(|(_, evicted)| evicted)
    }

    /// Takes a value out.
    pub fn pop(&mut self, key: &K) -> Option<V> {
        self.values.pop(key)
    }

    /// How it has served so far.
    #[must_use]
    pub fn served(&self) -> Served {
        Served {
            hits: self.hits,
            misses: self.misses,
            entries: self.values.len() as u64,
            capacity: self.values.cap().get() as u64,
        }
    }
}
