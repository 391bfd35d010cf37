//! The contract between a container tool and its mount program, without the tools.
//!
//! What is passed here was captured from Podman, Buildah, Docker and containerd; the faults are
//! those that other mount programs have shown under them.
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plyfs_testkit::{Stack, bin, mount_plyfs, mounted_at, need, need_fuse, unmount, wait_until};

use crate::support::{assert_ok, names, on_plyfs, read, run};

/// A storage as containers/storage lays it out: layers with short links beside them.
struct Storage {
    /// Owns the directory.
    _stack: Stack,
    home: PathBuf,
}

impl Storage {
    fn new(layers: usize) -> Self {
        let stack = Stack::new(0);
        let home = stack.dir().join("storage/overlay");
        fs::create_dir_all(home.join("l")).unwrap();
        let storage = Self {
            _stack: stack,
            home,
        };
        for i in 0..layers {
            storage.layer(i);
        }
        storage
    }

    /// Layer `i` has a file of its own, a file that every layer has, and what the one below added
    /// is deleted in every third, in the form that unpacked layers have.
    fn layer(&self, i: usize) {
        let diff = self.home.join(format!("{i:064}/diff"));
        fs::create_dir_all(diff.join("dir")).unwrap();
        fs::write(diff.join("same"), i.to_string()).unwrap();
        fs::write(diff.join(format!("dir/{i}")), "").unwrap();
        if i % 3 == 2 {
            fs::write(diff.join(format!("dir/.wh.{}", i - 1)), "").unwrap();
        }
        symlink(format!("../{i:064}/diff"), self.link(i)).unwrap();
    }

    fn link(&self, i: usize) -> PathBuf {
        self.home.join(format!("l/{i:026}"))
    }

    /// `lowerdir=` of the layers, the topmost first.
    fn lowers(&self, count: usize) -> String {
        let links: Vec<_> = (0..count)
            .rev()
            .map(|i| self.link(i).display().to_string())
            .collect();
        format!("lowerdir={}", links.join(":"))
    }

    /// The directories of a container, and its options as Podman writes them.
    fn container(&self, id: &str, count: usize, more: &str) -> (PathBuf, String) {
        let dir = self.home.join(id);
        for part in ["diff", "work", "merged"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        let [diff, work] = ["diff", "work"].map(|part| dir.join(part).display().to_string());
        let lowers = self.lowers(count);
        (
            dir.join("merged"),
            format!("{lowers},upperdir={diff},workdir={work},{more}"),
        )
    }

    /// Calls the program as Podman does: in the storage, standard input closed, errors read to
    /// their end.
    fn mount(&self, options: &str, merged: &Path) -> Output {
        Command::new(bin())
            .current_dir(&self.home)
            .args(["-o", options])
            .arg(merged)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap()
    }
}

#[test]
fn a_storage_of_121_and_of_500_layers() {
    need_fuse!();
    let storage = Storage::new(500);
    for count in [1, 121, 500] {
        let (merged, mut options) = storage.container(&format!("c{count}"), count, ",volatile");
        if count == 500 {
            // Options of 100 KiB: names that lead through the storage again and again.
            let home = storage.home.display().to_string();
            let around = "../overlay/".repeat(15);
            options = options.replace(&format!("{home}/l/"), &format!("{home}/{around}l/"));
            assert!(options.len() > 100 << 10, "{}", options.len());
        }
        let out = storage.mount(&options, &merged);
        assert_ok(&out);
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
        assert_eq!(read(merged.join("same")), (count - 1).to_string());
        let deleted = count / 3;
        assert_eq!(names(merged.join("dir")).len(), count - deleted);
        assert!(!merged.join("dir/1").exists() || count < 3);
        fs::remove_dir_all(merged.join("dir")).unwrap();
        fs::create_dir(merged.join("dir")).unwrap();
        assert_eq!(names(merged.join("dir")), Vec::<String>::new());
        unmount(&merged).unwrap();
    }
}

#[test]
fn views_without_an_upper() {
    need_fuse!();
    let storage = Storage::new(2);
    // diff, commit, build and save look at a layer this way; the first layer gets an empty one.
    let (merged, _) = storage.container("c", 2, "");
    fs::write(storage.home.join("c/diff/new"), "1").unwrap();
    let diff = storage.home.join("c/diff").display().to_string();
    let lowers = storage.lowers(2).replace("lowerdir=", "");
    let out = storage.mount(&format!("lowerdir={diff}:{lowers}"), &merged);
    assert_ok(&out);
    assert_eq!(names(&merged), ["dir", "new", "same"]);
    assert!(fs::write(merged.join("x"), "").is_err());
    unmount(&merged).unwrap();
    let empty = storage.home.join("c/empty");
    fs::create_dir(&empty).unwrap();
    let out = storage.mount(&format!("lowerdir={diff}:{}", empty.display()), &merged);
    assert_ok(&out);
    assert_eq!(names(&merged), ["new"]);
    unmount(&merged).unwrap();
}

#[test]
fn one_upper_mounted_again_within_milliseconds() {
    need_fuse!();
    // A shim that loses track of its helper unmounts and mounts again, five times in a row, and
    // waits for nothing.
    let storage = Storage::new(3);
    let (merged, options) = storage.container("c", 3, "");
    for round in 0..5 {
        for _ in 0..5 {
            assert_ok(&storage.mount(&options, &merged));
            assert!(merged.join("same").exists(), "not mounted on return");
            nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
        assert_ok(&storage.mount(&options, &merged));
        fs::write(merged.join(format!("round{round}")), "x").unwrap();
        assert_eq!(names(&merged).len(), 3 + round);
        unmount(&merged).unwrap();
    }
}

#[test]
fn the_mount_is_there_when_the_command_returns() {
    need_fuse!();
    // Another mount program came late in 3 of 100; here an old daemon took the new mount away.
    let storage = Storage::new(1);
    let (merged, _) = storage.container("c", 1, "");
    for i in 0..60 {
        assert_ok(&storage.mount(&storage.lowers(1), &merged));
        assert!(merged.join("same").exists(), "mount {i} is not there");
        assert_eq!(
            nix::sys::statfs::statfs(&merged).unwrap().filesystem_type(),
            nix::sys::statfs::FUSE_SUPER_MAGIC,
        );
        unmount(&merged).unwrap();
    }
}

#[test]
fn standard_descriptors_are_let_go() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    assert_ok(
        &Command::new(bin())
            .arg("-o")
            .arg(stack.options(""))
            .arg(stack.mnt())
            .output()
            .unwrap(),
    );
    let mnt = stack.mnt();
    let daemon = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            line.split(|b| *b == 0)
                .any(|word| word == mnt.as_os_str().as_encoded_bytes())
        })
        .expect("a daemon");
    for fd in 0..3 {
        let target = fs::read_link(daemon.join(format!("fd/{fd}"))).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "descriptor {fd}");
    }
    assert_eq!(fs::read_link(daemon.join("cwd")).unwrap(), Path::new("/"));
    unmount(&mnt).unwrap();
}

