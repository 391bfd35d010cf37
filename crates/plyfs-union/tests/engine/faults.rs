//! Every operation, with a fault at each of its system calls: the process dies there, or the call
//! fails. The tree is then the one before the operation or the one after it, in the view that saw
//! the fault as in one opened anew; the workdir is empty, and no lower has changed.
//!
//! `PLYFS_FAULTS=SUBSTRING` runs the operations that contain it and tells every fault.
use std::panic::{AssertUnwindSafe, catch_unwind};

use plyfs_sys::Errno;
use plyfs_sys::faults::{Fault, arm};
use plyfs_sys::stat::Kind;
use plyfs_testkit::need_root;

use crate::client::Client;
use crate::ops;
use crate::view::{self, Strict, View, differences};
use crate::world::{World, memory};

/// Lower files, links, directories that merge and that do not, whiteouts, an upper of its own.
const LAYERS: &str = "lower: /f=lower x:user.a=1 mode=4755 own=5:6, /g=second, /h1=linked, \
    /h2==/h1, /l->f, fifo /p, /d/a=1, /d/b=2, /d/deep/er/x=3, /e/only=4, /gone=5, /gd/z=6, /big=@9000 \
    | lower: /d/c=7, /d/deep/y=8, /m/n=9, /gone2=0 \
    | upper: /u=upper, /ud/v=1, /d/up=2, wh /gone, wh /gd, wh /m/n, /m/own=1";

/// New names: free, over a whiteout, in a directory that is not in the upper yet. What is done is one
/// step each; `PREPARE => OP` prepares without faults.
const NEW: &[&str] = &[
    "create /new",
    "create /gone",
    "create /d/deep/er/new",
    "mkdir /new",
    "mkdir /gd",
    "mkdir /d/deep/new",
    "sym target /new",
    "sym target /gone",
    "fifo /gone",
    "ln /f /new",
    "ln /h1 /d/h3",
    "ln /u /gone",
    "ln /l /new",
];

/// Names that go.
const GONE: &[&str] = &[
    "rm /u",
    "rm /f",
    "rm /h1",
    "rm /d/a",
    "rm /e/only",
    "append /f x => rm /f",
    "append /h1 x => rm /h2",
    "rm /m/own => rmdir /m",
    "rm /ud/v => rmdir /ud",
    "rm /e/only => rmdir /e",
];

/// Copy-up by every change.
const CHANGED: &[&str] = &[
    "append /f more",
    "put /d/deep/er/x 0 X",
    "put /big 8000 X",
    "append /h1 more",
    "trunc /f 2",
    "trunc /f 0",
    "punch /big 0 4096",
    "alloc /f 0 100",
    "copy /g /f 3",
    "chmod 600 /f",
    "chmod 700 /d/deep",
    "chmod 600 /p",
    "chown 1:2 /f",
    "chown 1:2 /l",
    "touch /f 5",
    "setx /f user.b 2",
    "setx /d user.b 2",
    "rmx /f user.a",
    "chattr +a /f",
    // With attributes up already, the data comes later.
    "chmod 600 /f => append /f more",
    "chmod 600 /f => trunc /f 1",
    "chmod 600 /f => ln /f /new",
    "chmod 600 /f => mv /f /ud/f",
    "chmod 600 /f => rm /f",
];

/// Of a lower, merged or upper object, to a free name, over something, over a whiteout.
const RENAMED: &[&str] = &[
    "mv /f /new",
    "mv /f /g",
    "mv /f /gone",
    "mv /f /u",
    "mv /u /f",
    "mv /u /gone",
    "mv /h1 /new",
    "mv /h1 /g",
    "mv /d/a /ud/a",
    "mv /ud /new",
    "mv /ud /gd",
    "mv /ud /d/ud",
    "mv /d /new",
    "mv /d /ud/d",
    "mv /d /gd",
    "mv /e /d/e",
    "mv /d/deep /e/deep",
    "rm /m/own => mv /ud /m",
    "rm /m/own => mv /d /m",
    "rm /e/only => mv /ud /e",
    "mvn /f /new",
    "xchg /f /g",
    "xchg /f /u",
    "xchg /f /d",
    "xchg /d /e",
    "xchg /ud /u",
    "mv /d /new => mv /new/deep /top",
    "mv /d /new => chmod 700 /new/deep/er",
];

/// Further operations on names that an index keeps together.
const LINKED: &[&str] = &[
    "append /h1 more",
    "chmod 600 /h2",
    "ln /h1 /new",
    "rm /h1",
    "rm /h1 => rm /h2",
    "append /h1 x => rm /h2",
    "append /h1 x; rm /h2 => rm /h1",
    "mv /h1 /new",
    "mv /f /h1",
    "append /h1 x => mv /f /h2",
    "xchg /h1 /f",
];

