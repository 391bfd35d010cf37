//! A store whose users are killed at any moment is a store that `verify` does not fault.
use std::process::Stdio;
use std::time::{Duration, Instant};

use plyfs_testkit::{bin, need_fuse};

use crate::place::Place;

/// How often a commit and a collection are killed each; `registry.rs` does the same to pulls.
const KILLS: u32 = 70;
/// After so many kills every byte is checked.
const CHECK_EVERY: u32 = 25;

#[test]
fn a_killed_command_never_spoils_the_store() {
    need_fuse!();
    let place = Place::new();
    place.sh(
        "for i in 1 2 3; do mkdir r$i; for f in $(seq 40); do head -c $((f*500)) /dev/urandom >r$i/$f; done\n\
         ln r$i/1 r$i/link; tar -C r$i -cf r$i.tar .; rm -r r$i; done; gzip r2.tar; mv r2.tar.gz r2.tar",
    );
    place.plyfs(&["image", "import", "r1.tar", "--tag", "base"]);
    place.plyfs(&["container", "create", "base", "--name", "c"]);
    place.sh(
        "cd store/containers/c/upper; for f in $(seq 30); do head -c 9000 /dev/urandom >n$f; done",
    );
    let commit: &[&str] = &["container", "commit", "c", "--tag", "done"];
    let collect: &[&str] = &["image", "gc", "--untagged"];
    let import = |tar| ["image", "import", tar, "--tag", "two"];
    let (two, three) = (import("r2.tar"), import("r3.tar"));
    let forget = |name| ["image", "rm", name];
    // Each collection has something to collect: an image that was untagged, what the killed left.
    let commands: [&[&str]; 8] = [
        &two,
        commit,
        collect,
        &forget("done"),
        commit,
        &three,
        collect,
        &["container", "create", "base", "--name", "other"],
    ];
    let mut killer = Killer::new(0x9e37_79b9);
    let (mut commits, mut collections, mut others, mut checked) = (0, 0, 0, 0);
    for round in 0..20 * KILLS {
        if commits >= KILLS && collections >= KILLS {
            break;
        }
        let args = commands[round as usize % commands.len()];
        if killer.kills(&place, args) {
            match args {
                args if args == commit => commits += 1,
                args if args == collect => collections += 1,
                _ => others += 1,
            }
        }
        let killed = commits + collections + others;
        if killed >= checked + CHECK_EVERY {
            checked = killed;
            let said = place.plyfs(&["image", "verify"]);
            assert_eq!(
                said, "everything is as it was",
                "after {killed} kills, the last of {args:?}"
            );
        }
    }
    assert!(
        commits >= KILLS && collections >= KILLS,
        "the commands are quicker than their killer: {commits} commits, {collections} collections"
    );
    println!("killed: {commits} commits, {collections} collections, {others} others");
    // What was left half done does not get into the way of doing it whole.
    for args in commands.iter().take(7) {
        let done = place.output(args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let expected = done.status.success() || said.contains("is not in the store");
        assert!(expected, "{} {args:?}: {said}", bin().display());
    }
    place.plyfs(&["image", "gc"]);
    assert_eq!(place.sh("ls store/staging"), "");
    assert_eq!(place.plyfs(&["image", "verify"]), "everything is as it was");
}

/// Kills commands at any moment of what they take.
pub(crate) struct Killer {
    random: u64,
    /// How long a command takes that is left alone, as far as was seen, in microseconds.
    lasts: u64,
}

impl Killer {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: seed,
            lasts: 20_000,
        }
    }

    /// Starts a command and kills it; false where it was quicker.
    pub(crate) fn kills(&mut self, place: &Place, args: &[&str]) -> bool {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let begun = Instant::now();
        let until = begun + Duration::from_micros((self.random >> 33) % self.lasts);
        let mut command = place.command(args);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        // Who ends by itself tells how long it takes; the machine may be busy or not.
        if child.try_wait().unwrap().is_some() {
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.lasts = (self.lasts * 3 + took.clamp(2000, 400_000)) / 4;
            return false;
        }
        self.lasts += self.lasts / 16;
        child.kill().unwrap();
        child.wait().unwrap();
        true
    }
}
