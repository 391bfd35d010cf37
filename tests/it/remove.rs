//! Removing files and directories of every layer.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;

use crate::support::{agree, as_user, errno, names, on_plyfs, run};

#[test]
fn files_go_from_every_layer() {
    agree(
        &["f a = top\nf b", "f a = bottom\nf c\nl l -> a\np p"],
        |m| {
            for name in ["a", "b", "c", "l", "p"] {
                fs::remove_file(m.join(name)).unwrap();
                assert_eq!(errno(fs::symlink_metadata(m.join(name))), Errno::ENOENT);
                assert_eq!(errno(fs::remove_file(m.join(name))), Errno::ENOENT);
            }
            assert_eq!(names(m), Vec::<String>::new());
        },
    );
}

#[test]
fn only_empty_directories_go() {
    agree(&["f d/a\nd e", "f d/b\nd e\nd f/g"], |m| {
        assert_eq!(errno(fs::remove_dir(m.join("d"))), Errno::ENOTEMPTY);
        fs::remove_file(m.join("d/a")).unwrap();
        assert_eq!(errno(fs::remove_dir(m.join("d"))), Errno::ENOTEMPTY);
        fs::remove_file(m.join("d/b")).unwrap();
        fs::remove_dir(m.join("d")).unwrap();
        fs::remove_dir(m.join("e")).unwrap();
        assert_eq!(errno(fs::remove_dir(m.join("f"))), Errno::ENOTEMPTY);
        fs::remove_dir(m.join("f/g")).unwrap();
        fs::remove_dir(m.join("f")).unwrap();
        assert_eq!(names(m), Vec::<String>::new());
    });
}

#[test]
fn a_directory_is_empty_when_only_whiteouts_are_in_it() {
    agree(&["w d/a\nw d/b", "f d/a\nf d/b"], |m| {
        assert_eq!(names(m.join("d")), Vec::<String>::new());
        fs::remove_dir(m.join("d")).unwrap();
        assert_eq!(errno(fs::metadata(m.join("d"))), Errno::ENOENT);
    });
}

#[test]
fn the_wrong_call_is_refused() {
    agree(&["f a\nd d"], |m| {
        assert_eq!(errno(fs::remove_dir(m.join("a"))), Errno::ENOTDIR);
        assert_eq!(nix::unistd::unlink(&m.join("d")), Err(Errno::EISDIR));
        assert_eq!(errno(fs::remove_file(m.join("a/x"))), Errno::ENOTDIR);
        assert_eq!(names(m), ["a", "d"]);
    });
}

#[test]
fn whole_trees_go_and_come_back() {
    agree(
        &["f t/a/b/c = 1\nf t/x", "f t/a/b/d\nf t/a/e\nf t/y/z"],
        |m| {
            for _ in 0..3 {
                run(m, "rm", &["-rf", "t"]);
                assert_eq!(names(m), Vec::<String>::new());
                fs::create_dir_all(m.join("t/a/b")).unwrap();
                assert_eq!(names(m.join("t")), ["a"]);
                assert_eq!(names(m.join("t/a/b")), Vec::<String>::new());
                fs::write(m.join("t/a/b/new"), "n").unwrap();
            }
        },
    );
}

#[test]
fn an_open_file_outlives_its_name() {
    agree(&["f lower = lower content\nf read = only read"], |m| {
        fs::write(m.join("upper"), "upper content").unwrap();
        for name in ["lower", "upper"] {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(m.join(name))
                .unwrap();
            fs::remove_file(m.join(name)).unwrap();
            file.write_all_at(b"UNLINKED", 0).unwrap();
            file.set_len(10).unwrap();
            let meta = file.metadata().unwrap();
            assert_eq!((meta.len(), meta.nlink()), (10, 0), "{name}");
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(&text[..8], "UNLINKED");
            file.sync_all().unwrap();
            file.write_all(b"more").unwrap();
        }
        let mut reader = File::open(m.join("read")).unwrap();
        fs::remove_file(m.join("read")).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "only read");
        fs::write(m.join("read"), "another").unwrap();
        assert_eq!(names(m), ["read"]);
    });
}

#[test]
fn names_can_be_taken_again_by_another_type() {
    agree(&["f a\nf d/x"], |m| {
        fs::remove_file(m.join("a")).unwrap();
        fs::create_dir(m.join("a")).unwrap();
        fs::write(m.join("a/in"), "").unwrap();
        run(m, "rm", &["-r", "d"]);
        fs::write(m.join("d"), "file").unwrap();
        fs::remove_file(m.join("d")).unwrap();
        std::os::unix::fs::symlink("a", m.join("d")).unwrap();
        assert_eq!(names(m.join("d")), ["in"]);
    });
}

#[test]
fn users_remove_only_what_they_may() {
    agree(
        &["d open\nm 777 open\nf open/root\nd sticky\nm 1777 sticky\nf sticky/root\nf closed/f"],
        |m| {
            assert!(as_user(m, "rm -f open/root").0);
            assert!(!as_user(m, "rm -f sticky/root").0);
            assert!(!as_user(m, "rm -f closed/f").0);
            assert!(!as_user(m, "rm -rf closed").0);
        },
    );
}

#[test]
fn what_only_the_upper_had_leaves_no_whiteout() {
    on_plyfs(&["f lower"], "", |stack, m| {
        fs::write(m.join("new"), "").unwrap();
        fs::create_dir(m.join("dir")).unwrap();
        fs::write(m.join("dir/x"), "").unwrap();
        run(m.path(), "rm", &["-r", "new", "dir"]);
        assert_eq!(names(stack.upper()), Vec::<String>::new());
        fs::remove_file(m.join("lower")).unwrap();
        assert_eq!(names(stack.upper()), ["lower"]);
    });
}
