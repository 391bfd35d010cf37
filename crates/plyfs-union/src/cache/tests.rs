use std::sync::Arc;

use super::ByteCache;
use crate::inode::NodeId;

const OVERHEAD: usize = size_of::<u64>();

fn cache(values: usize) -> ByteCache<u64> {
    ByteCache::new(values * (OVERHEAD + 100))
}

fn put(cache: &ByteCache<u64>, id: u64) {
    cache.put(NodeId(id), Arc::new(id), 100);
}

fn kept(cache: &ByteCache<u64>) -> Vec<u64> {
    (0..10)
        .filter(|id| cache.get(NodeId(*id)).is_some())
        .collect()
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let cache = cache(3);
    (1..=3).for_each(|id| put(&cache, id));
    assert_eq!(cache.get(NodeId(1)).as_deref(), Some(&1));
    put(&cache, 4);
    assert_eq!(kept(&cache), [1, 3, 4]);
}

#[test]
fn a_value_beyond_the_budget_is_kept_alone() {
    let cache = cache(1);
    cache.put(NodeId(1), Arc::new(1), 1_000_000);
    assert_eq!(kept(&cache), [1]);
    put(&cache, 2);
    assert_eq!(kept(&cache), [2]);
}

#[test]
fn replacing_and_removing_give_the_bytes_back() {
    let cache = cache(3);
    for _ in 0..100 {
        put(&cache, 1);
        put(&cache, 2);
        cache.remove(NodeId(2));
        cache.remove(NodeId(9));
    }
    put(&cache, 2);
    put(&cache, 3);
    assert_eq!(kept(&cache), [1, 2, 3]);
}

#[test]
fn a_value_in_use_outlives_its_place() {
    let cache = cache(1);
    put(&cache, 1);
    let held = cache.get(NodeId(1)).unwrap();
    put(&cache, 2);
    assert_eq!((*held, kept(&cache)), (1, vec![2]));
}
