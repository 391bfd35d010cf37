//! Uppers on other file systems: what those can do decides the formats, and what users see is the same.
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use plyfs_testkit::{
    Rules, Stack, Tree, bin, mount_plyfs, mounted_at, need, need_fuse, snapshot, unmount,
    wait_until,
};
use serde_json::Value;

use crate::copy_up_faults::backing::Backing;
use crate::support::{as_user, assert_ok, errno, names, read, run, same, written_in_this_test};

const LOWERS: [&str; 2] = [
    "f top = 1\nd d\nf d/low = 2\nf gone = 3\nf .wh.hidden\nd e\nf e/x = 4",
    "f d/deep/a = 5\nf d/deep/b = 6\nf gonedir/x = 7\nf gonedir/sub/y = 8\nf hidden = 9\nl l -> top\n\
     f twin = 10\nh twin2 -> twin\nf e/y = 11\nf swap = 12\nf over/z = 13\nf moved = 14\np pipe\nu 3:4 twin",
];

fn exchange(a: &Path, b: &Path) {
    renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).unwrap();
}

/// Every way to delete, to use a deleted name again, and to move over one.
fn work(m: &Path) {
    run(
        m,
        "sh",
        &[
            "-ec",
            "rm gone; rm -r gonedir; mkdir gonedir; echo new >gonedir/new; echo again >gone; rm gone
             echo more >>d/low; rm d/deep/a; chmod 750 d/deep; mv moved e/moved; mv top over/top
             rm -r e; mkdir own; echo own >own/file; mv own e; rm over/z over/top
             mkdir empty; echo f >empty/f; mv -T empty over; ln twin linked; chown 5:6 twin2; rm twin
             mkdir -p a/b; mv a/b gonedir/b; rm -r d/deep; ln -s l s; mkfifo pipe2; rm pipe; rmdir a
             touch hidden; rm hidden; mkdir hidden; rm l; mkdir l; rmdir l; echo file >l",
        ],
    );
    fs::write(m.join("fresh"), "fresh").unwrap();
    exchange(&m.join("fresh"), &m.join("swap"));
    fs::create_dir(m.join("freshdir")).unwrap();
    fs::write(m.join("freshdir/in"), "").unwrap();
    exchange(&m.join("freshdir"), &m.join("swap"));
}

/// What the work leaves where the upper is on an ordinary disk, and how to compare with it.
fn wanted() -> (Tree, Rules) {
    let rules = Rules {
        written_since: Some(written_in_this_test()),
        ..Rules::default()
    };
    let stack = Stack::planted(&LOWERS);
    let m = mount_plyfs(&stack, "");
    work(m.path());
    let tree = snapshot(m.path());
    m.unmount();
    (tree, rules)
}

fn in_force(mountpoint: &Path, name: &str) -> (Value, Value) {
    let ask = || {
        let mut status = Command::new(bin());
        status.args(["status", "--json"]).arg(mountpoint);
        status.output().unwrap()
    };
    // A mount in the foreground is there before its socket is.
    wait_until("the daemon answers", || ask().status.success());
    let all: Value = serde_json::from_str(&assert_ok(&ask())).unwrap();
    let found = find(&all, name).unwrap_or_else(|| panic!("no {name} in {all}"));
    (found["value"].clone(), found["why"].clone())
}

/// The entry of `options` with this name, wherever the answer has it.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) if map.get("name").is_some_and(|n| n == name) => Some(value),
        Value::Object(map) => map.values().find_map(|v| find(v, name)),
        Value::Array(list) => list.iter().find_map(|v| find(v, name)),
        _ => None,
    }
}

/// Does the work on an upper in `backing`; the same is seen, at once and after a remount.
fn the_same_on(
    kind: &str,
    wanted: &(Tree, Rules),
    whiteouts: &str,
    make: impl Fn(&Stack) -> Backing,
) {
    let stack = Stack::planted(&LOWERS);
    let backing = make(&stack).take_upper(&stack);
    let m = mount_plyfs(&stack, "redirect_dir=off");
    assert_eq!(in_force(m.path(), "whiteouts").0, whiteouts, "{kind}");
    work(m.path());
    let got = snapshot(m.path());
    same(kind, &wanted.0, &got, &wanted.1);
    m.unmount();
    let m = mount_plyfs(&stack, "");
    same(
        &format!("{kind}, remounted"),
        &got,
        &snapshot(m.path()),
        &Rules::default(),
    );
    m.unmount();
    // As a lower layer, as a container tool's diff and commit see it.
    let view = Stack::new(0);
    let layers = [stack.upper()].into_iter().chain(stack.lowers().to_vec());
    let layers: Vec<_> = layers.map(|p| p.display().to_string()).collect();
    let out = Command::new(bin())
        .args(["-o", &format!("lowerdir={}", layers.join(":"))])
        .arg(view.mnt())
        .output()
        .unwrap();
    assert_ok(&out);
    let seen = snapshot(&view.mnt());
    unmount(&view.mnt()).unwrap();
    same(
        &format!("{kind}, as a layer"),
        &got,
        &seen,
        &Rules::default(),
    );
    stack.assert_lowers_unchanged();
    drop(backing);
}

