use std::cell::Cell;
use std::sync::Arc;

use plyfs_layer::LayerIdx;
use plyfs_sys::stat::{Kind, LayerIno};
use plyfs_sys::{Name, NameBuf};

use super::Table;
use crate::index::IndexState;
use crate::inode::{Key, Link, Lowers, NodeId, Parts};

fn key(ino: u64) -> Key {
    Key::Obj(LayerIdx(1), LayerIno { dev: 1, ino })
}

fn alias(ino: u64, name: &str) -> Key {
    let name: NameBuf = Name::new(name.as_bytes()).unwrap().to_owned();
    Key::Alias(LayerIdx(1), LayerIno { dev: 1, ino }, name)
}

fn parts(link: Option<Link>) -> Parts {
    Parts {
        kind: Kind::Dir,
        st_ino: 1,
        upper: None,
        lowers: Lowers::new(),
        metacopy: false,
        impure: false,
        link,
        index: IndexState::default(),
    }
}

#[test]
fn the_first_inode_is_the_root_and_numbers_never_come_again() {
    let table = Table::new();
    let root = table.intern(key(1), || parts(None));
    assert_eq!(root.id, NodeId::ROOT);
    let first = table.intern(key(2), || parts(None)).id;
    let second = table.intern(key(2), || parts(None)).id;
    assert!(
        second > first,
        "an inode that was dropped comes back as another"
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn one_key_is_one_inode() {
    let table = Table::new();
    let made = Cell::new(0);
    let intern = || {
        table.intern(key(1), || {
            made.set(made.get() + 1);
            parts(None)
        })
    };
    let (a, b) = (intern(), intern());
    assert!(Arc::ptr_eq(&a, &b));
    assert_eq!(made.get(), 1);
    assert!(table.find(&key(1)).is_some());
    assert!(table.find(&key(2)).is_none());
    let other = table.intern(alias(1, "x"), || parts(None));
    assert_ne!(other.id, a.id);
    assert_ne!(table.intern(alias(1, "y"), || parts(None)).id, other.id);
}

#[test]
fn every_count_goes_back_once() {
    let table = Table::new();
    let node = table.intern(key(1), || parts(None));
    let id = node.id;
    table.again(&node).unwrap().leak();
    table.get_ref(id).unwrap().leak();
    table.find(&key(1)).unwrap().leak();
    assert!(!table.forget(id, 2));
    drop(node);
    assert_eq!(table.len(), 1);
    assert!(table.forget(id, 1));
    assert!(table.is_empty());
    assert!(table.find(&key(1)).is_none());
    assert!(!table.forget(id, 1), "nothing is left to forget");
}

#[test]
fn a_forget_of_too_many_ends_at_zero() {
    let table = Table::new();
    let node = table.intern(key(1), || parts(None));
    let id = node.id;
    node.leak();
    assert!(table.forget(id, u64::MAX));
    assert!(table.is_empty());
}

#[test]
fn what_was_leaked_and_forgotten_is_freed() {
    let table = Table::new();
    let node = table.intern(key(1), || parts(None));
    let weak = Arc::downgrade(&node);
    let id = node.id;
    node.leak();
    table.forget(id, 1);
    assert!(weak.upgrade().is_none(), "the inode lives on");
}

#[test]
fn a_child_keeps_its_parents_known() {
    let table = Table::new();
    let mut parent = table.intern(key(1), || parts(None));
    let mut ids = vec![parent.id];
    for ino in 2..100 {
        let link = Link {
            parent,
            name: Name::new(b"d").unwrap().to_owned(),
        };
        parent = table.intern(key(ino), || parts(Some(link)));
        ids.push(parent.id);
    }
    assert_eq!(table.len(), 99);
    assert!(ids.iter().all(|id| table.get(*id).is_some()));
    drop(parent);
    assert!(table.is_empty(), "the last child lets all of them go");
}

#[test]
fn a_new_key_takes_the_place_of_the_old() {
    let table = Table::new();
    let node = table.intern(key(1), || parts(None));
    table.rekey(&node, Some(key(2)));
    assert!(table.find(&key(1)).is_none());
    assert_eq!(table.find(&key(2)).unwrap().id, node.id);
    let other = table.intern(key(1), || parts(None));
    assert_ne!(other.id, node.id);
    table.rekey(&node, None);
    assert!(table.find(&key(2)).is_none());
    assert!(
        table.get(node.id).is_some(),
        "it is known by its number still"
    );
}

#[test]
fn an_inode_without_key_leaves_the_key_of_its_successor() {
    let table = Table::new();
    let old = table.intern(key(1), || parts(None));
    table.rekey(&old, None);
    // The inode number of the layer is used again while the old one is held.
    let new = table.intern(key(1), || parts(None));
    drop(old);
    assert_eq!(table.find(&key(1)).unwrap().id, new.id);
}

#[test]
fn the_last_count_and_a_new_lookup_race_without_loss() {
    let table = Table::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..20_000u64 {
                    let node = table.intern(key(i % 3), || parts(None));
                    let id = node.id;
                    if i % 2 == 0 {
                        node.leak();
                        table.forget(id, 1);
                    } else {
                        assert!(table.get(id).is_some());
                    }
                }
            });
        }
    });
    assert!(table.is_empty());
    for i in 0..3 {
        assert!(table.find(&key(i)).is_none());
    }
}
