//! `plyfs upgrade`: another program serves, or the one from before does.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plyfs_testkit::{Stack, bin, need_fuse, need_root, wait_until};

use super::guarded::Guarded;
use crate::support::read;

/// The same program at another place.
pub(super) fn copy_of_program(stack: &Stack, name: &str) -> PathBuf {
    let path = stack.dir().join(name);
    fs::copy(bin(), &path).unwrap();
    path
}

fn script(stack: &Stack, name: &str, text: &str) -> PathBuf {
    let path = stack.dir().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn runs(m: &Guarded) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", m.pid())).unwrap()
}

#[test]
fn the_program_changes_and_changes_back() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "volatile");
    let first = runs(&m);
    let other = copy_of_program(&stack, "other");
    fs::write(m.path().join("b"), "2").unwrap();
    let said = m.upgrade(&other).unwrap();
    assert_eq!(said["upgraded"], true);
    assert_eq!(runs(&m), other);
    assert_eq!(read(m.path().join("b")), "2");
    // The next daemon is of the other program too, whoever makes it.
    m.kill();
    assert_eq!(runs(&m), other);
    m.kill_holder();
    m.kill();
    assert_eq!(runs(&m), other);
    let status = m.status();
    assert_eq!(
        (&status["upgrades"], &status["restarts"]),
        (&1.into(), &2.into())
    );
    m.upgrade(&first).unwrap();
    assert_eq!(runs(&m), first);
    assert_eq!(m.status()["upgrades"], 2);
    assert_eq!(read(m.path().join("a")), "1");
    m.unmount();
}

#[test]
fn what_cannot_take_over_is_refused_before_anything_happens() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = Guarded::mount(&stack, "");
    let pid = m.pid();
    let plain = stack.dir().join("plain");
    fs::write(&plain, "text").unwrap();
    let version = "echo '{\"plyfs\":\"9.0\",\"handover\":999}'";
    for (program, why) in [
        (stack.dir().join("missing"), "No such file"),
        (plain, "cannot be started"),
        (PathBuf::from("/bin/true"), "is no plyfs"),
        (script(&stack, "newer", version), "version 999"),
    ] {
        let e = m.upgrade(&program).unwrap_err();
        assert!(e.contains(why), "{}: {e}", program.display());
        assert_eq!(m.pid(), pid);
    }
    m.unmount();
    let m = Guarded::mount(&stack, "norestart");
    let e = m.upgrade(Path::new(&bin())).unwrap_err();
    assert!(e.contains("cannot be replaced"), "{e}");
    assert_eq!(read(m.path().join("a")), "1");
}

/// It says that it can, and does not. Each way of it leaves the program from before, and nothing of
/// the other.
#[test]
fn a_program_that_fails_leaves_the_one_from_before() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1\nf gone = kept"]);
    let m = Guarded::mount(&stack, "");
    let first = runs(&m);
    let open = fs::File::open(m.path().join("gone")).unwrap();
    fs::remove_file(m.path().join("gone")).unwrap();
    let plyfs = bin();
    let check = format!("[ \"$2\" = --check ] && exec {} \"$@\"", plyfs.display());
    let gone = format!("{check}\nexit 3");
    let once = format!("rm \"$0\"; exec {} \"$@\"", plyfs.display());
    let other = format!(
        "{check}\nfor word; do last=$word; done\nexec {} hold 0 0 $last",
        plyfs.display()
    );
    for (i, text) in [gone, once, other].iter().enumerate() {
        let pid = m.pid();
        let program = script(&stack, &format!("bad{i}"), text);
        let e = m.upgrade(&program).unwrap_err();
        assert!(e.contains("the program from before"), "{e}");
        assert_ne!(m.pid(), pid);
        assert_eq!(runs(&m), first);
        let status = m.status();
        assert_eq!(status["upgrades"], 0);
        assert!(status["upgrade_failed"].is_string());
        assert_eq!(status["holders"], 2);
        assert_eq!(
            std::io::read_to_string(&open).unwrap().len(),
            if i == 0 { 4 } else { 0 }
        );
        fs::write(m.path().join("b"), text).unwrap();
    }
    assert_eq!(m.log().matches("not upgraded").count(), 3);
    m.kill();
    let other = copy_of_program(&stack, "other");
    m.upgrade(&other).unwrap();
    assert_eq!(runs(&m), other);
    assert!(m.status()["upgrade_failed"].is_null());
    drop(open);
    nix::mount::umount(m.path()).unwrap();
    wait_until("the daemons have gone", || m.has_gone());
    stack.assert_lowers_unchanged();
}