#[test]
fn uppers_on_tmpfs_ramfs_xfs_and_btrfs_look_the_same() {
    need_fuse!();
    need!("mkfs.xfs", "mkfs.btrfs");
    let wanted = wanted();
    the_same_on("tmpfs", &wanted, "char 0:0", |s| {
        Backing::tmpfs(s, 16 << 20)
    });
    the_same_on("ramfs", &wanted, ".wh.NAME", Backing::ramfs);
    the_same_on("xfs", &wanted, "char 0:0", |s| {
        Backing::image(s, "xfs", "320M", &[], "defaults")
    });
    the_same_on("btrfs", &wanted, "char 0:0", |s| {
        Backing::image(s, "btrfs", "128M", &[], "defaults")
    });
}

#[test]
fn an_upper_without_attributes_says_what_it_cannot_do() {
    need_fuse!();
    let long = "n".repeat(252);
    let stack = Stack::planted(&["f a\nd d\nf d/x\nf capable"]);
    let stack = {
        fs::write(stack.lower(0).join(&long), "").unwrap();
        run(stack.lower(0), "setcap", &["cap_net_raw+ep", "capable"]);
        stack.sealed()
    };
    let backing = Backing::ramfs(&stack).take_upper(&stack);
    let m = mount_plyfs(&stack, "redirect_dir=on,metacopy=on,index=on");
    for (name, off) in [
        ("redirect_dir", "follow"),
        ("metacopy", "off"),
        ("index", "off"),
    ] {
        assert_eq!(in_force(m.path(), name), (off.into(), "probed".into()));
    }
    assert_eq!(in_force(m.path(), "xattrs").0, "none");
    // Names that say what is deleted are nobody's.
    for name in [".wh.a", ".wh.new", ".wh..wh..opq"] {
        assert_eq!(errno(fs::write(m.join(name), "")), Errno::EINVAL, "{name}");
        assert!(!m.join(name).exists());
    }
    assert_eq!(
        errno(fs::rename(m.join("a"), m.join(".wh.b"))),
        Errno::EINVAL
    );
    // There is no room for the prefix.
    assert_eq!(errno(fs::remove_file(m.join(&long))), Errno::ENAMETOOLONG);
    fs::write(m.join(&long), "kept").unwrap();
    assert_eq!(read(m.join(&long)), "kept");
    assert_eq!(errno(fs::rename(m.join("d"), m.join("e"))), Errno::EXDEV);
    assert_eq!(
        errno(xattr::set(m.join("a"), "user.x", b"y")),
        Errno::EOPNOTSUPP
    );
    // What grants something is not dropped in silence, as in the kernel.
    let chowned = std::os::unix::fs::chown(m.join("capable"), Some(1), None);
    assert_eq!(errno(chowned), Errno::EOPNOTSUPP);
    m.unmount();
    drop(backing);
}

/// A file system without access control lists says so when it is asked for one; that is no reason to
/// refuse access to a file.
#[test]
fn files_of_others_can_be_read_where_no_lists_can_be() {
    need_fuse!();
    let stack = Stack::planted(&["f upper = 1\nu 3:4 upper\nm 664 upper"]);
    let backing = Backing::ramfs(&stack).take_upper(&stack);
    let lower = backing.dir().join("lower");
    fs::create_dir(&lower).unwrap();
    plyfs_testkit::plant(&lower, "f low = 2\nu 3:4 low\nm 664 low");
    let lowers = format!("lowerdir={}:{}", stack.lower(0).display(), lower.display());
    let options = stack.options("").into_string().unwrap();
    let own = format!("lowerdir={}", stack.lower(0).display());
    let options = options.replacen(&own, &lowers, 1);
    let out = Command::new(bin())
        .args(["-o", &options])
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert_ok(&out);
    let mnt = stack.mnt();
    std::os::unix::fs::chown(mnt.join("upper"), Some(5), Some(6)).unwrap();
    assert_eq!(run(&mnt, "cat", &["upper", "low"]), "12");
    assert_eq!(as_user(&mnt, "cat upper low"), (true, "12".to_owned()));
    let acl = xattr::get(mnt.join("low"), "system.posix_acl_access").unwrap();
    assert_eq!(acl, None);
    unmount(&mnt).unwrap();
    drop(backing);
}

