//! Layers made to hurt, and neighbours that change them: nothing leaves a layer's root, nothing hangs.
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use plyfs_testkit::{Stack, mount_kernel, mount_plyfs, need_fuse, need_overlay, need_root};

use crate::support::{errno, names, read};

/// What nobody may see through a mount: it lies beside the layers.
const SECRET: &str = "secret of the machine";

fn mark(path: &Path, name: &str, value: &[u8]) {
    xattr::set(path, format!("trusted.overlay.{name}"), value).unwrap();
}

/// Everything that can be read at and below `dir`, whatever fails on the way; ends by itself where a
/// tree has no end.
fn walk(dir: &Path, depth: usize, seen: &mut String) {
    assert!(depth < 40, "a tree without an end at {dir:?}");
    let Ok(list) = fs::read_dir(dir) else { return };
    for entry in list.flatten() {
        let path = entry.path();
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            walk(&path, depth + 1, seen);
        } else if meta.is_file() {
            seen.push_str(&String::from_utf8_lossy(
                &fs::read(&path).unwrap_or_default(),
            ));
        }
    }
}

/// How looking at a path ended, for comparing.
fn outcome(path: &Path) -> Result<String, Errno> {
    let told = |e: io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(0));
    let meta = path.symlink_metadata().map_err(told)?;
    if meta.is_dir() {
        let list = fs::read_dir(path).map_err(told)?;
        let mut all: Vec<_> = list
            .map(|e| e.map(|e| e.file_name()))
            .collect::<Result<_, _>>()
            .map_err(told)?;
        all.sort();
        return Ok(format!("{all:?}"));
    }
    let text = fs::read(path).map_err(told)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

const LOWER: &str = "d a\nf a/inner = one\nd b\nf b/other = two\nf file = three";

/// A stack over which `craft` has been, and a secret beside its layers.
fn crafted(craft: impl Fn(&Stack)) -> Stack {
    let stack = Stack::planted(&[LOWER]);
    fs::write(stack.dir().join("secret"), SECRET).unwrap();
    craft(&stack);
    stack
}

/// Mounts what was crafted, looks everywhere, and compares what is at `paths` with the kernel.
fn looked_at(options: &str, paths: &[&str], craft: impl Fn(&Stack)) {
    need_root!();
    need_overlay!();
    need_fuse!();
    let by_kernel = crafted(&craft);
    let oracle = mount_kernel(&by_kernel, options);
    let want: Vec<_> = paths.iter().map(|p| outcome(&oracle.join(p))).collect();
    oracle.unmount();
    let stack = crafted(&craft);
    let mounted = mount_plyfs(&stack, options);
    let got: Vec<_> = paths.iter().map(|p| outcome(&mounted.join(p))).collect();
    let mut seen = String::new();
    walk(mounted.path(), 0, &mut seen);
    assert!(!seen.contains(SECRET), "{seen}");
    // It goes on serving.
    fs::write(mounted.join("new"), "written").unwrap();
    assert_eq!(read(mounted.join("new")), "written");
    assert_eq!(read(mounted.join("file")), "three");
    mounted.unmount();
    stack.assert_lowers_unchanged();
    assert_eq!(got, want, "kernel overlayfs answers the second: {paths:?}");
}

fn redirected(stack: &Stack, name: &str, value: &[u8]) {
    let dir = stack.upper().join(name);
    fs::create_dir(&dir).unwrap();
    mark(&dir, "redirect", value);
}

#[test]
fn redirects_to_what_is_no_directory() {
    looked_at("redirect_dir=on", &["to_file", "missing"], |stack| {
        redirected(stack, "to_file", b"/a/inner");
        redirected(stack, "missing", b"/b/missing/far");
    });
}

/// A mark with names that are none is refused, or leads nowhere; nothing else is seen.
#[test]
fn redirects_with_dots() {
    need_root!();
    need_fuse!();
    for value in [
        &b"/../secret"[..],
        b"..",
        b".",
        b"//a",
        b"/a/../../..",
        b"/./a",
        b"a\0b",
        &[b'x'; 300],
    ] {
        let stack = crafted(|stack| redirected(stack, "way", value));
        let mounted = mount_plyfs(&stack, "redirect_dir=on");
        let mut seen = String::new();
        walk(mounted.path(), 0, &mut seen);
        assert!(!seen.contains(SECRET), "{value:?}: {seen}");
        match outcome(&mounted.join("way")) {
            Ok(list) => assert_eq!(list, "[]", "{value:?}"),
            Err(e) => assert!(matches!(e, Errno::EIO | Errno::EINVAL), "{value:?}: {e}"),
        }
        assert_eq!(read(mounted.join("file")), "three");
        mounted.unmount();
    }
}

