//! In a user namespace: no trusted xattrs, no privilege outside, the marks are `user.overlay.*`.
use std::path::Path;
use std::process::Command;

use plyfs_testkit::{Rules, Stack, Tree, bin, need, need_fuse, need_overlay};

use crate::support::{same, written_in_this_test};

/// Mounts `stack` in new user and mount namespaces by `mount`, runs `script` in the merged
/// directory, and takes down what is seen there.
fn in_namespace(stack: &Stack, mount: &str, script: &str, name: &str) -> Tree {
    let saved = stack.dir().join(name);
    // What the kernel has kept of times is on disk when the daemon has ended; plyfs umount waits.
    let umount = match mount {
        PLYFS => r#""$PLYFS" umount "$MNT""#,
        _ => r#"umount "$MNT""#,
    };
    let program = format!(
        "{mount}\n(cd \"$MNT\"\n{script}\n)\n\"$TREECMP\" save \"$MNT\" \"$SAVED\"\n{umount}"
    );
    let run = Command::new("unshare")
        .args(["-Urm", "sh", "-euxc", &program])
        .env("PLYFS", bin())
        .env("OPTIONS", stack.options(""))
        .env("MNT", stack.mnt())
        .env("TREECMP", env!("CARGO_BIN_EXE_treecmp"))
        .env("SAVED", &saved)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{mount}: {}\n{said}", run.status);
    Tree::load(&saved).unwrap()
}

const KERNEL: &str = r#"mount -t overlay -o "userxattr,$OPTIONS" overlay "$MNT""#;
const PLYFS: &str = r#""$PLYFS" -o "$OPTIONS" "$MNT""#;

#[test]
fn a_user_namespace_mounts_as_the_kernel_does() {
    need_overlay!();
    need_fuse!();
    need!("unshare");
    let rules = Rules {
        written_since: Some(written_in_this_test()),
        ..Rules::default()
    };
    let specs = [
        "f a = 1\nd d\nf d/e = 2\nl l -> a",
        "f b = 3\nf d/f = 4\nf gone/x = 5\nm 700 d",
    ];
    let script = "rm a b\nrm -r gone\nmkdir gone\necho new >gone/new\necho more >>d/e\nmv d/f g\n\
        chmod 750 d\necho n >n\nln n h\nln -s x s\nmkfifo p\nsetfattr -n user.note -v n d/e\n\
        setfacl -m u:0:rw d/e\nmkdir u u/v\nmv u/v w\nrmdir u";
    let (oracle, subject) = (Stack::planted(&specs), Stack::planted(&specs));
    let expected = in_namespace(&oracle, KERNEL, script, "seen");
    let got = in_namespace(&subject, PLYFS, script, "seen");
    same(
        "kernel overlayfs and plyfs in a user namespace",
        &expected,
        &got,
        &rules,
    );
    let again = Rules::default();
    let by_kernel = in_namespace(&subject, KERNEL, ":", "by-kernel");
    same(
        "what plyfs wrote, by plyfs and by the kernel",
        &got,
        &by_kernel,
        &again,
    );
    let by_plyfs = in_namespace(&oracle, PLYFS, ":", "by-plyfs");
    same(
        "what the kernel wrote, by the kernel and by plyfs",
        &expected,
        &by_plyfs,
        &again,
    );
    let marks = |path: &Path| xattr::get(path, "user.overlay.opaque").unwrap();
    assert_eq!(
        marks(&subject.upper().join("gone")).as_deref(),
        Some(&b"y"[..])
    );
    oracle.assert_lowers_unchanged();
    subject.assert_lowers_unchanged();
}

#[test]
fn marks_of_root_mean_nothing_there() {
    // A user namespace cannot read trusted xattrs, so neither the kernel nor plyfs sees this one.
    need_overlay!();
    need_fuse!();
    need!("unshare");
    let stack = Stack::planted(&["o d\nf d/a", "f d/b"]).read_only();
    let expected = in_namespace(&stack, KERNEL, ":", "by-kernel");
    let got = in_namespace(&stack, PLYFS, ":", "by-plyfs");
    assert_eq!(got.paths(), [".", "d", "d/a", "d/b"]);
    same(
        "one stack by the kernel and by plyfs",
        &expected,
        &got,
        &Rules::default(),
    );
}