/// The same where the upper tells deletions by names.
const BY_NAME: &[&str] = &[
    "create /gone",
    "mkdir /gd",
    "sym target /gone",
    "ln /u /gone",
    "rm /f",
    "rm /u",
    "rm /d/a",
    "append /f x => rm /f",
    "rm /e/only => rmdir /e",
    "rm /m/own => rmdir /m",
    "append /f more",
    "chmod 700 /d/deep",
    "mv /f /new",
    "mv /f /g",
    "mv /f /gone",
    "mv /u /f",
    "mv /ud /gd",
    "mv /ud /d/ud",
    "rm /m/own => mv /ud /m",
    "rm /e/only => mv /ud /e",
    "xchg /f /u",
];

struct Scene<'a> {
    layers: String,
    prepare: &'a str,
    op: &'a str,
    loud: bool,
}

impl<'a> Scene<'a> {
    fn new(options: &str, op: &'a str) -> Self {
        let (prepare, op) = op.split_once(" => ").unwrap_or(("", op));
        let mut layers = LAYERS.to_owned();
        if options.contains("own-format") {
            for name in ["/gone", "/gd", "/m/n"] {
                let (dir, name) = name.rsplit_once('/').unwrap_or_default();
                layers = layers.replace(&format!("wh {dir}/{name}"), &format!("{dir}/.wh.{name}="));
            }
            layers = layers.replace("upper:", "upper: /.wh..wh.plyfs=,");
        }
        Self {
            layers: format!("{layers} | opts: {options}"),
            prepare,
            op,
            loud: std::env::var_os("PLYFS_FAULTS").is_some(),
        }
    }

    /// Layers as they are before the operation, and what they show.
    fn set(&self) -> (World, Client, View) {
        let mut world = World::new_in(&memory(), &self.layers);
        world.kernel_knows = false;
        let mut client = Client::new(world.open());
        client.alone = false;
        let by_name = self.layers.contains("own-format");
        assert_eq!(client.union.deletes_by_name(), by_name);
        ops::run(&world, &mut client, self.prepare);
        let before = view::of_union(&client.union);
        (world, client, before)
    }

    /// What the operation makes of it when nothing fails.
    fn after(&self) -> View {
        let (world, mut client, _) = self.set();
        ops::run(&world, &mut client, self.op);
        let after = view::of_union(&client.union);
        client.union.close().unwrap();
        after
    }

    /// How many faults were tried, and how many of them did harm.
    fn run(&self) -> (u64, u64) {
        let after = self.after();
        let stops = self.each(Fault::Stops, |nth| self.stopped(nth, &after));
        // Both mean that there is no room, and are told apart by nobody.
        let full = match self.layers.contains("metacopy") {
            true => Errno::EDQUOT,
            false => Errno::ENOSPC,
        };
        let errnos = [Errno::EIO, full, Errno::EMFILE];
        errnos.into_iter().fold(stops, |sum, errno| {
            let more = self.each(Fault::Fails(errno), |nth| self.failed(errno, nth, &after));
            (sum.0 + more.0, sum.1 + more.1)
        })
    }

    /// Tries the fault at every call, until there are no more. A failure is told and counted.
    fn each(&self, fault: Fault, try_at: impl Fn(u64) -> Option<&'static str>) -> (u64, u64) {
        let mut bad = 0;
        for nth in 0.. {
            match catch_unwind(AssertUnwindSafe(|| try_at(nth))) {
                Ok(Some(call)) if self.loud => eprintln!("{}: {fault:?} at {nth}: {call}", self.op),
                Ok(Some(_)) => {}
                Ok(None) => return (nth, bad),
                Err(_) => {
                    let (prepare, op) = (self.prepare, self.op);
                    eprintln!("^ {prepare:?}, then {op:?}: {fault:?} at call {nth}\n");
                    bad += 1;
                }
            }
        }
        unreachable!("an operation makes a finite number of calls")
    }

