//! The first change of a lower file: what is kept, what is seen, and what is not copied.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use plyfs_testkit::Stack;

use crate::support::{agree, as_user, on_plyfs, read, run};

fn upper_has(stack: &Stack, path: &str) -> bool {
    fs::symlink_metadata(stack.upper().join(path)).is_ok()
}

#[test]
fn appending_keeps_what_was_there() {
    agree(
        &[
            "d d",
            "f d/a = one\nu 3:4 d/a\nm 640 d/a\nx d/a user.x = y\nt 9 d",
        ],
        |m| {
            OpenOptions::new()
                .append(true)
                .open(m.join("d/a"))
                .unwrap()
                .write_all(b"two")
                .unwrap();
            assert_eq!(read(m.join("d/a")), "onetwo");
            let meta = fs::metadata(m.join("d/a")).unwrap();
            assert_eq!(
                (meta.mode() & 0o7777, meta.uid(), meta.gid()),
                (0o640, 3, 4)
            );
            assert_eq!(xattr::get(m.join("d/a"), "user.x").unwrap().unwrap(), b"y");
        },
    );
}

#[test]
fn a_change_of_attributes_keeps_content_and_mtime() {
    agree(
        &["f a = content\nt 77 a\nd d\nt 78 d\nl l -> a\nt 79 l\np p\nt 80 p"],
        |m| {
            run(m, "chmod", &["600", "a", "d", "p"]);
            run(m, "chown", &["-h", "5:6", "a", "d", "l", "p"]);
            assert_eq!(read(m.join("a")), "content");
            for (name, mtime) in [("a", 77), ("d", 78), ("l", 79), ("p", 80)] {
                assert_eq!(
                    fs::symlink_metadata(m.join(name)).unwrap().mtime(),
                    mtime,
                    "{name}"
                );
            }
        },
    );
}

#[test]
fn access_control_lists_and_capabilities_are_kept() {
    agree(&["d d\nf d/f = 1\nx d/f trusted.note = t"], |m| {
        // Through a second file, since the stacks are planted without these tools.
        run(m, "setfacl", &["-m", "u:1234:rw", "d/f"]);
        run(m, "setcap", &["cap_net_raw+ep", "d/f"]);
        fs::set_permissions(
            m.join("d/f"),
            fs::metadata(m.join("d/f")).unwrap().permissions(),
        )
        .unwrap();
        assert!(run(m, "getfacl", &["-cn", "d/f"]).contains("user:1234:rw-"));
        assert!(run(m, "getcap", &["d/f"]).contains("cap_net_raw=ep"));
        assert_eq!(
            xattr::get(m.join("d/f"), "trusted.note").unwrap().unwrap(),
            b"t"
        );
    });
}

#[test]
fn truncating_throws_away_what_was_there() {
    agree(
        &["f a = long content\nf b = long content\nf c = long content"],
        |m| {
            File::create(m.join("a"))
                .unwrap()
                .write_all(b"new")
                .unwrap();
            assert_eq!(read(m.join("a")), "new");
            OpenOptions::new()
                .write(true)
                .open(m.join("b"))
                .unwrap()
                .set_len(4)
                .unwrap();
            assert_eq!(read(m.join("b")), "long");
            run(m, "truncate", &["-s", "20", "c"]);
            assert_eq!(fs::metadata(m.join("c")).unwrap().len(), 20);
            assert_eq!(fs::read(m.join("c")).unwrap()[12..], [0; 8]);
        },
    );
}

#[test]
fn a_write_in_the_middle_keeps_the_rest() {
    let big = format!("f big = {}", "0123456789".repeat(40_000));
    agree(&["f other", &big], |m| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(m.join("big"))
            .unwrap();
        file.write_all_at(b"here", 200_000).unwrap();
        let content = fs::read(m.join("big")).unwrap();
        assert_eq!(content.len(), 400_000);
        assert_eq!(&content[199_998..200_006], b"89here45");
        assert_eq!(&content[399_990..], b"0123456789");
    });
}

#[test]
fn the_inode_number_survives() {
    agree(&["d d", "f d/a = 1\nf b = 2\nl l -> b"], |m| {
        let ino = |path: &str| fs::symlink_metadata(m.join(path)).unwrap().ino();
        let before = ["d", "d/a", "b", "l"].map(ino);
        OpenOptions::new()
            .append(true)
            .open(m.join("d/a"))
            .unwrap()
            .write_all(b"x")
            .unwrap();
        run(m, "chmod", &["600", "b"]);
        run(m, "chown", &["-h", "5", "l"]);
        assert_eq!(["d", "d/a", "b", "l"].map(ino), before);
    });
}

