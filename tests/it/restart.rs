//! A mount outlives its daemon: kills at random, at each step of each request, and in a row.
mod guarded;
mod load;
mod steps;
mod upgrade;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;
use plyfs_testkit::{Stack, mounted_at, need_fuse, need_root, wait_until};
use plyfs_tests::fsx::Mapping;

use crate::support::{errno, names, read};
use guarded::Guarded;

const LOWER: &str = "\
f a = one
f b = two
f c = three
f gone = kept
f hard = many
h hard2 -> hard
d d
f d/in = inner
d d/sub
f d/sub/deep = deep
d old
f old/f = moved
l link -> a";

fn name_of(entry: std::io::Result<fs::DirEntry>) -> OsString {
    entry.unwrap().file_name()
}

/// Everything that is known to the kernel and nowhere else, before and after a kill.
fn survives(options: &str) {
    let stack = Stack::planted(&[LOWER]);
    let m = Guarded::mount(&stack, options);
    let at = |path: &str| m.path().join(path);
    // Files without a name: one of the lower, one of the upper, one that is copied up later.
    let mut lower = File::open(at("a")).unwrap();
    fs::remove_file(at("a")).unwrap();
    fs::write(at("new"), "fresh").unwrap();
    let mut upper = OpenOptions::new()
        .read(true)
        .write(true)
        .open(at("new"))
        .unwrap();
    fs::remove_file(at("new")).unwrap();
    let late = OpenOptions::new()
        .read(true)
        .write(true)
        .open(at("gone"))
        .unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("gone"), "another").unwrap();
    // One of two names goes; the file is known by both.
    fs::write(at("x"), "linked").unwrap();
    fs::hard_link(at("x"), at("y")).unwrap();
    let linked = File::open(at("y")).unwrap();
    fs::remove_file(at("x")).unwrap();
    let many = File::open(at("hard")).unwrap();
    let ino = many.metadata().unwrap().ino();
    fs::metadata(at("hard2")).unwrap();
    // Directories: removed, moved, and in the middle of a listing.
    fs::create_dir(at("e")).unwrap();
    let removed = openat(AT_FDCWD, &at("e"), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    fs::remove_dir(at("e")).unwrap();
    fs::remove_file(at("d/sub/deep")).unwrap();
    let removed_lower = File::open(at("d/sub")).unwrap();
    fs::remove_dir(at("d/sub")).unwrap();
    let moved = renameat2(
        AT_FDCWD,
        &at("old"),
        AT_FDCWD,
        &at("d/moved"),
        RenameFlags::empty(),
    );
    fs::create_dir(at("many")).unwrap();
    (0..500).for_each(|i| drop(File::create(at(&format!("many/{i:040}"))).unwrap()));
    let mut listing = fs::read_dir(at("many")).unwrap();
    let mut seen: Vec<_> = listing.by_ref().take(3).map(name_of).collect();
    // A mapping, a lock, an append.
    fs::write(at("mapped"), vec![b'm'; 8192]).unwrap();
    let shared = OpenOptions::new()
        .read(true)
        .write(true)
        .open(at("mapped"))
        .unwrap();
    let mapping = Mapping::writable(&shared, 8192).unwrap();
    mapping.write(100, b"through the mapping").unwrap();
    let lock = Flock::lock(File::open(at("b")).unwrap(), FlockArg::LockExclusive).unwrap();
    let mut appended = OpenOptions::new().append(true).open(at("c")).unwrap();
    appended.write_all(b" and").unwrap();
    assert_eq!(errno(fs::metadata(at("missing"))), Errno::ENOENT);
    let before = fs::metadata(at("mapped")).unwrap();

    let other = upgrade::copy_of_program(&stack, "other");
    for round in 0..4u8 {
        match round {
            1 => drop(m.upgrade(&other).unwrap()),
            _ => m.kill(),
        }
        m.forget_caches();
        let text = |file: &mut File| {
            let mut all = String::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut all).unwrap();
            all
        };
        assert_eq!(text(&mut lower), "one");
        assert_eq!(lower.metadata().unwrap().nlink(), 0);
        assert_eq!(errno(fs::metadata(at("a"))), Errno::ENOENT);
        upper.write_at(b"F", 0).unwrap();
        upper.sync_all().unwrap();
        assert_eq!(text(&mut upper), "Fresh");
        let mut two = [0; 2];
        late.write_at(format!("{round}").as_bytes(), 0).unwrap();
        late.sync_all().unwrap();
        late.read_exact_at(&mut two, 0).unwrap();
        assert_eq!(two, [b'0' + round, b'e']);
        assert_eq!(read(at("gone")), "another");
        assert_eq!(linked.metadata().unwrap().nlink(), 1);
        assert_eq!(read(at("y")), "linked");
        assert_eq!(many.metadata().unwrap().ino(), ino);
        assert_eq!(read(at("hard2")), "many");
        let nlink = nix::sys::stat::fstat(removed.as_fd()).unwrap().st_nlink;
        assert_eq!(nlink, 0);
        assert!(removed_lower.metadata().unwrap().is_dir());
        assert_eq!(errno(fs::metadata(at("d/sub"))), Errno::ENOENT);
        if moved.is_ok() {
            assert_eq!(read(at("d/moved/f")), "moved");
        }
        seen.extend(listing.by_ref().take(100).map(name_of));
        assert_eq!(mapping.read(100, 19).unwrap(), b"through the mapping");
        mapping.write(4096, &[round]).unwrap();
        mapping.write(100, b"through the mapping").unwrap();
        let again = Flock::lock(
            File::open(at("b")).unwrap(),
            FlockArg::LockExclusiveNonblock,
        );
        assert_eq!(again.err().map(|(_, e)| e), Some(Errno::EWOULDBLOCK));
        appended.write_all(b"!").unwrap();
        assert_eq!(errno(fs::metadata(at("missing"))), Errno::ENOENT);
        let after = fs::metadata(at("mapped")).unwrap();
        assert_eq!((after.ino(), after.size()), (before.ino(), before.size()));
    }
    seen.extend(listing.map(name_of));
    let listed: BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), listed.len()), (500, 500));
    drop((lower, upper, late, linked, many, removed, removed_lower));
    drop((mapping, shared, lock));
    assert_eq!(m.restarts(), 3);
    drop(appended);
    assert_eq!(read(at("c")), "three and!!!!");
    m.unmount();
    assert_eq!(names(stack.work().join("work")), Vec::<String>::new());
    // What the disk has is what was written, also without anything that was remembered.
    let m = Guarded::mount(&stack, options);
    assert_eq!(read(m.path().join("c")), "three and!!!!");
    assert_eq!(
        &fs::read(m.path().join("mapped")).unwrap()[100..119],
        b"through the mapping"
    );
    m.unmount();
    stack.assert_lowers_unchanged();
}