#[test]
fn deleted_files_stay_deleted_after_a_listing() {
    need_fuse!();
    // Below a directory that was made over a deleted one, and below one whose names were deleted:
    // a lookup right after the listing must not find what the lower has.
    let lowers: &[&[&str]] = &[
        &["f d/a\nf d/b\nf d/s/c\nf e/x\nf e/y"],
        &["f d/a\nf e/y", "f d/b\nf d/s/c\nf e/x"],
    ];
    for specs in lowers {
        on_plyfs(specs, "", |stack, m| {
            fs::remove_dir_all(m.join("d")).unwrap();
            fs::create_dir(m.join("d")).unwrap();
            fs::write(m.join("d/new"), "").unwrap();
            fs::remove_file(m.join("e/x")).unwrap();
            let check = |root: &Path| {
                for _ in 0..3 {
                    assert_eq!(names(root.join("d")), ["new"]);
                    run(root, "ls", &["-laR", "."]);
                    for gone in ["d/a", "d/b", "d/s", "d/s/c", "e/x"] {
                        assert!(fs::symlink_metadata(root.join(gone)).is_err(), "{gone}");
                    }
                }
            };
            check(m.path());
            // A client's diff looks through a second, read-only mount that has the upper on top.
            let view = Stack::new(0);
            let lowers: Vec<_> = std::iter::once(stack.upper())
                .chain(stack.lowers().iter().cloned())
                .map(|path| path.display().to_string())
                .collect();
            let out = Command::new(bin())
                .args(["-o", &format!("lowerdir={}", lowers.join(":"))])
                .arg(view.mnt())
                .output()
                .unwrap();
            assert_ok(&out);
            check(&view.mnt());
            unmount(&view.mnt()).unwrap();
        });
    }
}

