//! Mode, owner, times, link counts and the numbers of the file system.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;

use crate::support::{agree, as_user, errno, on_plyfs, run};

#[test]
fn the_mode_is_changed_in_every_layer() {
    agree(&["f a\nd d", "f b\nd e"], |m| {
        for name in ["a", "b", "d", "e"] {
            for mode in [0o4755, 0o000, 0o1777, 0o640] {
                fs::set_permissions(m.join(name), fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(
                    fs::metadata(m.join(name)).unwrap().mode() & 0o7777,
                    mode,
                    "{name}"
                );
            }
        }
    });
}

#[test]
fn changing_the_owner_takes_setuid_away() {
    agree(
        &["f a\nm 6755 a\nf b\nm 6745 b\nl l -> a\nd d\nm 2755 d"],
        |m| {
            for name in ["a", "b", "d"] {
                chown(m.join(name), Some(8), Some(9)).unwrap();
            }
            lchown(m.join("l"), Some(7), None).unwrap();
            let mode = |name: &str| fs::symlink_metadata(m.join(name)).unwrap().mode() & 0o7777;
            assert_eq!((mode("a"), mode("d")), (0o755, 0o2755));
            assert_eq!(fs::symlink_metadata(m.join("l")).unwrap().uid(), 7);
            assert_eq!(fs::metadata(m.join("a")).unwrap().uid(), 8);
        },
    );
}

#[test]
fn users_change_only_what_is_theirs() {
    agree(
        &["f own\nu 1000:1000 own\nf root\nm 666 root\nd d\nu 1000:50 d\nm 755 d"],
        |m| {
            assert!(as_user(m, "chmod 600 own && touch -d @5 own && touch root").0);
            for script in [
                "chmod 777 root",
                "chown 1000 root",
                "chown 0 own",
                "touch -d @5 root",
            ] {
                assert!(!as_user(m, script).0, "{script}");
            }
            // Who is not in the group cannot set setgid.
            assert!(as_user(m, "chmod 2777 d").0);
            assert_eq!(fs::metadata(m.join("d")).unwrap().mode() & 0o7777, 0o777);
        },
    );
}

#[test]
fn times_are_set_to_the_nanosecond() {
    agree(&["f a\nd d\nl l -> a"], |m| {
        let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
        for name in ["a", "d"] {
            let file = fs::File::open(m.join(name)).unwrap();
            file.set_times(fs::FileTimes::new().set_accessed(time).set_modified(time))
                .unwrap();
            let meta = fs::metadata(m.join(name)).unwrap();
            assert_eq!(
                (meta.modified().unwrap(), meta.accessed().unwrap()),
                (time, time),
                "{name}"
            );
        }
        run(m, "touch", &["-h", "-d", "@77", "l"]);
        assert_eq!(fs::symlink_metadata(m.join("l")).unwrap().mtime(), 77);
        run(m, "touch", &["-d", "1960-01-01", "a"]);
        assert!(fs::metadata(m.join("a")).unwrap().mtime() < 0);
    });
}

#[test]
fn changing_a_directory_moves_its_mtime() {
    agree(
        &["d d\nt 10 d\nd e\nt 11 e\nf e/x\nd f\nt 12 f\nf f/y"],
        |m| {
            let mtime = |name: &str| fs::metadata(m.join(name)).unwrap().mtime();
            fs::write(m.join("d/new"), "").unwrap();
            fs::remove_file(m.join("e/x")).unwrap();
            fs::write(m.join("f/y"), "changed").unwrap();
            assert!(mtime("d") > 11 && mtime("e") > 11);
            assert_eq!(mtime("f"), 12);
        },
    );
}

#[test]
fn the_ctime_moves_with_every_change() {
    on_plyfs(&["f a"], "", |_, m| {
        let ctime = || {
            let meta = fs::metadata(m.join("a")).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let mut last = ctime();
        let mut moved = |what: &str| {
            let now = ctime();
            assert!(now > last, "{what}");
            last = now;
            std::thread::sleep(Duration::from_millis(12));
        };
        run(m.path(), "chmod", &["600", "a"]);
        moved("chmod");
        xattr::set(m.join("a"), "user.x", b"1").unwrap();
        moved("setxattr");
        fs::write(m.join("a"), "content").unwrap();
        moved("write");
        fs::hard_link(m.join("a"), m.join("b")).unwrap();
        moved("link");
        fs::rename(m.join("b"), m.join("c")).unwrap();
        fs::remove_file(m.join("c")).unwrap();
        moved("unlink");
    });
}

#[test]
fn the_file_system_tells_its_size() {
    agree(&["d d"], |m| {
        let stat = nix::sys::statvfs::statvfs(m).unwrap();
        assert!(stat.blocks() > 0 && stat.files() > 0 && stat.blocks_free() <= stat.blocks());
        assert!(stat.name_max() >= 255);
        assert!(!run(m, "df", &["."]).is_empty());
    });
}

#[test]
fn one_mount_is_one_device() {
    on_plyfs(&["f a\nd d", "f b\nf d/c"], "", |_, m| {
        let dev = |name: &str| fs::metadata(m.join(name)).unwrap().dev();
        fs::write(m.join("new"), "").unwrap();
        for name in ["a", "b", "d", "d/c", "new"] {
            assert_eq!(dev(name), dev("."), "{name}");
        }
        run(m.path(), "find", &[".", "-xdev"]);
    });
}

#[test]
fn inode_numbers_are_the_same_after_a_remount() {
    crate::support::agree(&["f a\nd d", "f d/b\nl l -> a"], |m| {
        // On one file system, kernel overlayfs keeps them; so must we. The file carries them over.
        let ino = |name: &str| fs::symlink_metadata(m.join(name)).unwrap().ino();
        fs::write(m.join("a"), "up").unwrap();
        assert_ne!(ino("a"), ino("d/b"));
    });
    let seen = std::cell::RefCell::new(Vec::new());
    let stack = plyfs_testkit::Stack::planted(&["f a\nd d", "f d/b\nl l -> a"]);
    plyfs_testkit::need_fuse!();
    for round in 0..3 {
        let m = plyfs_testkit::mount_plyfs(&stack, "");
        if round == 1 {
            fs::write(m.join("d/b"), "changed").unwrap();
            run(m.path(), "chmod", &["700", "d"]);
        }
        let now = ["a", "d", "d/b", "l"].map(|n| fs::symlink_metadata(m.join(n)).unwrap().ino());
        seen.borrow_mut().push(now);
        m.unmount();
    }
    let seen = seen.into_inner();
    assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:?}");
}

#[test]
fn an_impossible_change_is_refused() {
    agree(&["f a"], |m| {
        assert_eq!(
            errno(fs::set_permissions(
                m.join("no"),
                fs::Permissions::from_mode(0o0)
            )),
            Errno::ENOENT
        );
        assert_eq!(errno(chown(m.join("a/b"), Some(1), None)), Errno::ENOTDIR);
        assert_eq!(nix::unistd::truncate(m, 0), Err(Errno::EISDIR));
        assert_eq!(nix::unistd::truncate(&m.join("a"), -1), Err(Errno::EINVAL));
    });
}

/// Kernel overlayfs sets the time in each case; with cached writes the kernel's FUSE client keeps
/// it and does not pass on a truncation by path to the size a file has.
#[test]
fn truncating_to_the_same_size_sets_the_time_by_descriptor() {
    for (options, by_path) in [("", false), ("writeback=0", true)] {
        on_plyfs(&["f f = content\nt 1000 f"], options, |_, m| {
            let mtime = || fs::metadata(m.join("f")).unwrap().mtime();
            // The file has to be in the upper: its copy-up keeps the time.
            fs::set_permissions(m.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
            nix::unistd::truncate(&m.join("f"), 7).unwrap();
            assert_eq!(mtime() != 1000, by_path, "{options}");
            let file = fs::File::options().write(true).open(m.join("f")).unwrap();
            file.set_len(7).unwrap();
            assert!(mtime() != 1000, "{options}");
        });
    }
}
