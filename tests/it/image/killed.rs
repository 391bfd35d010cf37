//! A store whose users are killed at any moment is a store that `verify` does not fault.
use std::time::{Duration, Instant};

use plyfs_testkit::{bin, need_fuse};

use crate::place::Place;

/// How often a command is killed.
const KILLS: u32 = 200;
/// No command lives longer, in microseconds.
const LONGEST_LIFE: u64 = 40_000;
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
    let commands: [&[&str]; 6] = [
        &["image", "import", "r2.tar", "--tag", "two"],
        &["container", "commit", "c", "--tag", "done"],
        &["image", "rm", "two"],
        &["image", "gc", "--untagged"],
        &["image", "import", "r3.tar", "--tag", "two"],
        &["container", "create", "base", "--name", "other"],
    ];
    let mut random = 0x9e37_79b9_u64;
    let (mut killed, mut round) = (0, 0);
    while killed < KILLS && round < 10 * KILLS {
        let args = commands[round as usize % commands.len()];
        round += 1;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let until = Instant::now() + Duration::from_micros((random >> 33) % LONGEST_LIFE);
        let quiet = || std::process::Stdio::null();
        let mut command = place.command(args);
        let mut child = command.stdout(quiet()).stderr(quiet()).spawn().unwrap();
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(300));
        }
        if child.try_wait().unwrap().is_some() {
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        if killed % CHECK_EVERY == 0 {
            let said = place.plyfs(&["image", "verify"]);
            assert_eq!(
                said, "everything is as it was",
                "after {killed} kills, the last of {args:?}"
            );
        }
    }
    assert_eq!(killed, KILLS, "the commands are quicker than their killer");
    // What was left half done does not get into the way of doing it whole.
    for args in commands.iter().take(5) {
        let done = place.output(args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let expected = done.status.success() || said.contains("is not in the store");
        assert!(expected, "{} {args:?}: {said}", bin().display());
    }
    place.plyfs(&["image", "gc"]);
    assert_eq!(place.sh("ls store/staging"), "");
    assert_eq!(place.plyfs(&["image", "verify"]), "everything is as it was");
}