    /// The process dies at the call; what a new one finds.
    fn stopped(&self, nth: u64, after: &View) -> Option<&'static str> {
        let (world, mut client, before) = self.set();
        // A view that has everything still to find out makes the most calls.
        client.union = world.open();
        let armed = arm(Fault::Stops, nth);
        act(&mut client, self.op).ok();
        let hit = armed.hit()?;
        drop(client);
        drop(armed);
        let fresh = world.open();
        self.one_of(hit, &view::of_union(&fresh), &before, after);
        fresh.close().unwrap();
        world.verify_disk();
        Some(hit)
    }

    /// The call fails; what the same view shows, a new one, and a second try.
    fn failed(&self, errno: Errno, nth: u64, after: &View) -> Option<&'static str> {
        let (world, mut client, before) = self.set();
        if errno != Errno::EIO {
            client.union = world.open();
        }
        let armed = arm(Fault::Fails(errno), nth);
        let got = act(&mut client, self.op);
        let hit = armed.hit();
        drop(armed);
        let hit = hit?;
        let live = view::of_union(&client.union);
        self.one_of(hit, &live, &before, after);
        match got {
            Ok(()) => assert!(is_same(&live, after), "{hit} failed, the operation did not"),
            Err(e) => assert_eq!(e, errno, "the error of {hit} became another"),
        }
        assert_eq!(client.union.known_inodes(), 1, "inodes nobody knows");
        let fresh = world.open();
        let again = view::of_union(&fresh);
        let lines = differences(&live, &again, Strict::Inodes);
        assert!(lines.is_empty(), "{hit}: the view | a new one:\n{lines}");
        drop(fresh);
        if !is_same(&live, after) {
            act(&mut client, self.op).unwrap_or_else(|e| panic!("{hit}: the second try: {e:?}"));
            let live = view::of_union(&client.union);
            let lines = differences(&plain(after), &plain(&live), Strict::NoInodes);
            assert!(lines.is_empty(), "{hit}: the second try:\n{lines}");
        }
        client.union.close().unwrap();
        if errno != Errno::EIO {
            // Only what cannot be removed may stay for the next mount to remove.
            world.verify_disk();
        }
        world.open().close().unwrap();
        world.verify_disk();
        Some(hit)
    }

    /// What of a view must be as it was, where the operation is not done. As in the kernel, a name of
    /// a lower hard link is a file of its own from its copy-up on, which is a step of its own; while
    /// the data of a metacopy is brought its time is not its own; and a directory is emptied of
    /// whiteouts by putting another in its place, with a number of its own.
    fn plain_before(&self, view: &View) -> View {
        let mut view = plain(view);
        let linked = !self.layers.contains("index");
        let metacopy = self.layers.contains("metacopy");
        for (path, seen) in &mut view {
            if linked && path.starts_with("/h") {
                (seen.ino, seen.nlink) = (0, 1);
            }
            if metacopy && self.prepare.ends_with(path.as_str()) {
                seen.mtime = (0, 0);
            }
            if seen.kind == Kind::Dir && self.prepare.starts_with("rm ") {
                seen.ino = 0;
            }
        }
        view
    }

    /// The tree before the operation, inode numbers and all, or the one after it.
    fn one_of(&self, hit: &str, is: &View, before: &View, after: &View) {
        let lines = differences(
            &self.plain_before(before),
            &self.plain_before(is),
            Strict::Inodes,
        );
        assert!(
            lines.is_empty() || is_same(is, after),
            "{hit}: neither before | is:\n{lines}nor after | is:\n{}",
            differences(&plain(after), &plain(is), Strict::NoInodes)
        );
    }
}

/// Does one or more operations, up to the first that fails.
fn act(client: &mut Client, op: &str) -> Result<(), Errno> {
    op.split(';')
        .try_for_each(|op| client.act(&op.split_whitespace().collect::<Vec<_>>()))
}

fn is_same(a: &View, b: &View) -> bool {
    differences(&plain(a), &plain(b), Strict::NoInodes).is_empty()
}

/// What was planted is old; times that a test gave are "now". The time of a directory is put back
/// by a call of its own after a copy-up into it, as in the kernel, so it proves nothing.
fn plain(view: &View) -> View {
    const OLD: i64 = 1_600_000_000;
    let mut view = view.clone();
    for seen in view.values_mut() {
        if seen.kind == Kind::Dir {
            seen.mtime = (0, 0);
        } else if seen.mtime.0 > OLD {
            seen.mtime = (OLD, 0);
        }
    }
    view
}

fn all(options: &str, ops: &[&str]) {
    need_root!();
    let only = std::env::var("PLYFS_FAULTS").unwrap_or_default();
    let (mut tried, mut bad) = (0, 0);
    for op in ops.iter().filter(|op| op.contains(&only)) {
        let (more, worse) = Scene::new(options, op).run();
        (tried, bad) = (tried + more, bad + worse);
    }
    eprintln!("{tried} faults");
    assert_eq!(bad, 0, "of {tried} faults did harm; each is told above");
}

#[test]
fn faults_in_making_names() {
    all("redirect=on", NEW);
}

#[test]
fn faults_in_removing_names() {
    all("redirect=on", GONE);
}

#[test]
fn faults_in_changes() {
    all("redirect=on", CHANGED);
}

#[test]
fn faults_in_renames() {
    all("redirect=on", RENAMED);
}

#[test]
fn faults_with_metacopy() {
    // What needs the attributes of a lower file, or the data of one whose attributes are up.
    let of_file = |op: &&&str| op.contains(" /f") && !op.contains("/u") && !op.contains("xchg");
    let ops = [NEW, GONE, CHANGED, RENAMED].into_iter().flatten();
    let ops: Vec<_> = ops.filter(of_file).copied().collect();
    all("redirect=on metacopy", &ops);
}

#[test]
fn faults_with_an_index() {
    all("redirect=on index", LINKED);
}

#[test]
fn faults_where_names_tell_deletions() {
    all("redirect=follow own-format", BY_NAME);
}

/// A copy that has no data waits for no disk; one that has does.
#[test]
fn attributes_alone_are_not_synced() {
    need_root!();
    let calls = |options| {
        let scene = Scene::new(options, "chmod 600 /f");
        let hit = |nth| {
            let (_world, mut client, _) = scene.set();
            let armed = arm(Fault::Fails(Errno::EIO), nth);
            act(&mut client, scene.op).ok();
            armed.hit()
        };
        (0..).map_while(hit).collect::<Vec<_>>()
    };
    assert!(calls("redirect=on").contains(&"fsync"));
    assert!(!calls("redirect=on metacopy").contains(&"fsync"));
}
