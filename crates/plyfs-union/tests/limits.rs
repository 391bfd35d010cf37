//! What the engine holds on to: descriptors, inodes, stack. A program of its own, as descriptors
//! are counted by process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use plyfs_testkit::need_root;
use std::path::Path;
use std::sync::Arc;

use plyfs_layer::LayerRoot;
use plyfs_sys::stat::Kind;
use plyfs_union::{
    Caller, Cookie, Flow, Make, NodeId, SetAttr, Union, UnionConfig, UnionOptions, UpperRoots,
};

/// Descriptors the process has open, the one that lists them included.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new(lower: &str) -> Self {
        Self::new_in(&plyfs_testkit::scratch_base(), lower)
    }

    /// In memory where that can carry an upper: it makes thousands of inodes at once.
    fn in_memory(lower: &str) -> Self {
        let shm = Path::new("/dev/shm");
        let probe = tempfile::tempdir_in(shm);
        let carries = probe.is_ok_and(|d| xattr::set(d.path(), "trusted.overlay.x", b"y").is_ok());
        if carries {
            Self::new_in(shm, lower)
        } else {
            Self::new(lower)
        }
    }

    fn new_in(base: &Path, lower: &str) -> Self {
        let dir = tempfile::tempdir_in(base).unwrap();
        plyfs_testkit::plant(dir.path(), "d upper\nd work\nd lower");
        plyfs_testkit::plant(&dir.path().join("lower"), lower);
        Self { dir }
    }

    fn open(&self, fd_budget: usize) -> Arc<Union> {
        let root = |path: &Path| LayerRoot::open(path).unwrap();
        let at = |name: &str| root(&self.dir.path().join(name));
        Union::open(UnionConfig {
            lowers: vec![at("lower")],
            data_only: Vec::new(),
            upper: Some(UpperRoots {
                upper: at("upper"),
                work: at("work"),
            }),
            options: UnionOptions {
                fd_budget,
                ..UnionOptions::default()
            },
        })
        .unwrap()
    }
}

/// A lookup as the kernel makes it: the count stays until it is forgotten.
fn look(union: &Union, dir: NodeId, name: &str) -> NodeId {
    let entry = union.lookup(dir, name.as_bytes()).unwrap().unwrap();
    let id = entry.node.id;
    entry.node.leak();
    id
}

fn make(union: &Union, dir: NodeId, name: &str, make: Make<'_>) -> NodeId {
    let entry = union
        .make(&Caller::ROOT, dir, name.as_bytes(), make)
        .unwrap();
    let id = entry.node.id;
    entry.node.leak();
    id
}

const FILE: Make<'_> = Make::Node(0o100_644, (0, 0));

/// Tests that count descriptors take turns.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn nothing_is_held_for_longer_than_it_is_needed() {
    need_root!();
    let _alone = ALONE.lock();
    let before = open_descriptors();
    descriptors_stay_within_the_budget();
    held_files_that_lost_their_names_cost_one_descriptor();
    assert_eq!(open_descriptors(), before, "descriptors outlive the view");
    failed_operations_leave_nothing_open();
    assert_eq!(
        open_descriptors(),
        before,
        "descriptors outlive failed operations"
    );
}

fn descriptors_stay_within_the_budget() {
    let lines: Vec<_> = (0..400).map(|i| format!("f d{i}/s/f = {i}")).collect();
    let world = World::new(&lines.join("\n"));
    let before = open_descriptors();
    let union = world.open(64);
    let base = open_descriptors() - before;
    let mut known = Vec::new();
    for i in 0..400 {
        let d = look(&union, NodeId::ROOT, &format!("d{i}"));
        let s = look(&union, d, "s");
        let f = look(&union, s, "f");
        let mut buf = [0; 8];
        union.read(f, 0, &mut buf).unwrap();
        if i % 2 == 0 {
            union.write(&Caller::ROOT, f, 0, b"x").unwrap();
        }
        union.readdir(s, Cookie(0), |_| Flow::Continue(())).unwrap();
        known.extend([d, s, f]);
    }
    let most = open_descriptors() - before;
    assert!(
        most <= base + 64,
        "{most} descriptors are open, {base} of them from the beginning"
    );
    assert_eq!(union.known_inodes(), 1201);
    // In the order of the kernel: children first, here mixed.
    for id in known
        .iter()
        .step_by(2)
        .chain(known.iter().skip(1).step_by(2))
    {
        union.forget(*id, 1);
    }
    assert_eq!(union.known_inodes(), 1);
    union.close().unwrap();
}

fn held_files_that_lost_their_names_cost_one_descriptor() {
    let world = World::new("f x = 1");
    let union = world.open(16);
    let before = open_descriptors();
    let mut held = Vec::new();
    for i in 0..100 {
        let name = format!("f{i}");
        held.push(make(&union, NodeId::ROOT, &name, FILE));
        union
            .write(&Caller::ROOT, held[i], 0, name.as_bytes())
            .unwrap();
        union.unlink(NodeId::ROOT, name.as_bytes()).unwrap();
    }
    let now = open_descriptors();
    assert!(now <= before + 100 + 16, "{} for 100 files", now - before);
    for (i, id) in held.iter().enumerate() {
        let mut buf = [0; 8];
        let n = union.read(*id, 0, &mut buf).unwrap();
        assert_eq!(&buf[..n], format!("f{i}").as_bytes());
        assert_eq!(union.getattr(*id).unwrap().nlink, 0);
    }
    for id in held {
        union.forget(id, 1);
    }
    let now = open_descriptors();
    assert!(now <= before + 16, "{} stay open", now - before);
    assert_eq!(union.known_inodes(), 1);
    union.close().unwrap();
}

