//! Upper, workdir and mountpoint inside a lower layer: a volume that holds its own storage.
use std::fs;
use std::process::Command;

use plyfs_testkit::{Stack, bin, mount_plyfs, need, need_fuse, unmount};

use crate::support::{assert_ok, names, read, run};

/// `lowerdir=DIR` where everything else of the stack lies in DIR too.
fn options(stack: &Stack) -> String {
    let [dir, upper, work] = [stack.dir().to_owned(), stack.upper(), stack.work()]
        .map(|path| path.display().to_string());
    format!("lowerdir={dir},upperdir={upper},workdir={work},private")
}

fn stack() -> Stack {
    let stack = Stack::planted(&["f a = 1\nf d/b = 2"]);
    fs::write(stack.dir().join("file"), "host").unwrap();
    stack
}

fn works_and_leaves_the_lower_alone(stack: &Stack) {
    let mnt = stack.mnt();
    assert_eq!(read(mnt.join("file")), "host");
    assert_eq!(read(mnt.join("l0/d/b")), "2");
    fs::write(mnt.join("file"), "changed").unwrap();
    fs::remove_dir_all(mnt.join("l0/d")).unwrap();
    fs::write(mnt.join("new"), "new").unwrap();
    // Neither our own mount nor what is being written is found again below.
    for dir in ["mnt", "upper", "work"] {
        assert_eq!(names(mnt.join(dir)), Vec::<String>::new(), "{dir}");
    }
    run(&mnt, "find", &[".", "-type", "f"]);
    // A copy of the whole tree into itself has an end.
    fs::create_dir(mnt.join("copy")).unwrap();
    run(&mnt, "cp", &["-r", "l0", "upper", "copy"]);
    assert_eq!(names(mnt.join("copy")), ["l0", "upper"]);
    // Names below the directories that are hidden are free.
    fs::write(mnt.join("upper/own"), "x").unwrap();
    assert_eq!(names(mnt.join("upper")), ["own"]);
}

fn check_after(stack: &Stack) {
    assert_eq!(read(stack.dir().join("file")), "host");
    assert_eq!(read(stack.lower(0).join("d/b")), "2");
    assert!(!stack.dir().join("new").exists());
    assert_eq!(read(stack.upper().join("file")), "changed");
    assert!(!stack.upper().join("own").exists());
    assert_eq!(names(stack.mnt()), Vec::<String>::new());
    stack.assert_lowers_unchanged();
}

#[test]
fn a_volume_may_hold_its_own_storage() {
    need_fuse!();
    let stack = stack();
    let out = Command::new(bin())
        .args(["-o", &options(&stack)])
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert_ok(&out);
    works_and_leaves_the_lower_alone(&stack);
    unmount(&stack.mnt()).unwrap();
    check_after(&stack);
}

#[test]
fn mounts_inside_the_volume_stay_out_of_it() {
    need_fuse!();
    // A second mount beside the first is an empty directory in it, not a way to wait for each other.
    let stack = stack();
    let other = Stack::planted(&["f inside = 1"]);
    let beside = stack.dir().join("beside");
    fs::create_dir(&beside).unwrap();
    let mount = |options: &str, mnt: &std::path::Path| {
        let out = Command::new(bin()).args(["-o", options]).arg(mnt).output();
        let out = out.unwrap();
        assert_ok(&out);
    };
    mount(&format!("lowerdir={}", other.lower(0).display()), &beside);
    mount(&options(&stack), &stack.mnt());
    assert_eq!(names(&beside), ["inside"]);
    assert_eq!(names(stack.mnt().join("beside")), Vec::<String>::new());
    unmount(&beside).unwrap();
    unmount(&stack.mnt()).unwrap();
}

#[test]
fn in_a_user_namespace_too() {
    need_fuse!();
    need!("unshare");
    let stack = stack();
    let script = r#"
        "$PLYFS" -o "$OPTIONS" "$MNT"
        cd "$MNT"
        test "$(cat file)" = host
        echo changed >file
        rm -r l0/d
        test -z "$(ls -A mnt)" && test -z "$(ls -A upper)" && test -z "$(ls -A work)"
        mkdir copy
        cp -r l0 upper copy
        cd /
        umount "$MNT"
    "#;
    let out = Command::new("unshare")
        .args(["-Urm", "sh", "-eux", "-c", script])
        .env("PLYFS", bin())
        .env("OPTIONS", options(&stack))
        .env("MNT", stack.mnt())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    assert_eq!(read(stack.dir().join("file")), "host");
    assert_eq!(read(stack.lower(0).join("d/b")), "2");
    stack.assert_lowers_unchanged();
}

#[test]
fn an_ordinary_user_is_told_what_it_takes() {
    need_fuse!();
    need!("setpriv", "fusermount3");
    let stack = stack();
    let program = stack.dir().join("plyfs");
    fs::copy(bin(), &program).unwrap();
    run(
        stack.dir(),
        "chown",
        &["-R", "1000:1000", "upper", "work", "mnt", "l0"],
    );
    let script = format!(
        "exec '{}' -o '{}' '{}'",
        program.display(),
        options(&stack),
        stack.mnt().display()
    );
    let (ok, said) = crate::support::as_user(stack.dir(), &script);
    assert!(!ok);
    let told = ["/dev/fuse", "needs a clone of that mount"];
    assert!(told.iter().any(|t| said.contains(t)), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}

#[test]
fn an_upper_is_used_again_where_it_lies_in_the_lower() {
    need_fuse!();
    let stack = stack();
    for _ in 0..2 {
        let out = Command::new(bin())
            .args(["-o", &options(&stack)])
            .arg(stack.mnt())
            .output()
            .unwrap();
        assert_ok(&out);
        fs::write(stack.mnt().join("file"), "changed").unwrap();
        unmount(&stack.mnt()).unwrap();
    }
    assert_eq!(read(stack.dir().join("file")), "host");
    // The same upper over the layer alone.
    let m = mount_plyfs(&stack, "");
    assert_eq!(read(m.join("file")), "changed");
}
