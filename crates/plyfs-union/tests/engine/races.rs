//! Two or more threads at one thing, each pair of steps that once went wrong or easily could.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plyfs_testkit::need_root;
use plyfs_union::NodeId;

use crate::client::Client;
use crate::world::World;

const THREADS: usize = 8;

#[test]
fn attributes_are_never_those_of_another() {
    need_root!();
    let world = World::new("lower: /d/f=lower /d/g=1 mode=601 | upper:");
    let union = world.open();
    let end = Instant::now() + Duration::from_secs(2);
    let held = parking_lot::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    let Some(held) = held.lock().clone() else {
                        continue;
                    };
                    let held: Arc<crate::client::Held> = held;
                    let attr = union.getattr(held.id).unwrap();
                    assert_eq!(attr.mode, 0o100_640, "{attr:?}");
                    assert_eq!(union.getxattr(held.id, b"user.k").unwrap(), b"mine");
                }
            });
        }
        let mut client = Client::new(Arc::clone(&union));
        for round in 0.. {
            if Instant::now() >= end {
                break;
            }
            client.act(&["write", "/d/f", "x"]).unwrap();
            client.act(&["chmod", "640", "/d/f"]).unwrap();
            client.act(&["setx", "/d/f", "user.k", "mine"]).unwrap();
            *held.lock() = Some(client.node("/d/f").unwrap());
            match round % 3 {
                0 => client.act(&["rm", "/d/f"]).unwrap(),
                1 => {
                    client.act(&["write", "/d/new", "y"]).unwrap();
                    client.act(&["mv", "/d/new", "/d/f"]).unwrap();
                }
                _ => client.act(&["xchg", "/d/f", "/d/g"]).unwrap(),
            }
            if round % 3 == 2 {
                client.act(&["xchg", "/d/f", "/d/g"]).unwrap();
            }
            client.act(&["rm", "/d/f"]).ok();
        }
        *held.lock() = None;
    });
    world.verify(&union);
}

#[test]
fn a_held_file_survives_the_loss_of_two_names_at_once() {
    need_root!();
    let world = World::new("lower: /a/x=1 /b/x=1 | upper:");
    let union = world.open();
    let end = Instant::now() + Duration::from_secs(2);
    let mut client = Client::new(Arc::clone(&union));
    let barrier = std::sync::Barrier::new(2);
    while Instant::now() < end {
        client.act(&["write", "/a/f", "data"]).unwrap();
        client.act(&["ln", "/a/f", "/b/f"]).unwrap();
        let held = client.node("/a/f").unwrap();
        std::thread::scope(|scope| {
            for path in ["/a/f", "/b/f"] {
                let (union, barrier) = (&union, &barrier);
                scope.spawn(move || {
                    let mut client = Client::new(Arc::clone(union));
                    client.alone = false;
                    barrier.wait();
                    client.act(&["rm", path]).unwrap();
                });
            }
        });
        let attr = union.getattr(held.id).map_err(|e| e.to_string());
        assert_eq!(attr.map(|a| a.nlink), Ok(0));
    }
    drop(client);
    world.verify(&union);
}

#[test]
fn a_redirect_says_where_the_lowers_have_it_whatever_moves_meanwhile() {
    need_root!();
    let end = Instant::now() + Duration::from_secs(1);
    let dirs: String = (0..12).map(|i| format!("/a/s/d{i}/f={i} ")).collect();
    while Instant::now() < end {
        let world = World::new_in(
            &crate::world::memory(),
            &format!("lower: {dirs} /q/x=1 | upper:"),
        );
        let union = world.open();
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            // Not even the VFS holds these two apart: one stays within its directory.
            scope.spawn(|| {
                let mut client = Client::new(Arc::clone(&union));
                client.act(&["chmod", "700", "/a"]).unwrap();
                barrier.wait();
                client.act(&["mv", "/a", "/b"]).unwrap();
            });
            let mut client = Client::new(Arc::clone(&union));
            client.act(&["hold", "s", "/a/s"]).unwrap();
            barrier.wait();
            for i in 0..12 {
                let (from, to) = (format!("@s/d{i}"), format!("/q/d{i}"));
                client.act(&["mv", &from, &to]).unwrap();
            }
        });
        let client = Client::new(world.open());
        for i in 0..12 {
            let text = client.read(&format!("/q/d{i}/f"));
            assert_eq!(text, Ok(i.to_string().into_bytes()), "/q/d{i}/f");
        }
    }
}

