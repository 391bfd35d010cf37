//! Power loss: what fsync promised is there, each file is old or new, and the mount begins again.
//!
//! The upper is on a disk that records what it is told. Afterwards the disk is made again as it could
//! have been at any moment: all that was written before a flush, and any part of what came after it.
mod history;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use plyfs_testkit::{Mounted, Stack, mount_plyfs, mounted_at, need, need_fuse};
use plyfs_tests::disk::{Disk, Event, Image, Kind, MountedImage};

use crate::support::names;
use history::{Histories, Reached};
use work::{Round, commits, look, plant};

/// What a run does; the environment makes it longer (`scripts/powerloss`).
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    /// States of the disk that are tried.
    states: usize,
    seed: u64,
}

impl Plan {
    fn of_env(states: usize) -> Self {
        let get = |name: &str| {
            let text = std::env::var(format!("PLYFS_POWERLOSS_{name}")).ok()?;
            Some(text.parse::<u64>().unwrap())
        };
        Self {
            rounds: get("ROUNDS").unwrap_or(1) as usize,
            states: get("STATES").map_or(states, |n| n as usize),
            seed: get("SEED").unwrap_or(1),
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// What was recorded, and what it has to look like.
struct Recording {
    before: Image,
    events: Vec<Event>,
    histories: Histories,
}

/// Lets the upper and the workdir of a stack be on what is mounted at `disk`.
fn take_upper(stack: &Stack, disk: &Path) {
    for (name, place) in [("upper", stack.upper()), ("work", stack.work())] {
        fs::create_dir(disk.join(name)).unwrap();
        fs::remove_dir(&place).unwrap();
        symlink(disk.join(name), place).unwrap();
    }
}

fn record(stack: &Stack, kind: Kind, options: &str, rounds: usize) -> Recording {
    let dir = stack.dir().join("fuse");
    let at = stack.dir().join("disk");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&at).unwrap();
    let mut histories = Histories::default();
    for round in 0..rounds {
        plant(stack.lower(0), round, &mut histories);
    }
    let disk = Disk::new(kind.make(stack.dir()).unwrap(), &dir).unwrap();
    let mounted_disk = disk.mount(kind, &at, "").unwrap();
    take_upper(stack, mounted_disk.path());
    nix::unistd::syncfs(fs::File::open(&at).unwrap()).unwrap();
    let before = disk.record();
    let m = mount_plyfs(stack, options);
    for round in 0..rounds {
        let round = Round {
            disk: &disk,
            histories: &mut histories,
            root: m.path(),
            round,
            index: options.contains("index=on"),
            redirect: options.contains("redirect_dir=on"),
        };
        round.all();
    }
    let events = disk.take_events();
    m.unmount();
    drop(mounted_disk);
    Recording {
        before,
        events,
        histories,
    }
}

/// Mounts what the disk could have been, and looks at everything.
fn check(stack: &Stack, kind: Kind, options: &str, image: &Image, at: Reached, all: &Histories) {
    let file = stack.dir().join("state/image");
    image.save(&file).unwrap();
    let words = if kind == Kind::Xfs { ",nouuid" } else { "" };
    let disk = MountedImage::new(&file, kind, &stack.dir().join("disk"), words).unwrap();
    let m: Mounted = mount_plyfs(stack, options);
    let root = m.path().to_owned();
    let wrong = all.judge(at, |path| match path.strip_suffix("#commits") {
        Some(db) => commits(&root, db),
        None => look(&root, path),
    });
    assert!(wrong.is_empty(), "{at:?}: {}", wrong.join("\n"));
    let known: BTreeSet<&str> = all.paths().collect();
    for entry in known.iter().filter(|path| path.ends_with('/')) {
        for name in names(root.join(entry)) {
            let path = format!("{entry}{name}");
            let ours = name.starts_with("db") || known.contains(&*path);
            assert!(ours, "{at:?}: {path} was never made");
        }
    }
    m.unmount();
    assert_eq!(names(stack.work().join("work")), Vec::<String>::new());
    drop(disk);
}

/// Records the work on `kind` and goes through states of the disk.
fn lose_power(kind: Kind, options: &str, plan: Plan) {
    let stack = Stack::new(1);
    let recording = record(&stack, kind, options, plan.rounds);
    let state = stack.dir().join("state");
    fs::create_dir(&state).unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("state"), &state, Some("tmpfs"), none, None::<&str>).unwrap();
    let events = &recording.events;
    let flushes: Vec<usize> = (0..events.len())
        .filter(|i| matches!(events[*i], Event::Flush))
        .collect();
    println!(
        "{}, {options}: {} events, {} flushes",
        kind.name(),
        events.len(),
        flushes.len()
    );
    assert!(flushes.len() > 20, "too little was flushed");
    let mut dice = Dice(plan.seed);
    let mut image = recording.before.clone();
    let (mut done, mut left) = (0, plan.states);
    for (i, flush) in flushes.iter().enumerate() {
        apply(&mut image, &events[done..*flush], |_| true);
        done = flush + 1;
        let until = flushes.get(i + 1).copied().unwrap_or(events.len());
        // As many states here as leaves the others their share.
        let share = left.div_ceil(flushes.len() - i);
        let here = match share {
            1 => usize::from(dice.below(flushes.len() - i) < left),
            share => share,
        };
        left -= here;
        for nth in 0..here {
            let mut state = image.clone();
            let pure = if here > 1 {
                nth == 0
            } else {
                dice.below(3) == 0
            };
            let at_most = if pure { done } else { until };
            apply(&mut state, &events[done..at_most], |_| dice.below(2) == 0);
            let reached = Reached {
                surely: done,
                at_most,
            };
            check(&stack, kind, options, &state, reached, &recording.histories);
        }
    }
    println!("{} states looked at", plan.states - left);
    nix::mount::umount2(&state, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(mounted_at(&stack.dir().join("disk")).is_none());
}

fn apply(image: &mut Image, events: &[Event], mut chosen: impl FnMut(usize) -> bool) {
    for (i, event) in events.iter().enumerate() {
        if let Event::Write(offset, data) = event
            && chosen(i)
        {
            image.write(*offset, data);
        }
    }
}

#[test]
fn what_was_promised_is_there_on_ext4() {
    need_fuse!();
    need!("mkfs.ext4");
    lose_power(Kind::Ext4, "", Plan::of_env(40));
}

#[test]
fn what_was_promised_is_there_with_index_metacopy_and_redirects() {
    need_fuse!();
    need!("mkfs.ext4");
    let options = "index=on,metacopy=on,redirect_dir=on";
    lose_power(Kind::Ext4, options, Plan::of_env(40));
}

#[test]
fn what_was_promised_is_there_on_xfs() {
    need_fuse!();
    need!("mkfs.xfs");
    lose_power(Kind::Xfs, "redirect_dir=on", Plan::of_env(20));
}

/// Most of what takes long is done by `scripts/powerloss`.
#[test]
#[ignore = "scripts/powerloss"]
fn what_was_promised_is_there_on_btrfs_and_with_passthrough() {
    lose_power(Kind::Btrfs, "redirect_dir=on", Plan::of_env(40));
    lose_power(Kind::Ext4, "data=passthrough", Plan::of_env(40));
}
