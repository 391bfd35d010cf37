use std::cell::Cell;
use std::sync::Arc;

use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::stat::{Kind, LayerIno};
use plyfs_sys::{Name, NameBuf};

use super::{InodeRef, Parent, Table};
use crate::inode::{Key, KnownBy, Link, NodeId, Parts};
use crate::lowers::LowerObjs;

const LAYER: LayerIdx = LayerIdx(1);
const ROOT_INO: u64 = 1 << 40;

fn id(ino: u64) -> LayerIno {
    LayerIno { dev: 1, ino }
}

fn name(text: &str) -> NameBuf {
    Name::new(text.as_bytes()).unwrap().to_owned()
}

fn key(ino: u64) -> Key {
    Key::Obj(LAYER, id(ino))
}

fn upper_key(ino: u64) -> Key {
    Key::Obj(LayerIdx::UPPER, id(ino))
}

fn alias(text: &str) -> Key {
    Key::Alias(LAYER, id(ROOT_INO), name(text))
}

fn obj(layer: LayerIdx, ino: u64, text: &str) -> Arc<Obj> {
    let fd = Arc::new(std::fs::File::open("/").unwrap().into());
    let root = Obj::pinned(layer, id(ROOT_INO), fd);
    Obj::found(layer, id(ino), &root, name(text))
}

fn parts_of(kind: Kind, ino: u64, text: &str, link: Option<Link>) -> Parts {
    Parts {
        kind,
        st_ino: 1,
        upper: None,
        lowers: LowerObjs::from_iter([obj(LAYER, ino, text)]),
        metacopy: false,
        impure: false,
        link,
        index: None,
    }
}

fn dir(table: &Arc<Table>, ino: u64, link: Option<Link>) -> InodeRef {
    table.intern(&key(ino), None, || parts_of(Kind::Dir, ino, "d", link))
}

fn file(table: &Arc<Table>, ino: u64) -> InodeRef {
    table.intern(&key(ino), None, || parts_of(Kind::File, ino, "f", None))
}

fn linked(table: &Arc<Table>, ino: u64, text: &str) -> InodeRef {
    table.intern(&alias(text), None, || parts_of(Kind::File, ino, text, None))
}

#[test]
fn the_first_inode_is_the_root_and_numbers_never_come_again() {
    let table = Table::new(None);
    let root = dir(&table, 1, None);
    assert_eq!(root.id, NodeId::ROOT);
    let first = file(&table, 2).id;
    let second = file(&table, 2).id;
    assert!(
        second > first,
        "an inode that was dropped comes back as another"
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn one_key_is_one_inode() {
    let table = Table::new(None);
    let made = Cell::new(0);
    let intern = || {
        table.intern(&key(1), None, || {
            made.set(made.get() + 1);
            parts_of(Kind::File, 1, "f", None)
        })
    };
    let (a, b) = (intern(), intern());
    assert!(Arc::ptr_eq(&a, &b));
    assert_eq!(made.get(), 1);
    assert!(table.find(&key(1)).is_some());
    assert!(table.find(&key(2)).is_none());
    let other = linked(&table, 1, "x");
    assert_ne!(other.id, a.id);
    assert_eq!(linked(&table, 1, "x").id, other.id);
    assert_ne!(linked(&table, 1, "y").id, other.id);
}

#[test]
fn every_count_goes_back_once() {
    let table = Table::new(None);
    let node = file(&table, 1);
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
    let table = Table::new(None);
    let node = file(&table, 1);
    let id = node.id;
    node.leak();
    assert!(table.forget(id, u64::MAX));
    assert!(table.is_empty());
}

#[test]
fn what_was_leaked_and_forgotten_is_freed() {
    let table = Table::new(None);
    let node = file(&table, 1);
    let weak = Arc::downgrade(&node);
    let id = node.id;
    node.leak();
    table.forget(id, 1);
    assert!(weak.upgrade().is_none(), "the inode lives on");
}

#[test]
fn a_child_keeps_its_parents_known() {
    let table = Table::new(None);
    let mut parent = dir(&table, 1, None);
    let mut ids = vec![parent.id];
    for ino in 2..100 {
        let link = Link {
            parent: Parent::of(&parent).unwrap(),
            name: name("d"),
        };
        parent = dir(&table, ino, Some(link));
        ids.push(parent.id);
    }
    assert_eq!(table.len(), 99);
    assert!(ids.iter().all(|id| table.get(*id).is_some()));
    drop(parent);
    assert!(table.is_empty(), "the last child lets all of them go");
}

#[test]
fn a_new_key_takes_the_place_of_the_old() {
    let table = Table::new(None);
    let node = file(&table, 1);
    node.rise(obj(LayerIdx::UPPER, 2, "f"));
    assert!(table.find(&upper_key(2)).is_none());
    table.rekey(&node, KnownBy::Upper);
    assert!(table.find(&key(1)).is_none());
    assert_eq!(table.find(&upper_key(2)).unwrap().id, node.id);
    let other = file(&table, 1);
    assert_ne!(other.id, node.id);
    table.rekey(&node, KnownBy::Nothing);
    assert!(table.find(&upper_key(2)).is_none());
    assert!(
        table.get(node.id).is_some(),
        "it is known by its number still"
    );
}

#[test]
fn an_inode_without_key_leaves_the_key_of_its_successor() {
    let table = Table::new(None);
    let old = file(&table, 1);
    table.rekey(&old, KnownBy::Nothing);
    // The inode number of the layer is used again while the old one is held.
    let new = file(&table, 1);
    drop(old);
    assert_eq!(table.find(&key(1)).unwrap().id, new.id);
}

#[test]
fn the_last_count_and_a_new_lookup_race_without_loss() {
    let table = Table::new(None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..20_000u64 {
                    let node = file(&table, i % 3);
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

#[test]
fn maps_that_grow_and_keys_that_change_lose_nothing() {
    let table = Table::new(None);
    let files: Vec<InodeRef> = (0..2000).map(|ino| file(&table, ino)).collect();
    let linked: Vec<InodeRef> = (0..2000)
        .map(|i| linked(&table, i, &format!("n{i}")))
        .collect();
    for (ino, node) in (0..).zip(&files) {
        if ino % 2 == 0 {
            node.rise(obj(LayerIdx::UPPER, ino, "f"));
            table.rekey(node, KnownBy::Upper);
        }
    }
    for (ino, node) in (0..).zip(&files) {
        let key = if ino % 2 == 0 {
            upper_key(ino)
        } else {
            key(ino)
        };
        assert_eq!(table.find(&key).unwrap().id, node.id);
        assert_eq!(table.get(node.id).unwrap().id, node.id);
    }
    for (i, node) in linked.iter().enumerate() {
        assert_eq!(table.find(&alias(&format!("n{i}"))).unwrap().id, node.id);
    }
    drop((files, linked));
    assert!(table.is_empty());
    assert!(table.by_key.iter().all(|shard| shard.lock().is_empty()));
}

#[test]
fn an_inode_of_a_lower_file_is_small() {
    // 100,000 of them and what else they take are to fit into 25 MiB (docs/performance.md).
    assert!(
        size_of::<crate::inode::Inode>() <= 120,
        "{}",
        size_of::<crate::inode::Inode>()
    );
}