/// Two operations at once on a lower file, again and again, and what must be there afterwards.
fn at_once(first: [&'static str; 4], second: [&'static str; 4], wanted: &[u8]) {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        let layers = "lower: /d/f=data | upper: | opts: metacopy";
        let world = World::new_in(&crate::world::memory(), layers);
        let union = world.open();
        let (barrier, kept) = (std::sync::Barrier::new(2), Client::new(Arc::clone(&union)));
        let _kept = kept.node("/d/f").unwrap();
        std::thread::scope(|scope| {
            for words in [first, second] {
                let (union, barrier) = (&union, &barrier);
                scope.spawn(move || {
                    let mut client = Client::new(Arc::clone(union));
                    client.alone = false;
                    let words: Vec<_> = words.into_iter().filter(|w| !w.is_empty()).collect();
                    barrier.wait();
                    client.act(&words).unwrap();
                });
            }
        });
        for client in [kept, Client::new(world.open())] {
            for name in client.union.names(client.node("/d").unwrap().id).unwrap() {
                let path = format!("/d/{}", name.escape_ascii());
                assert_eq!(
                    client.read(&path).unwrap(),
                    wanted,
                    "{first:?} {second:?} {path}"
                );
            }
        }
    }
}

#[test]
fn a_write_that_meets_a_copy_up_of_attributes_alone() {
    need_root!();
    at_once(
        ["chmod", "600", "/d/f", ""],
        ["put", "/d/f", "4", "+"],
        b"data+",
    );
    at_once(
        ["chmod", "600", "/d/f", ""],
        ["trunc", "/d/f", "2", ""],
        b"da",
    );
    at_once(
        ["chmod", "600", "/d/f", ""],
        ["ln", "/d/f", "/d/g", ""],
        b"data",
    );
    at_once(
        ["touch", "/d/f", "9", ""],
        ["alloc", "/d/f", "0", "4"],
        b"data",
    );
}

#[test]
fn copy_up_happens_once_however_many_ask() {
    need_root!();
    for round in 0..20 {
        let world = World::new("lower: /d/e/f=@100000 | upper:");
        let union = world.open();
        std::thread::scope(|scope| {
            for i in 0..THREADS {
                let union = &union;
                scope.spawn(move || {
                    let mut client = Client::new(Arc::clone(union));
                    let at = (100_000 + i).to_string();
                    client.act(&["put", "/d/e/f", &at, "x"]).unwrap();
                });
            }
        });
        let client = Client::new(Arc::clone(&union));
        let data = client.read("/d/e/f").unwrap();
        assert_eq!(data.len(), 100_000 + THREADS, "round {round}");
        assert!(data[100_000..].iter().all(|b| *b == b'x'), "round {round}");
        drop(client);
        world.verify(&union);
    }
}

#[test]
fn readers_never_see_half_a_copy_up() {
    need_root!();
    let world = World::new("lower: /f=@200000 mode=640 own=3:4 x:user.k=v | upper:");
    let union = world.open();
    let done = AtomicBool::new(false);
    let whole = crate::text::content_of("@200000");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let client = Client::new(Arc::clone(&union));
                while !done.load(Ordering::Acquire) {
                    let attr = client.attr("/f").unwrap();
                    assert_eq!((attr.size, attr.uid, attr.gid), (200_000, 3, 4));
                    let f = client.node("/f").unwrap();
                    let mut buf = vec![0; 200_000];
                    assert_eq!(union.read(f.id, 0, &mut buf).unwrap(), 200_000);
                    assert!(buf[1..] == whole[1..], "half a copy");
                    assert_eq!(union.getxattr(f.id, b"user.k").unwrap(), b"v");
                }
            });
        }
        let mut client = Client::new(Arc::clone(&union));
        for mode in ["600", "640"] {
            client.act(&["chmod", mode, "/f"]).unwrap();
        }
        client.act(&["put", "/f", "0", "x"]).unwrap();
        done.store(true, Ordering::Release);
    });
    world.verify(&union);
}

#[test]
fn forget_races_with_lookup() {
    need_root!();
    let world = World::new("lower: /d/f=1 /d/g=1 | upper: /d/h=0");
    let union = world.open();
    let end = Instant::now() + Duration::from_secs(1);
    std::thread::scope(|scope| {
        for i in 0..THREADS {
            let union = &union;
            scope.spawn(move || {
                let client = Client::new(Arc::clone(union));
                let path = ["/d/f", "/d/g", "/d/h"][i % 3];
                while Instant::now() < end {
                    // Two counts at once, given back in one call.
                    let d = union.lookup(NodeId::ROOT, b"d").unwrap().unwrap();
                    let e = union.lookup(NodeId::ROOT, b"d").unwrap().unwrap();
                    let (d, e) = (d.node, e.node);
                    assert_eq!(d.id, e.id);
                    let id = d.id;
                    d.leak();
                    e.leak();
                    client.attr(path).unwrap();
                    union.forget(id, 2);
                }
            });
        }
    });
    world.verify(&union);
}