#[test]
fn descriptors_for_writing_see_each_other() {
    agree(&["f a = 0123456789"], |m| {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(m.join("a"))
                .unwrap()
        };
        let (one, two) = (open(), open());
        one.write_all_at(b"X", 3).unwrap();
        two.write_all_at(b"Y", 5).unwrap();
        let mut seen = String::new();
        (&one).read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "012X4Y6789");
    });
}

#[test]
fn users_may_change_what_is_theirs() {
    agree(
        &[
            "d d\nm 777 d",
            "f d/a = 1\nu 1000:1000 d/a\nf d/b = 2\nm 666 d/b\nf d/c\nm 644 d/c",
        ],
        |m| {
            let (ok, out) = as_user(
                &m.join("d"),
                "echo 1 >>a && chmod 640 a && echo 2 >>b && cat a b",
            );
            assert!(ok, "{out}");
            assert!(!as_user(&m.join("d"), "echo 3 >>c").0);
            assert!(!as_user(&m.join("d"), "chmod 777 b").0);
        },
    );
}

#[test]
fn reading_copies_nothing() {
    on_plyfs(&["f d/a = 1", "f d/b = 2\nl l -> d/b"], "", |stack, m| {
        assert_eq!(read(m.join("d/a")) + &read(m.join("l")), "12");
        run(m.path(), "find", &[".", "-ls"]);
        run(m.path(), "tar", &["-cf", "/dev/null", "--xattrs", "."]);
        let upper: Vec<_> = fs::read_dir(stack.upper()).unwrap().collect();
        assert!(upper.is_empty(), "{upper:?}");
    });
}

#[test]
fn opening_for_writing_copies_nothing_until_it_is_written() {
    on_plyfs(&["f d/a = 1"], "", |stack, m| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(m.join("d/a"))
            .unwrap();
        assert!(!upper_has(stack, "d"));
        file.write_all_at(b"2", 0).unwrap();
        file.sync_all().unwrap();
        assert!(upper_has(stack, "d/a"));
        assert_eq!(read(stack.upper().join("d/a")), "2");
    });
}

#[test]
fn a_reader_from_before_sees_what_is_written() {
    // Kernel overlayfs shows such a reader the old content.
    on_plyfs(&["f a = 0123456789"], "", |stack, m| {
        let mut reader = File::open(m.join("a")).unwrap();
        let mut first = [0; 4];
        reader.read_exact(&mut first).unwrap();
        let writer = OpenOptions::new().write(true).open(m.join("a")).unwrap();
        writer.write_all_at(b"XY", 0).unwrap();
        reader.seek(SeekFrom::Start(0)).unwrap();
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "XY23456789");
        assert_eq!(read(stack.lower(0).join("a")), "0123456789");
    });
}

#[test]
fn many_writers_race_to_copy_one_file_up() {
    agree(&["d d", "f d/a = ................................"], |m| {
        std::thread::scope(|scope| {
            for i in 0..32 {
                scope.spawn(move || {
                    let file = OpenOptions::new().write(true).open(m.join("d/a")).unwrap();
                    file.write_all_at(b"#", i).unwrap();
                });
            }
        });
        assert_eq!(read(m.join("d/a")), "#".repeat(32));
    });
}

#[test]
fn many_writers_copy_one_tree_up() {
    let lower: String = (0..64).map(|i| format!("f a/b/c/{i} = {i}\n")).collect();
    agree(&["d a/b", &lower], |m| {
        std::thread::scope(|scope| {
            for t in 0..8 {
                scope.spawn(move || {
                    for i in (t..64).step_by(8) {
                        let path = m.join(format!("a/b/c/{i}"));
                        OpenOptions::new()
                            .append(true)
                            .open(path)
                            .unwrap()
                            .write_all(b"!")
                            .unwrap();
                    }
                });
            }
        });
        for i in 0..64 {
            assert_eq!(read(m.join(format!("a/b/c/{i}"))), format!("{i}!"));
        }
        // The kernel, which reads the old time before it publishes a copy and sets it after, may
        // lose it when several copies are published at once.
        let planted = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
        let dir = File::open(m.join("a/b/c")).unwrap();
        dir.set_modified(planted).unwrap();
    });
}