#[test]
fn redirects_in_a_circle_end() {
    looked_at("redirect_dir=on", &["x/inner", "y/other", "x/y"], |stack| {
        // One that finds its own parent below itself: kernel overlayfs answers ESTALE for it, as
        // it keeps one inode for each lower directory.
        redirected(stack, "x", b"/a");
        redirected(stack, "y", b"/b");
        fs::create_dir(stack.upper().join("x/x")).unwrap();
        mark(&stack.upper().join("x/x"), "redirect", b"/a");
    });
}

#[test]
fn metacopies_of_nothing_and_of_themselves() {
    let paths = ["nothing", "itself", "directory", "out"];
    looked_at("metacopy=on,redirect_dir=on", &paths, |stack| {
        for (name, redirect) in [
            ("nothing", &b"/missing"[..]),
            ("itself", b"/itself"),
            ("directory", b"/a"),
            ("out", b"/secret"),
        ] {
            let file = stack.upper().join(name);
            fs::write(&file, "").unwrap();
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_len(6)
                .unwrap();
            mark(&file, "metacopy", b"");
            mark(&file, "redirect", redirect);
        }
    });
}

/// Marks of all kinds with values that nobody writes: their objects may fail, the others may not.
#[test]
fn marks_that_mean_nothing() {
    need_root!();
    need_fuse!();
    let values = [&b""[..], b"\0", b"zzz", &[0xff; 64], &[b'/'; 3000]];
    let marks = [
        "opaque", "redirect", "metacopy", "origin", "upper", "impure", "nlink", "whiteout",
        "protattr", "uuid",
    ];
    for value in values {
        let stack = crafted(|stack| {
            for (i, name) in marks.iter().enumerate() {
                let (dir, file) = (
                    stack.upper().join(format!("d{i}")),
                    stack.upper().join(format!("f{i}")),
                );
                fs::create_dir(&dir).unwrap();
                fs::write(&file, "").unwrap();
                mark(&dir, name, value);
                mark(&file, name, value);
            }
        });
        let mounted = mount_plyfs(&stack, "metacopy=on,redirect_dir=on");
        let mut seen = String::new();
        walk(mounted.path(), 0, &mut seen);
        assert!(!seen.contains(SECRET));
        for i in 0..marks.len() {
            // It may be refused, and must be answered.
            drop(fs::write(mounted.join(format!("f{i}")), "x"));
            drop(fs::rename(
                mounted.join(format!("d{i}")),
                mounted.join(format!("e{i}")),
            ));
        }
        assert_eq!(read(mounted.join("file")), "three");
        mounted.unmount();
        stack.assert_lowers_unchanged();
    }
}

/// A neighbour puts a symbolic link that leads out in the place of a directory, again and again.
#[test]
fn links_swapped_in_by_a_neighbour() {
    need_root!();
    need_fuse!();
    let stack = crafted(|stack| {
        fs::create_dir(stack.upper().join("swapped")).unwrap();
        fs::write(stack.upper().join("swapped/secret"), "harmless").unwrap();
        symlink(stack.dir(), stack.work().join("../link")).unwrap();
    });
    let mounted = mount_plyfs(&stack, "timeout=0");
    let done = AtomicBool::new(false);
    let upper = stack.upper();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (dir, link, aside) = (
                upper.join("swapped"),
                stack.dir().join("link"),
                stack.dir().join("aside"),
            );
            while !done.load(Ordering::Relaxed) {
                fs::rename(&dir, &aside).unwrap();
                fs::rename(&link, &dir).unwrap();
                fs::rename(&dir, &link).unwrap();
                fs::rename(&aside, &dir).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(3);
        let mut answered = 0;
        while Instant::now() < until {
            let path = mounted.join("swapped/secret");
            // Through the mount the link itself may show, and the caller's kernel follows it: not
            // the daemon. So the path is taken without following.
            if mounted
                .join("swapped")
                .symlink_metadata()
                .is_ok_and(|m| m.is_dir())
            {
                answered += usize::from(fs::symlink_metadata(&path).is_ok());
            }
            drop(fs::write(mounted.join("swapped/made"), "x"));
            drop(fs::remove_file(mounted.join("swapped/made")));
        }
        done.store(true, Ordering::Relaxed);
        assert!(answered > 0);
    });
    assert_eq!(read(stack.dir().join("secret")), SECRET);
    assert_eq!(read(mounted.join("file")), "three");
    mounted.unmount();
}

