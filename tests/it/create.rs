//! New files, directories, links and devices.
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::support::{agree, as_user, errno, names, read, run};

#[test]
fn everything_can_be_made_in_lower_directories() {
    agree(&["d d/e/f\nm 750 d/e\nu 3:4 d/e\nt 55 d"], |m| {
        let d = m.join("d/e/f");
        fs::write(d.join("file"), "content").unwrap();
        fs::create_dir(d.join("dir")).unwrap();
        symlink("file", d.join("soft")).unwrap();
        mknod(
            &d.join("fifo"),
            SFlag::S_IFIFO,
            Mode::from_bits_truncate(0o640),
            0,
        )
        .unwrap();
        mknod(
            &d.join("dev"),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o600),
            makedev(1, 3),
        )
        .unwrap();
        drop(std::os::unix::net::UnixListener::bind(d.join("socket")).unwrap());
        assert!(
            fs::metadata(d.join("socket"))
                .unwrap()
                .file_type()
                .is_socket()
        );
        assert_eq!(names(&d), ["dev", "dir", "fifo", "file", "socket", "soft"]);
        // Copying the parents up keeps what they are.
        let meta = fs::metadata(m.join("d/e")).unwrap();
        assert_eq!(
            (meta.mode() & 0o7777, meta.uid(), meta.gid()),
            (0o750, 3, 4)
        );
        assert_eq!(fs::metadata(m.join("d")).unwrap().mtime(), 55);
    });
}

#[test]
fn a_device_works() {
    agree(&["d d\nc lower 1 3"], |m| {
        mknod(
            &m.join("d/null"),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(1, 3),
        )
        .unwrap();
        fs::write(m.join("d/null"), "discarded").unwrap();
        fs::write(m.join("lower"), "discarded").unwrap();
        assert_eq!(read(m.join("d/null")), "");
    });
}

#[test]
fn existing_names_are_refused() {
    agree(&["f a = 1\nd d", "f b = 2"], |m| {
        for name in ["a", "b", "d"] {
            let path = m.join(name);
            assert_eq!(errno(fs::File::create_new(&path)), Errno::EEXIST);
            assert_eq!(errno(fs::create_dir(&path)), Errno::EEXIST);
            assert_eq!(errno(symlink("x", &path)), Errno::EEXIST);
            assert_eq!(
                mknod(&path, SFlag::S_IFIFO, Mode::empty(), 0),
                Err(Errno::EEXIST)
            );
        }
        assert_eq!(errno(fs::write(m.join("d"), "")), Errno::EISDIR);
        assert_eq!(errno(fs::write(m.join("no/such"), "")), Errno::ENOENT);
        assert_eq!(errno(fs::write(m.join("a/b"), "")), Errno::ENOTDIR);
        assert_eq!(read(m.join("b")), "2");
    });
}

#[test]
fn a_directory_made_over_a_removed_one_is_empty() {
    agree(&["f d/a", "f d/sub/b"], |m| {
        fs::remove_dir_all(m.join("d")).unwrap();
        fs::create_dir(m.join("d")).unwrap();
        assert_eq!(names(m.join("d")), Vec::<String>::new());
        fs::create_dir(m.join("d/sub")).unwrap();
        assert_eq!(names(m.join("d/sub")), Vec::<String>::new());
        fs::write(m.join("d/sub/b"), "new").unwrap();
    });
}

#[test]
fn a_file_made_over_a_removed_one_has_nothing_of_it() {
    agree(
        &["f a = old content\nm 4755 a\nu 7:8 a\nx a user.x = y"],
        |m| {
            fs::remove_file(m.join("a")).unwrap();
            fs::write(m.join("a"), "new").unwrap();
            let meta = fs::metadata(m.join("a")).unwrap();
            assert_eq!(
                (meta.mode() & 0o7777, meta.uid(), meta.len()),
                (0o644, 0, 3)
            );
            assert_eq!(xattr::get(m.join("a"), "user.x").unwrap(), None);
        },
    );
}