/// What fuse-overlayfs leaves in an upper of this kind is understood.
#[test]
fn deletions_by_name_of_others_are_read() {
    need_fuse!();
    let stack = Stack::planted(&["f a\nf d/x\nf d/y\nf e/z\nf f"]);
    let backing = Backing::ramfs(&stack).take_upper(&stack);
    let upper = stack.upper();
    for dir in ["d", "e"] {
        fs::create_dir(upper.join(dir)).unwrap();
    }
    for file in [".wh.a", "d/.wh..wh..opq", "d/own", "e/.wh.z"] {
        fs::write(upper.join(file), "").unwrap();
    }
    run(&upper, "mknod", &["f", "c", "0", "0"]);
    let m = mount_plyfs(&stack, "");
    assert_eq!(names(m.path()), ["d", "e"]);
    assert_eq!(names(m.join("d")), ["own"]);
    assert_eq!(names(m.join("e")), Vec::<String>::new());
    for gone in ["a", "d/x", "e/z", "f", "d/.wh..wh..opq"] {
        assert!(fs::symlink_metadata(m.join(gone)).is_err(), "{gone}");
    }
    fs::remove_dir_all(m.join("d")).unwrap();
    for made in ["a", "d", "f"] {
        fs::create_dir(m.join(made)).unwrap();
    }
    assert_eq!(names(m.join("d")), Vec::<String>::new());
    fs::remove_dir(m.join("e")).unwrap();
    m.unmount();
    let m = mount_plyfs(&stack, "");
    assert_eq!(names(m.path()), ["a", "d", "f"]);
    assert_eq!(names(m.join("d")), Vec::<String>::new());
    m.unmount();
    drop(backing);
}

/// An old kernel in a user namespace, or a file system that knows no devices.
#[test]
fn without_mknod_deletions_are_told_by_names() {
    need_fuse!();
    need!("strace");
    let stack = Stack::planted(&LOWERS);
    let mnt = stack.mnt();
    let mut daemon = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=mknodat"])
        .args(["-e", "inject=mknodat:error=EPERM"])
        .arg(bin())
        .args(["-f", "-o"])
        .arg(stack.options(""))
        .arg(&mnt)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the mount", || mounted_at(&mnt).is_some());
    assert_eq!(in_force(&mnt, "whiteouts").0, ".wh.NAME");
    // A fifo is made by mknod too.
    let refused = Command::new("mkfifo")
        .arg(mnt.join("pipe3"))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    run(
        &mnt,
        "sh",
        &[
            "-ec",
            "rm gone; rm -r gonedir; mkdir gonedir; rm -r e; mkdir e; mv moved e/moved",
        ],
    );
    assert_eq!(names(mnt.join("gonedir")), Vec::<String>::new());
    unmount(&mnt).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(stack.upper().join(".wh.gone").is_file());
    // The upper stays as it began, also where devices can be made again.
    let m = mount_plyfs(&stack, "");
    assert_eq!(in_force(m.path(), "whiteouts").0, ".wh.NAME");
    for gone in ["gone", "moved", "e/y", "gonedir/x", "hidden"] {
        assert!(m.join(gone).symlink_metadata().is_err(), "{gone}");
    }
    assert_eq!(read(m.join("e/moved")), "14");
    m.unmount();
}

#[test]
fn an_upper_that_renames_only_by_replacing_is_refused() {
    need_fuse!();
    need!("strace");
    let stack = Stack::planted(&LOWERS);
    let out = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2"])
        .args(["-e", "inject=renameat2:error=EINVAL"])
        .arg(bin())
        .arg("-o")
        .arg(stack.options(""))
        .arg(stack.mnt())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success(), "{said}");
    assert!(
        said.contains("RENAME_NOREPLACE") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(mounted_at(&stack.mnt()), None);
}
