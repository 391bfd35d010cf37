//! The sandbox of a daemon: what it has given up, and that the mount lives and ends as ever.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{Stack, bin, mounted_at, need_fuse, need_root, private_mounts, wait_until};
use serde_json::Value;

use crate::support::{assert_ok, read};

/// Runs plyfs, which must succeed, and answers what it prints.
fn ok(words: &[&str]) -> String {
    assert_ok(&Command::new(bin()).args(words).output().unwrap())
}

/// A stack that this test alone sees mounted.
fn stack(spec: &str) -> Stack {
    private_mounts();
    Stack::planted(&[spec])
}

/// What `plyfs status` says of a mount.
fn status(mnt: &Path) -> Value {
    let text = ok(&["status", "--json", mnt.to_str().unwrap()]);
    let all: Value = serde_json::from_str(&text).unwrap();
    match all {
        Value::Array(mut all) => all.remove(0),
        one => one,
    }
}

fn pid(status: &Value) -> Pid {
    Pid::from_raw(status["pid"].as_i64().unwrap().try_into().unwrap())
}

/// Value and note of the option `sandbox`.
fn in_force(status: &Value) -> (String, String) {
    let options = status["options"].as_array().unwrap();
    let own = options.iter().find(|o| o["name"] == "sandbox").unwrap();
    let text = |key: &str| own[key].as_str().unwrap_or_default().to_owned();
    (text("value"), text("note"))
}

/// A line of /proc/PID/status.
fn fact(pid: Pid, name: &str) -> String {
    let text = read(format!("/proc/{pid}/status"));
    let line = text.lines().find(|l| l.starts_with(name)).unwrap();
    line.rsplit(['\t', ' ']).next().unwrap().to_owned()
}

fn capabilities(pid: Pid, set: &str) -> u64 {
    u64::from_str_radix(&fact(pid, set), 16).unwrap()
}

const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Of root's privileges those that no file system needs, some of them.
const NEVER: u64 = 1 << 5 | 1 << 12 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 24;

fn is_confined(pid: Pid) {
    let facts = ["NoNewPrivs:", "Seccomp:"].map(|name| fact(pid, name));
    assert_eq!(facts, ["1", "2"]);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(capabilities(pid, set) & NEVER, 0, "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(capabilities(pid, set), 0, "{set}");
    }
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let seen = fs::read_dir(&root).unwrap();
    for name in seen.map(|entry| entry.unwrap().file_name()) {
        assert!(name == "proc" || name == "run", "{name:?}");
    }
    assert!(fs::write(root.join("new"), "").is_err());
    let table = read(format!("/proc/{pid}/mountinfo"));
    assert!(table.lines().all(|line| line.contains(" ro,")), "{table}");
}

#[test]
fn each_daemon_of_a_mount_is_confined() {
    need_root!();
    need_fuse!();
    let stack = stack("f a = 1\nd d\nf d/b = 2");
    let mnt = stack.mnt();
    let options = stack.options("").into_string().unwrap();
    ok(&["-o", &options, mnt.to_str().unwrap()]);
    let first = status(&mnt);
    let (value, note) = in_force(&first);
    assert_eq!(value, "on", "{note}");
    is_confined(pid(&first));
    assert_ne!(capabilities(pid(&first), "CapEff:") & CAP_SYS_ADMIN, 0);
    fs::write(mnt.join("a"), "changed").unwrap();
    if first["replaceable"] == Value::Bool(true) {
        kill(pid(&first), Signal::SIGKILL).unwrap();
        assert_eq!(read(mnt.join("a")), "changed");
        fs::rename(mnt.join("d/b"), mnt.join("c")).unwrap();
        let next = status(&mnt);
        assert_ne!(pid(&next), pid(&first));
        assert_eq!(in_force(&next).0, "on");
        is_confined(pid(&next));
    }
    let last = pid(&status(&mnt));
    let state = Path::new("/run/plyfs").join(format!("{}.json", minor(&mnt)));
    assert!(state.exists() || !Path::new("/run/plyfs").exists());
    kill(last, Signal::SIGTERM).unwrap();
    wait_until("the mount is gone", || mounted_at(&mnt).is_none());
    wait_until("the state file is gone", || !state.exists());
    stack.assert_lowers_unchanged();
}

fn minor(mnt: &Path) -> u64 {
    nix::sys::stat::minor(fs::metadata(mnt).unwrap().dev())
}

/// Only what the options need: no xattrs, no CAP_SYS_ADMIN; no upper, nothing to make.
#[test]
fn capabilities_follow_the_options() {
    need_root!();
    need_fuse!();
    let stack = stack("f a = 1");
    let mnt = stack.mnt();
    let options = stack.options("userxattr,noxattrs=1").into_string().unwrap();
    ok(&["-o", &options, mnt.to_str().unwrap()]);
    fs::write(mnt.join("a"), "changed").unwrap();
    fs::remove_file(mnt.join("a")).unwrap();
    let daemon = pid(&status(&mnt));
    assert_eq!(capabilities(daemon, "CapPrm:") & CAP_SYS_ADMIN, 0);
    ok(&["umount", mnt.to_str().unwrap()]);

    let lower = stack.lowers()[0].display().to_string();
    ok(&["mount", "--lower", &lower, mnt.to_str().unwrap()]);
    assert_eq!(read(mnt.join("a")), "1");
    let kept = capabilities(pid(&status(&mnt)), "CapPrm:");
    assert_eq!(kept & !(1 << 2 | 1 << 3 | CAP_SYS_ADMIN), 0, "{kept:x}");
    ok(&["umount", mnt.to_str().unwrap()]);
}

#[test]
fn it_can_be_left_out() {
    need_root!();
    need_fuse!();
    let stack = stack("f a = 1");
    let mnt = stack.mnt();
    let options = stack.options("nosandbox").into_string().unwrap();
    ok(&["-o", &options, mnt.to_str().unwrap()]);
    let told = status(&mnt);
    assert_eq!(in_force(&told).0, "off");
    assert_eq!(fact(pid(&told), "Seccomp:"), fact(Pid::this(), "Seccomp:"));
    kill(pid(&told), Signal::SIGTERM).unwrap();
    wait_until("the mount is gone", || mounted_at(&mnt).is_none());
}

/// A mount may also lose the process that would take it away; it is taken away by others then.
#[test]
fn the_process_outside_may_end() {
    need_root!();
    need_fuse!();
    let stack = stack("f a = 1");
    let mnt = stack.mnt();
    let options = stack.options("").into_string().unwrap();
    ok(&["-o", &options, mnt.to_str().unwrap()]);
    let daemon = pid(&status(&mnt));
    let children = read(format!("/proc/{daemon}/task/{daemon}/children"));
    let outside = children
        .split_whitespace()
        .find(|child| read(format!("/proc/{child}/comm")) == "plyfs-outside\n");
    let outside: i32 = outside.unwrap().parse().unwrap();
    // It holds nothing of the daemon's open.
    for entry in fs::read_dir(format!("/proc/{outside}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_str().unwrap().to_owned();
        assert!(
            target == "/dev/null" || target.starts_with("socket:"),
            "{target}"
        );
    }
    kill(Pid::from_raw(outside), Signal::SIGKILL).unwrap();
    fs::write(mnt.join("a"), "changed").unwrap();
    kill(daemon, Signal::SIGTERM).unwrap();
    assert_eq!(read(mnt.join("a")), "changed");
    ok(&["umount", mnt.to_str().unwrap()]);
    assert_eq!(mounted_at(&mnt), None);
}