#[test]
fn whiteouts_of_the_lowers_make_way() {
    agree(&["w a\nw d\nw l", "f a\nf d/x\nf l"], |m| {
        fs::write(m.join("a"), "new").unwrap();
        fs::create_dir(m.join("d")).unwrap();
        assert_eq!(names(m.join("d")), Vec::<String>::new());
        symlink("a", m.join("l")).unwrap();
        assert_eq!(read(m.join("l")), "new");
    });
}

#[test]
fn the_mode_is_masked_and_set_exactly() {
    agree(&["d d"], |m| {
        for mode in [0o600, 0o644, 0o000, 0o755, 0o777] {
            let path = m.join(format!("d/{mode:o}"));
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
                .unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode & !0o022);
        }
        let out = run(
            m,
            "sh",
            &["-c", "umask 027; mkdir e; touch e/f; stat -c %a e e/f"],
        );
        assert_eq!(out, "750\n640\n");
    });
}

#[test]
fn a_file_can_be_made_that_its_maker_may_not_write() {
    agree(&["d d\nm 777 d"], |m| {
        let (ok, out) = as_user(
            &m.join("d"),
            "umask 777; echo text >f; umask 0; stat -c '%a %u %g' f",
        );
        assert_eq!((ok, out.as_str()), (true, "0 1000 1000\n"));
    });
}

#[test]
fn the_group_is_inherited_from_setgid_directories() {
    agree(&["d d\nu 0:50 d\nm 2777 d"], |m| {
        fs::write(m.join("d/file"), "").unwrap();
        fs::create_dir(m.join("d/dir")).unwrap();
        assert_eq!(fs::metadata(m.join("d/file")).unwrap().gid(), 50);
        let dir = fs::metadata(m.join("d/dir")).unwrap();
        assert_eq!((dir.gid(), dir.mode() & 0o7777), (50, 0o2755));
        let (ok, out) = as_user(
            &m.join("d"),
            "touch u && mkdir v && chmod 2755 u && stat -c '%a %g' u v",
        );
        assert_eq!((ok, out.as_str()), (true, "755 50\n2755 50\n"));
    });
}

#[test]
fn default_acls_are_inherited() {
    agree(&["d d\nm 770 d"], |m| {
        let d = m.join("d");
        run(
            &d,
            "setfacl",
            &["-m", "d:u:1234:rwx,d:g::r-x,d:o::---", "."],
        );
        fs::write(d.join("file"), "").unwrap();
        fs::create_dir(d.join("dir")).unwrap();
        symlink("file", d.join("link")).unwrap();
        mknod(
            &d.join("fifo"),
            SFlag::S_IFIFO,
            Mode::from_bits_truncate(0o666),
            0,
        )
        .unwrap();
        let acl = run(&d, "getfacl", &["-cn", "file"]);
        assert!(acl.contains("user:1234:rwx\t#effective:rw-"), "{acl}");
        assert_eq!(fs::metadata(d.join("file")).unwrap().mode() & 0o777, 0o660);
        let acl = run(&d, "getfacl", &["-cn", "dir"]);
        assert!(acl.contains("default:user:1234:rwx"), "{acl}");
    });
}

#[test]
fn other_users_own_what_they_make_and_are_kept_out_elsewhere() {
    agree(
        &["d open\nm 1777 open\nd closed\nf closed/f\nm 600 closed/f"],
        |m| {
            let (ok, _) = as_user(
                &m.join("open"),
                "echo hi >f && mkdir d && ln -s f l && mkfifo p",
            );
            assert!(ok);
            for name in ["f", "d", "l", "p"] {
                let meta = fs::symlink_metadata(m.join("open").join(name)).unwrap();
                assert_eq!((meta.uid(), meta.gid()), (1000, 1000), "{name}");
            }
            for script in [
                "touch closed/x",
                "cat closed/f",
                "chmod 777 closed",
                "rm closed/f",
                "mkdir d",
            ] {
                assert!(!as_user(m, script).0, "{script}");
            }
        },
    );
}

#[test]
fn truncating_open_of_a_new_name_makes_it() {
    agree(&["f a = long content"], |m| {
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o640);
        drop(file.open(m.join("a")).unwrap());
        drop(file.open(m.join("b")).unwrap());
        assert_eq!(read(m.join("a")), "");
        assert_eq!(
            fs::metadata(m.join("b")).unwrap().permissions().mode() & 0o777,
            0o640
        );
    });
}
