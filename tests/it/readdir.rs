//! What a listing shows.
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::support::{agree, names, on_plyfs};

#[test]
fn each_name_is_listed_once() {
    agree(
        &["f a\nf b\nw gone", "f b\nf c\nf gone", "f a\nf c\nf d"],
        |m| {
            assert_eq!(names(m), ["a", "b", "c", "d"]);
        },
    );
}

#[test]
fn types_and_inode_numbers_are_those_of_lstat() {
    agree(
        &[
            "f a\nd d\nl l -> a\np p\nc c 1 3",
            "f d/x\nf lower\nd lowerdir",
        ],
        |m| {
            fs::write(m.join("upper"), "").unwrap();
            for entry in fs::read_dir(m).unwrap().map(Result::unwrap) {
                let meta = fs::symlink_metadata(entry.path()).unwrap();
                let kind = entry.file_type().unwrap();
                assert_eq!(kind, meta.file_type(), "{:?}", entry.file_name());
                assert_eq!(entry.ino(), meta.ino(), "{:?}", entry.file_name());
                assert_eq!(kind.is_fifo(), entry.file_name() == "p");
            }
        },
    );
}

#[test]
fn dot_and_dot_dot_come_with_every_directory() {
    agree(&["f d/x", "f d/y\nd e"], |m| {
        for path in ["", "d", "e"] {
            let mut dir =
                nix::dir::Dir::open(&m.join(path), OFlag::O_RDONLY, Mode::empty()).unwrap();
            let all: Vec<_> = dir.iter().map(|e| e.unwrap()).collect();
            let count = |name: &str| {
                all.iter()
                    .filter(|e| e.file_name().to_bytes() == name.as_bytes())
                    .count()
            };
            assert_eq!((count("."), count("..")), (1, 1), "{path}");
        }
    });
}

#[test]
fn changes_show_in_the_next_listing() {
    agree(&["f d/a\nf d/b"], |m| {
        assert_eq!(names(m.join("d")), ["a", "b"]);
        fs::write(m.join("d/c"), "").unwrap();
        assert_eq!(names(m.join("d")), ["a", "b", "c"]);
        fs::remove_file(m.join("d/a")).unwrap();
        assert_eq!(names(m.join("d")), ["b", "c"]);
        fs::rename(m.join("d/b"), m.join("d/z")).unwrap();
        assert_eq!(names(m.join("d")), ["c", "z"]);
        fs::create_dir(m.join("d/sub")).unwrap();
        fs::hard_link(m.join("d/c"), m.join("d/link")).unwrap();
        assert_eq!(names(m.join("d")), ["c", "link", "sub", "z"]);
    });
}

#[test]
fn large_directories_are_listed_whole() {
    let lower: String = (0..3000).map(|i| format!("f d/lower-{i}\n")).collect();
    let bottom: String = (1000..4000).map(|i| format!("f d/lower-{i}\n")).collect();
    agree(&[&lower, &bottom], |m| {
        for i in 0..3000 {
            fs::write(m.join(format!("d/upper-{i}-{}", "x".repeat(50))), "").unwrap();
        }
        let listed = names(m.join("d"));
        assert_eq!(listed.len(), 7000);
        assert_eq!(listed.iter().collect::<HashSet<_>>().len(), 7000);
    });
}

#[test]
fn removing_while_listing_misses_nothing() {
    let lower: String = (0..2000).map(|i| format!("f d/{i}\n")).collect();
    agree(&[&lower], |m| {
        for entry in fs::read_dir(m.join("d")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::remove_dir(m.join("d")).unwrap();
    });
}

#[test]
fn a_directory_stays_readable_after_it_is_removed() {
    agree(&["d d"], |m| {
        let dir = fs::File::open(m.join("d")).unwrap();
        fs::remove_dir(m.join("d")).unwrap();
        let mut dir = nix::dir::Dir::from_fd(dir.into()).unwrap();
        let left = dir.iter().filter(|e| {
            e.as_ref()
                .is_ok_and(|e| e.file_name() != c"." && e.file_name() != c"..")
        });
        assert_eq!(left.count(), 0);
    });
}

#[test]
fn fds_are_given_back() {
    on_plyfs(&["f d/a", "f d/b"], "", |_, m| {
        let count = || {
            fs::read_dir(format!("/proc/{}/fd", m.pid().unwrap()))
                .unwrap()
                .count()
        };
        assert_eq!(names(m.join("d")), ["a", "b"]);
        let before = count();
        for _ in 0..500 {
            assert_eq!(names(m.join("d")), ["a", "b"]);
            assert_eq!(fs::read(m.join("d/a")).unwrap(), b"");
        }
        assert!(
            count() <= before + 64,
            "{before} descriptors before, {} after",
            count()
        );
    });
}
