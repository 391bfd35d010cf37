//! From the start of the daemon to its end, by every way of unmounting.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{
    Stack, bin, mount_plyfs, mounted_at, need, need_fuse, snapshot, unmount, wait_until,
};

use crate::support::{assert_ok, errno, names, read};

/// Starts plyfs as a client does: no `-f`, pipes for its output, and waits for both to close.
fn daemonise(stack: &Stack, options: &str) -> Output {
    Command::new(bin())
        .arg("-o")
        .arg(stack.options(options))
        .arg(stack.mnt())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The processes whose command line names the mountpoint.
fn daemons(mnt: &Path) -> Vec<PathBuf> {
    let needle = mnt.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|b| *b == 0).any(|arg| arg == needle) {
            found.push(entry.path());
        }
    }
    found
}

fn pid_of(daemon: &Path) -> Pid {
    Pid::from_raw(
        daemon
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap(),
    )
}

/// The one that serves, by the name that `ps` shows.
fn daemon_of(processes: &[PathBuf]) -> &Path {
    let serves = |process: &&PathBuf| read(process.join("comm")).trim() == "plyfs";
    processes.iter().find(serves).unwrap()
}

/// Daemonises, checks that the mount answers, ends it by `end`, and waits for the process to go.
fn ends_by(end: impl Fn(&Stack, Pid)) {
    let stack = Stack::planted(&["f a = 1"]);
    let start = Instant::now();
    let out = daemonise(&stack, "");
    assert_ok(&out);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "the daemon held on to stdout or stderr"
    );
    assert_eq!(read(stack.mnt().join("a")), "1");
    fs::write(stack.mnt().join("new"), "written").unwrap();
    let processes = daemons(&stack.mnt());
    assert_eq!(
        processes.len(),
        4,
        "daemon, holder, stand-in, the one outside: {processes:?}"
    );
    end(&stack, pid_of(daemon_of(&processes)));
    wait_until("the daemon and its holder are gone", || {
        daemons(&stack.mnt()).is_empty()
    });
    wait_until("the mount is gone", || mounted_at(&stack.mnt()).is_none());
    assert_eq!(read(stack.upper().join("new")), "written");
    assert_eq!(names(stack.mnt()), Vec::<String>::new());
    stack.assert_lowers_unchanged();
    // What is left can be mounted again at once.
    let m = mount_plyfs(&stack, "");
    assert_eq!(read(m.join("new")), "written");
}

#[test]
fn umount_ends_the_daemon() {
    need_fuse!();
    ends_by(|stack, _| unmount(&stack.mnt()).unwrap());
}

#[test]
fn a_lazy_umount_ends_the_daemon() {
    need_fuse!();
    ends_by(|stack, _| umount2(&stack.mnt(), MntFlags::MNT_DETACH).unwrap());
}

#[test]
fn fusermount_ends_the_daemon() {
    need_fuse!();
    need!("fusermount3");
    ends_by(|stack, _| {
        let status = Command::new("fusermount3")
            .arg("-u")
            .arg(stack.mnt())
            .status()
            .unwrap();
        assert!(status.success());
    });
}

#[test]
fn plyfs_umount_ends_the_daemon() {
    need_fuse!();
    ends_by(|stack, _| {
        let out = Command::new(bin())
            .arg("umount")
            .arg(stack.mnt())
            .output()
            .unwrap();
        assert_ok(&out);
        assert_eq!(
            mounted_at(&stack.mnt()),
            None,
            "plyfs umount returned before the mount went"
        );
    });
}

#[test]
fn sigterm_unmounts() {
    need_fuse!();
    ends_by(|_, daemon| kill(daemon, Signal::SIGTERM).unwrap());
}

#[test]
fn sigint_unmounts() {
    need_fuse!();
    ends_by(|_, daemon| kill(daemon, Signal::SIGINT).unwrap());
}

#[test]
fn sigterm_unmounts_while_files_are_open() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = mount_plyfs(&stack, "");
    let file = fs::File::open(m.join("a")).unwrap();
    kill(
        Pid::from_raw(m.pid().unwrap().cast_signed()),
        Signal::SIGTERM,
    )
    .unwrap();
    wait_until("the mount is gone", || mounted_at(&stack.mnt()).is_none());
    drop(file);
    assert!(m.wait().success());
}

#[test]
fn the_mount_is_of_type_fuse_and_says_who_serves_it() {
    need_fuse!();
    let stack = Stack::planted(&["f a"]);
    let m = mount_plyfs(&stack, "");
    assert_eq!(mounted_at(m.path()).as_deref(), Some("fuse.plyfs"));
    let kind = nix::sys::statfs::statfs(m.path())
        .unwrap()
        .filesystem_type();
    assert_eq!(kind, nix::sys::statfs::FUSE_SUPER_MAGIC);
}