#[test]
fn what_is_open_stays_open() {
    need_fuse!();
    need_root!();
    survives("");
}

#[test]
fn what_is_open_stays_open_with_index_metacopy_and_redirects() {
    need_fuse!();
    need_root!();
    survives("index=on,metacopy=on,redirect_dir=on");
}

#[test]
fn what_is_open_stays_open_with_data_passed_through() {
    need_fuse!();
    need_root!();
    survives("data=passthrough");
}

/// Sixty kills while programs read, write, list, rename, link and commit; each step is checked
/// against a copy in memory, and no system call may fail. `scripts/kills` has the longer form.
#[test]
fn no_call_fails_and_no_byte_is_wrong_while_daemons_are_killed() {
    need_fuse!();
    need_root!();
    load::kills(kills(60), "redirect_dir=on");
}

#[test]
fn no_call_fails_with_data_passed_through_while_daemons_are_killed() {
    need_fuse!();
    need_root!();
    load::kills(kills(40), "redirect_dir=on,data=passthrough");
}

fn kills(usual: u64) -> u64 {
    std::env::var("PLYFS_KILLS").map_or(usual, |n| n.parse().unwrap())
}

/// Killed after its N-th step, for each N and each kind of request that changes something.
#[test]
fn a_request_that_is_killed_at_any_step_is_done_once() {
    need_fuse!();
    need_root!();
    if !cfg!(debug_assertions) {
        return;
    }
    steps::all(&steps::CASES, "redirect_dir=on,threads=2", 100);
    let passed = "redirect_dir=on,threads=2,data=passthrough";
    steps::all(&steps::PASSED_CASES, passed, 50);
}

