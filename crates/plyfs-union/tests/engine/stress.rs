//! Threads that do random things to a small tree, with the locks a VFS holds and without.
//!
//! Nothing may panic or stop, and afterwards the view is what another view over the same layers
//! shows. `PLYFS_STRESS_SECONDS` says for how long (default 3 for each test).
use plyfs_testkit::need_root;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plyfs_sys::Errno;
use plyfs_union::{Cookie, Flow, NodeId, Union};

use crate::client::Client;
use crate::world::World;

const THREADS: usize = 8;
const LAYERS: &str = "lower: /a/f=1 /a/g=1 /a/s/f=1 /b/f=1 /f=1 /g=@9000 | lower: /a/h=2 /b/s/h=2 /c/f=2 /h=5 \
     | lower: /a/s/d/f=3 /c/s/f=3 wh /f | upper: /d/f=0 /b/g=0 /e=0";

/// xorshift: what a thread does depends on its seed alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        let names = (0..depth).map(|i| match i {
            0 => self.pick(&["a", "b", "c", "d", "f", "g"]),
            _ => self.pick(&["s", "d", "f", "g", "h"]),
        });
        let names: Vec<_> = names.collect();
        format!("/{}", names.join("/"))
    }

    fn op(&mut self) -> Vec<String> {
        let (a, b) = (self.path(), self.path());
        let words: Vec<&str> = match self.roll(24) {
            0 | 1 => vec!["mkdir", &a],
            2 => vec!["create", &a],
            3 | 4 => vec!["rm", &a],
            5 => vec!["rmdir", &a],
            6..=8 => vec!["mv", &a, &b],
            9 => vec!["mvn", &a, &b],
            10 => vec!["xchg", &a, &b],
            11 => vec!["ln", &a, &b],
            12 | 13 => vec!["append", &a, "x"],
            14 => vec!["write", &a, "yy"],
            15 => vec!["chmod", "711", &a],
            16 => vec!["trunc", &a, "3"],
            17 => vec!["sym", "t", &a],
            18 => vec!["setx", &a, "user.k", "v"],
            19 => vec!["hold", "h", &a],
            20 => vec!["append", "@h", "z"],
            21 => vec!["chmod", "600", "@h"],
            22 => vec!["fsync", "@h"],
            _ => vec!["stat", &a],
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

/// One thread's work until `end`.
fn work(union: &Arc<Union>, seed: u64, end: Instant, steps: &AtomicU64, vfs: Option<&Vfs>) {
    let mut client = Client::new(Arc::clone(union));
    client.alone = false;
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    while Instant::now() < end {
        let op = dice.op();
        let words: Vec<&str> = op.iter().map(String::as_str).collect();
        if words.contains(&"@h") && !client.held.contains_key("h") {
            continue;
        }
        steps.fetch_add(1, Ordering::Relaxed);
        if dice.roll(16) == 0 {
            list(&client, &dice.path());
            continue;
        }
        if dice.roll(100) == 0 {
            purge(
                &client,
                NodeId::ROOT,
                dice.pick(&["a", "b", "c", "d"]).as_bytes(),
                0,
            );
            continue;
        }
        let _renames = vfs.filter(|_| moves_far(&words)).map(|v| v.renames.lock());
        if _renames.is_some() && is_loop(&client, words[1], words[2]) {
            continue;
        }
        if let Err(e) = client.act(&words) {
            assert!(is_expected(e), "{words:?}: {e:?}");
        }
    }
}

/// What a program may get when others work beside it; ESTALE and EIO are not among it.
fn is_expected(e: Errno) -> bool {
    matches!(
        e,
        Errno::ENOENT
            | Errno::EEXIST
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ENOTEMPTY
            | Errno::EPERM
            | Errno::EINVAL
            | Errno::ELOOP
            | Errno::EOPNOTSUPP
            | Errno::EXDEV
    )
}

/// `rm -rf`, while others work there; also what keeps moved trees from growing without end.
fn purge(client: &Client, dir: NodeId, name: &[u8], depth: usize) {
    let Ok(Some(entry)) = client.union.lookup(dir, name) else {
        return;
    };
    let node = client.hold(entry);
    if client.union.unlink(dir, name).is_ok() || depth > 100 {
        return;
    }
    for child in client.union.names(node.id).unwrap_or_default() {
        purge(client, node.id, &child, depth + 1);
    }
    if let Err(e) = client.union.rmdir(dir, name).map_err(|e| e.errno()) {
        assert!(is_expected(e), "rmdir of what was emptied: {e:?}");
    }
}

/// Lists a directory with readdir_plus, keeping some of what comes.
fn list(client: &Client, path: &str) {
    let Ok(dir) = client.node(path) else { return };
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    let listed = client.union.readdir_plus(dir.id, Cookie(0), |e, entry| {
        assert!(seen.insert(e.name.to_vec()), "{path}: a name came twice");
        kept.extend(entry.map(|e| client.hold(e)));
        Flow::Continue(())
    });
    if let Err(e) = listed.map_err(|e| e.errno()) {
        assert!(is_expected(e), "readdir_plus {path}: {e:?}");
    }
}

/// What the VFS adds: one rename between directories at a time, and none into itself.
#[derive(Default)]
struct Vfs {
    renames: parking_lot::Mutex<()>,
}

fn moves_far(words: &[&str]) -> bool {
    match *words {
        ["mv" | "mvn" | "xchg", a, b] => {
            a.rsplit_once('/').map(|x| x.0) != b.rsplit_once('/').map(|x| x.0)
        }
        _ => false,
    }
}

fn is_loop(client: &Client, a: &str, b: &str) -> bool {
    let starts = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|r| r.starts_with('/'));
    starts(a, b) || starts(b, a) || client.node(a).is_err()
}

/// Runs the threads over `layers` and then proves that the layers hold what the view shows.
fn stress(layers: &str, with_vfs: bool) {
    need_root!();
    let seconds = std::env::var("PLYFS_STRESS_SECONDS").unwrap_or_default();
    let seconds = seconds.parse().unwrap_or(3);
    let world = World::new(layers);
    let union = world.open();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (steps, vfs, over) = (AtomicU64::new(0), Vfs::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&steps, &over, end));
        let workers: Vec<_> = (0..THREADS as u64)
            .map(|i| {
                let (union, steps, vfs) = (&union, &steps, with_vfs.then_some(&vfs));
                scope.spawn(move || work(union, i + 1, end, steps, vfs))
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        over.store(true, Ordering::Release);
        for result in results {
            result.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        }
    });
    eprintln!("{} operations", steps.load(Ordering::Relaxed));
    world.verify(&union);
}

/// Ends the process when nothing has moved for a while: a deadlock would hang the run for ever.
fn watch(steps: &AtomicU64, over: &AtomicBool, end: Instant) {
    let mut last = (steps.load(Ordering::Relaxed), Instant::now());
    while !over.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
        let now = steps.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(30) {
            let late = Instant::now() > end;
            eprintln!("stress: no thread has moved for 30 s (after the end: {late}); deadlock");
            std::process::abort();
        }
    }
}

#[test]
fn eight_threads_as_the_vfs_lets_them() {
    stress(LAYERS, true);
}

#[test]
fn eight_threads_with_tiny_caches() {
    stress(&format!("{LAYERS} | opts: fds=1 cache=1"), true);
}

#[test]
fn eight_threads_with_metacopy() {
    stress(&format!("{LAYERS} | opts: metacopy"), true);
}

#[test]
fn eight_threads_without_redirects() {
    stress(&format!("{LAYERS} | opts: redirect=follow"), true);
}

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
#[ignore = "bug: two last names that go at once leave no pin (engine-bugs.md 10)"]
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