#[test]
fn without_an_upper_the_mount_is_read_only() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1\nd d", "f a = 2\nf b = 3\nf d/c"]).read_only();
    let m = mount_plyfs(&stack, "");
    assert_eq!(read(m.join("a")) + &read(m.join("b")), "13");
    assert_eq!(errno(fs::write(m.join("new"), "")), Errno::EROFS);
    assert_eq!(errno(fs::write(m.join("a"), "")), Errno::EROFS);
    assert_eq!(errno(fs::remove_file(m.join("a"))), Errno::EROFS);
    assert_eq!(errno(fs::create_dir(m.join("d/e"))), Errno::EROFS);
    assert_eq!(errno(xattr::set(m.join("a"), "user.x", b"1")), Errno::EROFS);
    assert_eq!(snapshot(m.path()).paths(), [".", "a", "b", "d", "d/c"]);
    m.unmount();
    assert_eq!(names(stack.upper()), Vec::<String>::new());
    stack.assert_lowers_unchanged();
}

#[test]
fn a_read_only_mount_of_a_writable_stack_changes_nothing() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = mount_plyfs(&stack, "ro");
    assert_eq!(errno(fs::write(m.join("a"), "")), Errno::EROFS);
    m.unmount();
    assert_eq!(names(stack.upper()), Vec::<String>::new());
}

#[test]
fn many_mounts_share_their_lowers() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1\nf d/b = 2"]);
    let mounts: Vec<_> = (0..8)
        .map(|i| {
            let own = Stack::new(0);
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                stack.lower(0).display(),
                own.upper().display(),
                own.work().display()
            );
            let out = Command::new(bin())
                .args(["-o", &options])
                .arg(own.mnt())
                .output()
                .unwrap();
            assert_ok(&out);
            fs::write(own.mnt().join("a"), i.to_string()).unwrap();
            own
        })
        .collect();
    for (i, own) in mounts.iter().enumerate() {
        assert_eq!(read(own.mnt().join("a")), i.to_string());
        assert_eq!(read(own.mnt().join("d/b")), "2");
        unmount(&own.mnt()).unwrap();
        wait_until("the daemon is gone", || daemons(&own.mnt()).is_empty());
    }
    stack.assert_lowers_unchanged();
}

#[test]
fn a_mountpoint_can_be_used_again_and_again() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    for i in 0..20 {
        let out = daemonise(&stack, "");
        assert!(
            out.status.success(),
            "{i}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        fs::write(stack.mnt().join(i.to_string()), "x").unwrap();
        unmount(&stack.mnt()).unwrap();
    }
    assert_eq!(names(stack.upper()).len(), 20);
}

/// The number of a mount is free for the next one as soon as it is gone, and its daemon notices
/// later.
#[test]
fn a_daemon_that_ends_late_leaves_the_next_mount_alone() {
    need_fuse!();
    let (old, new) = (Stack::planted(&["f a = 1"]), Stack::planted(&["f b = 2"]));
    for _ in 0..3 {
        let m = mount_plyfs(&old, "");
        assert_eq!(read(m.join("a")), "1");
        let daemon = Pid::from_raw(m.pid().unwrap().cast_signed());
        kill(daemon, Signal::SIGSTOP).unwrap();
        unmount(&old.mnt()).unwrap();
        let out = Command::new(bin())
            .args(["-o", &format!("lowerdir={}", new.lower(0).display())])
            .arg(old.mnt())
            .output()
            .unwrap();
        assert_ok(&out);
        kill(daemon, Signal::SIGCONT).unwrap();
        // Not reaped yet, the old daemon has ended once it has no memory.
        wait_until("the old daemon is gone", || {
            fs::read(format!("/proc/{daemon}/cmdline")).is_ok_and(|line| line.is_empty())
        });
        assert_eq!(names(old.mnt()), ["b"]);
        unmount(&old.mnt()).unwrap();
        assert!(m.wait().success());
    }
}

#[test]
fn an_aborted_connection_leaves_no_dead_mount() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = mount_plyfs(&stack, "volatile");
    fs::write(m.join("new"), "x").unwrap();
    let control = Path::new("/sys/fs/fuse/connections");
    if fs::read_dir(control).unwrap().next().is_none() {
        // Seen by this test alone.
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), control, Some("fusectl"), none, None::<&str>).unwrap();
    }
    let dev = nix::sys::stat::stat(m.path()).unwrap().st_dev;
    fs::write(control.join(format!("{}/abort", libc::minor(dev))), "1").unwrap();
    assert!(m.wait().success());
    assert_eq!(mounted_at(&stack.mnt()), None);
    assert_eq!(names(stack.mnt()), Vec::<String>::new());
    // Closed in order: nothing of the volatile mount bars the next one.
    mount_plyfs(&stack, "").unmount();
}