fn failed_operations_leave_nothing_open() {
    let world = World::new("f d/f = 1\nf e/x = 1");
    let union = world.open(4);
    let d = look(&union, NodeId::ROOT, "d");
    let warm = |n: usize| {
        for _ in 0..n {
            let make = union.make(&Caller::ROOT, d, b"f", Make::Dir(0o755));
            make.unwrap_err();
            union.rmdir(NodeId::ROOT, b"e").unwrap_err();
            union.unlink(NodeId::ROOT, b"e").unwrap_err();
            let flags = plyfs_sys::make::Rename::empty();
            union
                .rename(NodeId::ROOT, b"d", NodeId::ROOT, b"x", flags)
                .unwrap_err();
            let size = SetAttr {
                size: Some(1),
                ..SetAttr::default()
            };
            union.setattr(&Caller::ROOT, d, &size).unwrap_err();
            let long = [b'n'; 256];
            union.lookup(d, &long).unwrap_err();
        }
    };
    warm(10);
    let before = open_descriptors();
    warm(200);
    assert_eq!(open_descriptors(), before);
    union.forget(d, 1);
    assert_eq!(union.known_inodes(), 1);
    union.close().unwrap();
}

/// How deep a tree a user can make, step by step, with paths that stay short.
const DEPTH: usize = 30_000;

/// A user who walks down for ever must not take the daemon along.
#[test]
fn a_tree_without_end_overflows_no_stack() {
    need_root!();
    let _alone = ALONE.lock();
    let world = World::in_memory("f x = 1");
    let union = world.open(1024);
    let mut chain = vec![NodeId::ROOT];
    for _ in 0..DEPTH {
        let dir = *chain.last().unwrap();
        chain.push(make(&union, dir, "d", Make::Dir(0o755)));
    }
    let deepest = *chain.last().unwrap();
    for i in 0..1200 {
        // Others use the descriptor cache too.
        let dir = make(&union, NodeId::ROOT, &format!("e{i}"), Make::Dir(0o755));
        union
            .readdir(dir, Cookie(0), |_| Flow::Continue(()))
            .unwrap();
        union.forget(dir, 1);
    }
    // Worker threads have the stack that Rust gives them.
    let reached = std::thread::spawn({
        let union = Arc::clone(&union);
        move || union.getattr(deepest).map(|a| a.nlink)
    });
    assert_eq!(reached.join().unwrap().unwrap(), 2);
    for pair in chain.windows(2).rev() {
        union.rmdir(pair[0], b"d").unwrap();
        union.forget(pair[1], 1);
    }
    assert_eq!(union.known_inodes(), 1);
}

/// The kernel forgets nothing when a mount ends.
#[test]
fn a_view_that_ends_with_known_inodes_closes_its_descriptors() {
    need_root!();
    let _alone = ALONE.lock();
    let before = open_descriptors();
    let world = World::new("f d/f = 1");
    let union = world.open(64);
    let d = look(&union, NodeId::ROOT, "d");
    let f = make(&union, d, "new", FILE);
    union.unlink(d, b"new").unwrap();
    union.getattr(f).unwrap();
    assert_eq!(Kind::from_mode(union.getattr(d).unwrap().mode), Kind::Dir);
    drop(union);
    assert_eq!(
        open_descriptors(),
        before,
        "descriptors outlive a view with known inodes"
    );
}

/// What `plyfs status` shows is counted where it happens.
#[test]
fn figures_follow_the_work() {
    need_root!();
    let world = World::in_memory(&format!("f d/e/big = {}\nf d/small = 12", "x".repeat(5000)));
    let union = world.open(256);
    let before = union.stats();
    assert_eq!((before.inodes, before.copied_files), (1, 0));
    let d = look(&union, NodeId::ROOT, "d");
    let e = look(&union, d, "e");
    let big = look(&union, e, "big");
    assert_eq!(union.path_of(big).as_deref(), Some(&b"/d/e/big"[..]));
    assert_eq!(union.path_of(NodeId::ROOT).as_deref(), Some(&b"/"[..]));
    assert_eq!(union.path_of(NodeId(99)), None);
    let fresh = make(&union, e, "fresh", Make::Node(0o100644, (0, 0)));
    assert_eq!(union.path_of(fresh).as_deref(), Some(&b"/d/e/fresh"[..]));
    union.write(&Caller::ROOT, big, 0, b"y").unwrap();
    let after = union.stats();
    assert_eq!(union.path_of(big).as_deref(), Some(&b"/d/e/big"[..]));
    assert_eq!(after.inodes, 5);
    assert!(after.references >= 5, "{after:?}");
    assert_eq!((after.copied_files, after.copied_bytes), (1, 5000));
    assert_eq!(after.copying, []);
    let served = |name: &str| after.caches.iter().find(|c| c.name == name).unwrap();
    // The one that was written, and the one that was made, which mostly is written next.
    assert_eq!(served("open files").entries, 2);
    assert!(served("directories").entries > 0);
    assert_eq!(served("lower listings").bytes.map(|b| b > 0), Some(true));
    union.unlink(e, b"big").unwrap();
    assert_eq!(union.path_of(big), None);
}