#[test]
fn directories_of_deleted_names_start_empty() {
    need_fuse!();
    // The whiteout is the file that an unpacked layer has; mkdir and a rename over it must not
    // show what the lower has.
    let specs = [
        "f .wh.gone\nf .wh.moved\nf src/own\nf .wh.file",
        "f gone/old/x\nf moved/old\nf file",
    ];
    on_plyfs(&specs, "", |_, m| {
        assert_eq!(names(m.path()), ["src"]);
        fs::create_dir(m.join("gone")).unwrap();
        assert_eq!(names(m.join("gone")), Vec::<String>::new());
        assert!(!m.join("gone/old").exists());
        fs::create_dir(m.join("gone/old")).unwrap();
        assert_eq!(names(m.join("gone/old")), Vec::<String>::new());
        fs::create_dir(m.join("made")).unwrap();
        fs::write(m.join("made/own"), "").unwrap();
        fs::rename(m.join("made"), m.join("moved")).unwrap();
        assert_eq!(names(m.join("moved")), ["own"]);
        fs::write(m.join("file"), "new").unwrap();
        assert_eq!(read(m.join("file")), "new");
        fs::remove_file(m.join("file")).unwrap();
        assert!(!m.join("file").exists());
    });
}

#[test]
fn names_of_whiteouts_never_show() {
    need_fuse!();
    let specs = [
        "f d/.wh.a\nf d/.wh..wh..opq\nf d/b\nf .wh..wh.plnk/1\nf .wh.x",
        "f d/a\nf d/c\nf x",
    ];
    on_plyfs(&specs, "", |_, m| {
        assert_eq!(names(m.path()), ["d"]);
        assert_eq!(names(m.join("d")), ["b"]);
        for gone in ["d/.wh.a", "d/.wh..wh..opq", "d/a", "d/c", "x", ".wh.x"] {
            assert!(fs::symlink_metadata(m.join(gone)).is_err(), "{gone}");
        }
    });
}

