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
