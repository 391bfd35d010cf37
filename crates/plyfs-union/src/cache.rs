//! A cache with a budget in bytes that drops what was used longest ago.
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::inode::NodeId;
use crate::stats::CacheStats;

/// Values by inode, at most `budget` bytes of them. Everything in it can be built again.
#[derive(Debug)]
pub(crate) struct ByteCache<V> {
    budget: usize,
    inner: Mutex<Inner<V>>,
}

#[derive(Debug)]
struct Inner<V> {
    map: LruCache<NodeId, (Arc<V>, usize)>,
    bytes: usize,
    hits: u64,
    misses: u64,
}

impl<V> ByteCache<V> {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            inner: Mutex::new(Inner {
                map: LruCache::unbounded(),
                bytes: 0,
                hits: 0,
                misses: 0,
            }),
        }
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<V>> {
        let mut inner = self.inner.lock();
        let found = inner.map.get(&id).map(|(v, _)| Arc::clone(v));
        match found {
            Some(_) => inner.hits += 1,
            None => inner.misses += 1,
        }
        found
    }

    /// How the cache has served so far; sizes are in bytes.
    pub(crate) fn stats(&self, name: &'static str) -> CacheStats {
        let inner = self.inner.lock();
        CacheStats {
            name,
            hits: inner.hits,
            misses: inner.misses,
            entries: inner.map.len() as u64,
            bytes: Some(inner.bytes as u64),
            capacity: self.budget as u64,
        }
    }

    /// Stores a value. One larger than the whole budget is kept alone: a listing in progress
    /// would otherwise be built again for each of its parts.
    pub(crate) fn put(&self, id: NodeId, value: Arc<V>, weight: usize) {
        let weight = weight + size_of::<V>();
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        if let Some((old, old_weight)) = inner.map.put(id, (value, weight)) {
            inner.bytes -= old_weight;
            dropped.push(old);
        }
        inner.bytes += weight;
        while inner.bytes > self.budget && inner.map.len() > 1 {
            let Some((_, (old, old_weight))) = inner.map.pop_lru() else {
                break;
            };
            inner.bytes -= old_weight;
            dropped.push(old);
        }
        drop(inner);
        drop(dropped);
    }

    pub(crate) fn remove(&self, id: NodeId) {
        let mut inner = self.inner.lock();
        let old = inner.map.pop(&id);
        if let Some((_, weight)) = &old {
            inner.bytes -= weight;
        }
        drop(inner);
        drop(old);
    }
}

#[cfg(test)]
mod tests;