#[test]
fn no_umask_takes_part_in_copying_up() {
    need_fuse!();
    // Neither the caller's nor the daemon's: /tmp of the lower stays open for everybody.
    let stack = Stack::planted(&[
        "f tmp/x\nm 1777 tmp\nf group/f\nm 2775 group\nf open/g\nf open/f\nm 666 open/f\nm 777 open",
    ]);
    let program = bin();
    let out = Command::new("sh")
        .args(["-c", "umask 0077; exec \"$0\" -o \"$1\" \"$2\""])
        .arg(&program)
        .arg(stack.options(""))
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert_ok(&out);
    let mnt = stack.mnt();
    run(
        &mnt,
        "sh",
        &[
            "-ec",
            "umask 077; echo a >tmp/new; echo a >group/new; echo a >>open/f; rm open/g",
        ],
    );
    let mode = |path: &str| fs::metadata(mnt.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        [
            mode("tmp"),
            mode("group"),
            mode("open"),
            mode("open/f"),
            mode("tmp/new")
        ],
        [0o1777, 0o2775, 0o777, 0o666, 0o600]
    );
    unmount(&mnt).unwrap();
    let upper = |path: &str| {
        fs::metadata(stack.upper().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        [upper("tmp"), upper("group"), upper("open")],
        [0o1777, 0o2775, 0o777]
    );
}

#[test]
fn closing_what_was_unlinked_or_renamed_is_no_error() {
    need_fuse!();
    // Pages written back after the name has gone, with umask 0 as apt has it.
    on_plyfs(&["f low = 0123456789"], "", |_, m| {
        let names = ["low", "new"];
        for (i, name) in names.iter().enumerate() {
            let mut file = fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(m.join(name))
                .unwrap();
            file.write_all(&vec![b'x'; 300_000]).unwrap();
            if i == 0 {
                fs::remove_file(m.join(name)).unwrap();
            } else {
                fs::rename(m.join(name), m.join("renamed")).unwrap();
            }
            file.seek(SeekFrom::Start(100_000)).unwrap();
            file.write_all(&vec![b'y'; 300_000]).unwrap();
            file.sync_all().unwrap();
            assert_eq!(file.metadata().unwrap().len(), 400_000);
            nix::unistd::close(file).unwrap();
        }
        // Replaced while open, as dpkg and apt do with their lists.
        run(
            m.path(),
            "sh",
            &[
                "-ec",
                "umask 0; for i in 1 2 3 4 5 6 7 8; do (exec 3>list; head -c 200000 /dev/zero >&3; \
                 head -c 100000 /dev/zero >list.new; mv list.new list; echo end >&3; exec 3>&-); done; \
                 test $(stat -c %s list) = 100000",
            ],
        );
    });
}

#[test]
fn link_counts_are_the_same_in_listings_and_lookups() {
    need_fuse!();
    // A fresh mount each time, so that it is the listing that answers first.
    let stack = Stack::planted(&["f d/one\nh d/two -> d/one\nh e -> d/one\nf d/other"]);
    for round in 0..3 {
        let m = mount_plyfs(&stack, "");
        let mut counts = Vec::new();
        for entry in fs::read_dir(m.join("d")).unwrap() {
            let entry = entry.unwrap();
            counts.push((entry.file_name(), entry.metadata().unwrap().nlink()));
        }
        counts.sort();
        let want = [("one", 3), ("other", 1), ("two", 3)].map(|(n, c)| (n.into(), c));
        assert_eq!(counts, want, "round {round}");
        let listed = run(m.path(), "find", &[".", "-links", "3"]);
        assert_eq!(listed.lines().count(), 3, "{listed}");
        let tar = run(
            m.path(),
            "sh",
            &["-c", "tar -c . | tar -tv | grep -c ' link to '"],
        );
        assert_eq!(tar.trim(), "2");
        m.unmount();
    }
}

#[test]
fn a_connection_that_somebody_else_has_mounted() {
    need_fuse!();
    need!("/sbin/mount.fuse3");
    // mount.fuse3 mounts, drops its privileges, and hands the connection over as /dev/fd/N.
    let stack = Stack::planted(&["f a = 1"]);
    let program = stack.dir().join("plyfs");
    symlink(bin(), &program).unwrap();
    let out = Command::new("/sbin/mount.fuse3")
        .arg("overlay")
        .arg(stack.mnt())
        .args(["-o", "drop_privileges"])
        .arg("-o")
        .arg(stack.options(""))
        .arg("-t")
        .arg(&program)
        .output()
        .unwrap();
    assert_ok(&out);
    wait_until("the mount answers", || stack.mnt().join("a").exists());
    assert_eq!(read(stack.mnt().join("a")), "1");
    unmount(&stack.mnt()).unwrap();
}

#[test]
fn types_that_mount_8_knows() {
    need_fuse!();
    need!("mount", "/sbin/mount.fuse");
    // As scripts/install places the names, in a mount namespace of our own.
    let stack = Stack::planted(&["f a = 1"]);
    let (bins, merged) = (stack.dir().join("bin"), stack.mnt());
    fs::create_dir(&bins).unwrap();
    for name in ["plyfs", "mount.plyfs", "mount.fuse3.plyfs"] {
        symlink(bin(), bins.join(name)).unwrap();
    }
    let over = |dir: &str| {
        let data = format!("lowerdir={}:{dir}", bins.display());
        nix::mount::mount(
            Some("overlay"),
            dir,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(data.as_str()),
        )
        .unwrap();
    };
    if !plyfs_testkit::can_mount_overlay() {
        plyfs_testkit::skip(module_path!(), "kernel overlayfs");
        return;
    }
    over("/usr/bin");
    over("/usr/sbin");
    let options = stack.options("");
    let fstab = stack.dir().join("fstab");
    let line = format!(
        "overlay {} fuse.plyfs {},noauto,nofail,_netdev,x-systemd.automount,comment=x 0 0\n",
        merged.display(),
        options.display()
    );
    fs::write(&fstab, line).unwrap();
    for kind in ["plyfs", "fuse.plyfs", "fuse3.plyfs", "fstab"] {
        let mut mount = Command::new("mount");
        if kind == "fstab" {
            mount.arg("-T").arg(&fstab).arg(&merged);
        } else {
            mount
                .args(["-t", kind, "overlay"])
                .arg(&merged)
                .arg("-o")
                .arg(&options);
        }
        assert_ok(&mount.output().unwrap());
        assert_eq!(mounted_at(&merged).as_deref(), Some("fuse.plyfs"), "{kind}");
        assert_eq!(read(merged.join("a")), "1", "{kind}");
        // The flags of the mount change; its layers stay.
        for (how, writable) in [("remount,ro", false), ("remount,rw", true)] {
            assert_ok(
                &Command::new("mount")
                    .args(["-o", how])
                    .arg(&merged)
                    .output()
                    .unwrap(),
            );
            assert_eq!(
                fs::write(merged.join("new"), "x").is_ok(),
                writable,
                "{kind} {how}"
            );
        }
        assert_ok(&Command::new("umount").arg(&merged).output().unwrap());
    }
}

#[test]
fn devices_and_setuid_programs_of_root_work() {
    need_fuse!();
    on_plyfs(&["f a"], "", |_, m| {
        run(m.path(), "mknod", &["-m", "666", "null", "c", "1", "3"]);
        assert!(
            fs::metadata(m.join("null"))
                .unwrap()
                .file_type()
                .is_char_device()
        );
        fs::write(m.join("null"), "gone").unwrap();
        assert_eq!(read(m.join("null")), "");
        fs::copy("/usr/bin/id", m.join("id")).unwrap();
        fs::set_permissions(m.join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
        let (ok, said) = crate::support::as_user(m.path(), "./id -u");
        assert!(ok);
        assert_eq!(said.trim(), "0");
    });
}