#[test]
fn a_mount_may_ask_not_to_be_restarted() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "norestart");
    assert_eq!(read(m.path().join("a")), "1");
    m.kill_daemon();
    wait_until("the mount is dead", || {
        errno(fs::read_dir(m.path())) == Errno::ENOTCONN
    });
}

#[test]
fn a_daemon_that_dies_at_once_each_time_is_given_up() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "");
    assert_eq!(read(m.path().join("a")), "1");
    wait_until("the mount is given up", || {
        m.kill_daemon();
        m.holder_is_gone()
    });
    wait_until("the mount is dead", || {
        errno(fs::read_dir(m.path())) == Errno::ENOTCONN
    });
    let log = m.log();
    assert!(log.contains("the mount is given up"), "{log}");
}

#[test]
fn a_stand_in_does_the_work_of_a_holder_that_was_killed() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "");
    assert_eq!(m.status()["holders"], 2);
    for round in 0..3 {
        m.kill_holder();
        wait_until("the daemon knows", || m.status()["holders"] == 1);
        assert_eq!(m.status()["replaceable"], true);
        m.kill();
        assert_eq!(m.status()["holders"], 2);
        fs::write(m.path().join("b"), format!("{round}")).unwrap();
        // Both at once.
        let pid = m.pid();
        m.kill_holder();
        m.kill_daemon();
        wait_until("another daemon has taken over", || m.pid() != pid);
        assert_eq!(read(m.path().join("b")), format!("{round}"));
    }
    m.unmount();
}

#[test]
fn a_daemon_lives_on_without_holder_and_stand_in_and_says_so() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "");
    m.kill_stand_in();
    wait_until("the daemon knows", || m.status()["holders"] == 1);
    m.kill_holder();
    wait_until("the daemon knows", || m.status()["replaceable"] == false);
    assert_eq!(m.status()["holders"], 0);
    assert_eq!(read(m.path().join("a")), "1");
    fs::write(m.path().join("b"), "2").unwrap();
    m.unmount();
}

#[test]
fn a_full_disk_does_not_keep_the_next_daemon_away() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1\nd d\nf d/b = 2"]);
    let flags = nix::mount::MsFlags::empty();
    let layers = stack.dir().join("small");
    fs::create_dir(&layers).unwrap();
    let size = Some("size=1m,nr_inodes=64");
    nix::mount::mount(Some("small"), &layers, Some("tmpfs"), flags, size).unwrap();
    fs::create_dir(layers.join("u")).unwrap();
    fs::create_dir(layers.join("w")).unwrap();
    let (upper, work) = (layers.join("u"), layers.join("w"));
    let options = format!("upperdir={},workdir={}", upper.display(), work.display());
    let m = Guarded::mount(&stack, &options);
    fs::write(m.path().join("d/b"), "3").unwrap();
    let full = (0..200).find_map(|i| File::create(m.path().join(format!("n{i}"))).err());
    assert_eq!(full.unwrap().raw_os_error(), Some(Errno::ENOSPC as i32));
    m.kill();
    m.forget_caches();
    assert_eq!(read(m.path().join("a")), "1");
    assert_eq!(read(m.path().join("d/b")), "3");
    fs::remove_file(m.path().join("n0")).unwrap();
    m.unmount();
}

#[test]
fn a_volatile_mount_is_closed_in_order_by_the_last_daemon() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    for _ in 0..2 {
        let m = Guarded::mount(&stack, "volatile");
        fs::write(m.path().join("a"), "2").unwrap();
        m.kill();
        assert_eq!(read(m.path().join("a")), "2");
        m.unmount();
    }
}

#[test]
fn status_and_ls_tell_who_serves_now() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "");
    let first = m.pid();
    m.kill();
    let status = m.status();
    assert_eq!(status["restarts"], 1);
    assert_ne!(status["pid"], first);
    let out = Command::new(plyfs_testkit::bin())
        .arg("status")
        .arg(m.path())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("it has replaced one"), "{text}");
    assert!(Path::new(&format!("/proc/{}", m.pid())).exists());
    // SIGTERM to the daemon ends the mount as ever.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(m.pid()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    wait_until("the mount is gone", || mounted_at(m.path()).is_none());
    wait_until("the holder is gone", || m.holder_is_gone());
}