/// Layers that lose and get objects while they are mounted: errors at most.
#[test]
fn lowers_that_change_while_mounted() {
    need_root!();
    need_fuse!();
    let stack = crafted(|stack| {
        let lower = stack.dir().join("changing");
        for dir in ["x", "y"] {
            fs::create_dir_all(lower.join(dir)).unwrap();
            fs::write(lower.join(dir).join("in"), "there").unwrap();
        }
    });
    // Not one of those that tests watch for changes.
    let lower = stack.dir().join("changing");
    let more = format!("timeout=0,lowerdir+={}", lower.display());
    let mounted = mount_plyfs(&stack, &more);
    assert_eq!(names(mounted.path()).len(), 5);
    fs::remove_dir_all(lower.join("x")).unwrap();
    fs::write(lower.join("x"), "a file now").unwrap();
    fs::remove_file(lower.join("y/in")).unwrap();
    symlink(stack.dir().join("secret"), lower.join("y/in")).unwrap();
    for path in ["x", "x/in", "y", "y/in", "file"] {
        drop(fs::symlink_metadata(mounted.join(path)));
        let mut open = fs::OpenOptions::new();
        let nofollow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        drop(
            open.append(true)
                .custom_flags(nofollow)
                .open(mounted.join(path)),
        );
    }
    let mut seen = String::new();
    walk(mounted.path(), 0, &mut seen);
    assert!(!seen.contains(SECRET));
    assert_eq!(read(stack.dir().join("secret")), SECRET);
    assert_eq!(read(mounted.join("file")), "three");
    mounted.unmount();
}

/// The root of a layer can be no whiteout: a device in its place is no layer.
#[test]
fn a_whiteout_in_the_place_of_a_root() {
    need_root!();
    need_fuse!();
    let stack = crafted(|_| ());
    let root = stack.dir().join("whiteout");
    let none = nix::sys::stat::makedev(0, 0);
    let mode = nix::sys::stat::Mode::empty();
    nix::sys::stat::mknod(&root, nix::sys::stat::SFlag::S_IFCHR, mode, none).unwrap();
    let out = Command::new(plyfs_testkit::bin())
        .args(["mount", "--lower"])
        .args([&root, &stack.mnt()])
        .output()
        .unwrap();
    assert!(!out.status.success());
    // An xattr that says so of the upper's root hides nothing above it and ends nothing.
    mark(&stack.upper(), "whiteout", b"y");
    mark(&stack.upper(), "opaque", b"y");
    let mounted = mount_plyfs(&stack, "");
    fs::write(mounted.join("new"), "x").unwrap();
    assert!(names(mounted.path()).contains(&"new".to_owned()));
    mounted.unmount();
}

/// What an upper says of owners and capabilities gives nobody more than its own daemon has.
#[test]
fn no_privilege_by_an_xattr() {
    need_root!();
    need_fuse!();
    let stack = crafted(|_| ());
    let mounted = mount_plyfs(&stack, "xattr_permissions=2");
    fs::write(mounted.join("program"), "#!/bin/sh\n").unwrap();
    for name in [
        "user.containers.override_stat",
        "user.fuseoverlayfs.override_stat",
        "trusted.overlay.redirect",
    ] {
        let set = xattr::set(mounted.join("program"), name, b"0:0:104755:file");
        if set.is_ok() {
            // Kept under another name, as what nested overlays keep; it is no mark of this one.
            assert_eq!(
                fs::metadata(mounted.join("program")).unwrap().mode() & 0o6000,
                0,
                "{name}"
            );
        }
    }
    let refused = xattr::set(
        mounted.join("program"),
        "user.containers.override_stat",
        b"0:0:104755:file",
    );
    assert!(matches!(
        errno(refused),
        Errno::EPERM | Errno::EOPNOTSUPP | Errno::EACCES
    ));
    mounted.unmount();
}
