use std::os::fd::AsFd;
use std::sync::Arc;

use plyfs_layer::LayerIdx;
use plyfs_sys::shared::Shared;
use plyfs_sys::stat::{Kind, LayerIno, Time};
use plyfs_sys::{Name, NameBuf};

use super::slots::slot_of;
use super::{Intent, Journal, Keep, Mover, NewSlot, Request, TOTAL};
use crate::inode::NodeId;

fn begin() -> Arc<Journal> {
    Journal::begin(Journal::memory().unwrap())
}

/// What the next daemon sees of the memory, on a thread of its own as threads have records.
fn next<T: Send>(journal: &Journal, look: impl FnOnce(&Journal) -> T + Send) -> T {
    let fd = journal.memory_fd().as_fd().try_clone_to_owned().unwrap();
    let next = Journal::take_over(Shared::map(fd, TOTAL).unwrap()).unwrap();
    std::thread::scope(|s| s.spawn(|| look(&next)).join().unwrap())
}

fn name(text: &str) -> NameBuf {
    Name::new(text.as_bytes()).unwrap().to_owned()
}

fn add(journal: &Journal, at: Option<(NodeId, &str)>, ino: u64) -> NodeId {
    let at = at.map(|(dir, text)| (dir, name(text)));
    let new = NewSlot {
        kind: Kind::File,
        layer: LayerIdx(1),
        id: LayerIno { dev: 1, ino },
        st_ino: ino,
        at: at.as_ref().map(|(dir, name)| (*dir, &**name)),
    };
    journal.add(&new).unwrap()
}

#[test]
fn the_root_is_number_one_and_no_number_comes_twice() {
    let journal = begin();
    let root = add(&journal, None, 1);
    assert_eq!(root, NodeId::ROOT);
    let first = add(&journal, Some((root, "a")), 2);
    assert_eq!(journal.remove(first), Some(root));
    let second = add(&journal, Some((root, "b")), 3);
    assert_eq!(slot_of(first), slot_of(second), "slots are used again");
    assert_ne!(first, second);
    assert_eq!(journal.remove(first), None, "an old number means nothing");
    assert!(journal.is_at(second, root, &name("b")));
    let third = next(&journal, |next| {
        assert_eq!(next.remove(second), Some(root));
        add(next, Some((NodeId::ROOT, "c")), 4)
    });
    assert!(third != first && third != second);
}

#[test]
fn the_next_daemon_sees_what_was_noted() {
    let journal = begin();
    let root = add(&journal, None, 1);
    let long = "x".repeat(255);
    let node = add(&journal, Some((root, &long)), 2);
    let time = Time { sec: -1, nsec: 7 };
    journal.keep_mtime(node, Some(time));
    journal.pin(node, Some(5));
    journal.keep(Keep::Lower, [9, 8]);
    journal.keep_hello(b"hello, daemon");
    next(&journal, |next| {
        let facts = next.facts(slot_of(node)).unwrap();
        assert_eq!((facts.node, facts.kind), (node, Kind::File));
        assert_eq!(facts.name.unwrap().as_bytes(), long.as_bytes());
        assert_eq!((facts.mtime, facts.pin), (Some(time), Some(5)));
        assert!(!facts.upper && !facts.removed && !facts.rising);
        let kept: Vec<i32> = next.kept().iter().map(|k| k.number).collect();
        assert_eq!(kept, [9, 8]);
        assert_eq!(next.hello(), b"hello, daemon");
        // Names that are in use are not written over.
        for i in 0..200 {
            add(next, Some((NodeId::ROOT, &format!("{i}"))), 10 + i);
        }
        let name = next.facts(slot_of(node)).unwrap().name.unwrap();
        assert_eq!(name.as_bytes(), long.as_bytes());
    });
}

#[test]
fn a_copy_up_and_a_removal_are_told_apart() {
    let journal = begin();
    let root = add(&journal, None, 1);
    let node = add(&journal, Some((root, "f")), 2);
    journal.loses_name(node);
    journal.rise(node, LayerIno { dev: 3, ino: 4 }, 5, None);
    next(&journal, |next| {
        let facts = next.facts(slot_of(node)).unwrap();
        assert!(facts.upper && facts.removed && facts.untold && !facts.rising);
        assert_eq!((facts.id.ino, facts.st_ino), (4, 5));
        next.told(node);
        assert!(!next.facts(slot_of(node)).unwrap().untold);
    });
}

#[test]
fn what_was_counted_for_a_lost_reply_is_given_back() {
    const AGAIN: u64 = 1 << 63;
    let journal = begin();
    let root = add(&journal, None, 1);
    let node = add(&journal, Some((root, "f")), 2);
    let lookups = |j: &Journal| j.facts(slot_of(node)).unwrap().lookups;
    let (ticket, request, _) = journal.begin_request(7);
    assert_eq!(request, Request::Fresh);
    ticket.count(node);
    std::mem::forget(ticket);
    assert_eq!(lookups(&journal), 1);
    next(&journal, |next| {
        let (ticket, request, counted) = next.begin_request(7 | AGAIN);
        assert_eq!((request, counted), (Request::Again, vec![node]));
        // Dies again, before it counts anything.
        std::mem::forget(ticket);
    });
    next(&journal, |next| {
        let (ticket, _, counted) = next.begin_request(7 | AGAIN);
        assert!(counted.is_empty(), "given back twice");
        drop(ticket);
        assert_eq!(next.in_progress(), 0);
    });
}

#[test]
fn an_intention_survives_more_than_one_death() {
    const AGAIN: u64 = 1 << 63;
    let journal = begin();
    let root = add(&journal, None, 1);
    let node = add(&journal, Some((root, "old")), 2);
    let (ticket, ..) = journal.begin_request(7);
    let to = journal.new_link(root, &name("new")).unwrap();
    let mover = Mover {
        slot: slot_of(node),
        to,
        follows: true,
    };
    journal.intend(Intent::Move(mover, None));
    std::mem::forget(ticket);
    next(&journal, |next| {
        let moves = next.moves();
        assert_eq!(moves[0].1, Intent::Move(mover, None));
        assert_eq!(next.name_of(to).unwrap().as_bytes(), b"new");
        next.settle_move(moves[0].0, true);
        let (ticket, ..) = next.begin_request(7 | AGAIN);
        std::mem::forget(ticket);
    });
    next(&journal, |next| {
        let (ticket, ..) = next.begin_request(7 | AGAIN);
        assert_eq!(next.intent(), Intent::Moved);
        drop(ticket);
        let (ticket, ..) = next.begin_request(8);
        assert_eq!(next.intent(), Intent::None);
        drop(ticket);
    });
}

#[test]
fn a_request_that_crashes_every_daemon_is_refused() {
    const AGAIN: u64 = 1 << 63;
    let journal = begin();
    std::mem::forget(journal.begin_request(7).0);
    let seen: Vec<Request> = (0..4)
        .map(|_| {
            super::Outlook(&journal.shared).has_crashed(true);
            next(&journal, |next| {
                let (ticket, request, _) = next.begin_request(7 | AGAIN);
                std::mem::forget(ticket);
                request
            })
        })
        .collect();
    let wanted = [Request::Again, Request::Again, Request::Crasher];
    assert_eq!(seen[..3], wanted);
}

#[test]
fn memory_of_another_version_is_not_taken_over() {
    let journal = begin();
    journal.set(super::header::VERSION_AT, super::VERSION + 1);
    let fd = journal.memory_fd().try_clone_to_owned().unwrap();
    assert!(Journal::take_over(Shared::map(fd, TOTAL).unwrap()).is_err());
}
