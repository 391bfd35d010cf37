use std::os::fd::AsFd;

use plyfs_testkit::need_root;

use super::{SetTime, chmod, chown, readlink, truncate, truncate_by_path, utimens};
use crate::at::At;
use crate::error::Errno;
use crate::open::{Access, open_file};
use crate::scratch::Scratch;
use crate::stat::{Time, stat};

const SPEC: &str = "f f = data\nd d\np p\nl l -> f";

#[test]
fn modes_change_by_name_and_by_descriptor() {
    let scratch = Scratch::new(SPEC);
    for name in ["f", "d", "p"] {
        let fd = scratch.open(name);
        for (at, mode) in [(scratch.at(name), 0o600), (At::object(&fd), 0o1711)] {
            chmod(at, mode).unwrap();
            assert_eq!(stat(at).unwrap().perm(), mode, "{name}");
        }
    }
}

#[test]
fn a_symbolic_link_has_no_mode_and_lends_it_to_nobody() {
    let scratch = Scratch::new(SPEC);
    let before = stat(scratch.at("f")).unwrap().perm();
    let fd = scratch.open("l");
    for at in [scratch.at("l"), At::object(&fd)] {
        assert_eq!(chmod(at, 0o600).unwrap_err().errno(), Errno::EOPNOTSUPP);
    }
    assert_eq!(stat(scratch.at("f")).unwrap().perm(), before);
}

#[test]
fn owners_change_one_by_one_and_links_are_not_followed() {
    need_root!();
    let scratch = Scratch::new(SPEC);
    for name in ["f", "d", "p", "l"] {
        let fd = scratch.open(name);
        chown(scratch.at(name), Some(7), None).unwrap();
        chown(At::object(&fd), None, Some(8)).unwrap();
        let found = stat(scratch.at(name)).unwrap();
        assert_eq!((found.uid, found.gid), (7, 8), "{name}");
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let scratch = Scratch::new(SPEC);
    let time = |sec, nsec| SetTime::To(Time { sec, nsec });
    for name in ["f", "d", "p", "l"] {
        let fd = scratch.open(name);
        utimens(scratch.at(name), time(5, 999_999_999), time(-3, 1)).unwrap();
        let found = stat(scratch.at(name)).unwrap();
        assert_eq!(
            found.atime,
            Time {
                sec: 5,
                nsec: 999_999_999
            },
            "{name}"
        );
        assert_eq!(found.mtime, Time { sec: -3, nsec: 1 }, "{name}");
        utimens(At::object(&fd), SetTime::Omit, time(9, 0)).unwrap();
        let found = stat(scratch.at(name)).unwrap();
        assert_eq!((found.atime.sec, found.mtime.sec), (5, 9), "{name}");
    }
}

#[test]
fn ftruncate_touches_a_file_whose_size_stays() {
    let scratch = Scratch::new("f f = data\nt 9 f");
    let fd = open_file(scratch.at("f"), Access::READ | Access::WRITE).unwrap();
    truncate(fd.as_fd(), 4).unwrap();
    assert!(stat(scratch.at("f")).unwrap().mtime.sec > 9);
    assert_eq!(std::fs::read(scratch.path("f")).unwrap(), b"data");
}

#[test]
fn files_are_cut_and_grow() {
    let scratch = Scratch::new("f f = data");
    let fd = open_file(scratch.at("f"), Access::READ | Access::WRITE).unwrap();
    let read = || std::fs::read(scratch.path("f")).unwrap();
    truncate_by_path(fd.as_fd(), 3).unwrap();
    assert_eq!(read(), b"dat");
    truncate(fd.as_fd(), 2).unwrap();
    assert_eq!(read(), b"da");
    truncate_by_path(fd.as_fd(), 4).unwrap();
    assert_eq!(read(), b"da\0\0");
    for cut in [truncate, truncate_by_path] {
        let error = cut(fd.as_fd(), u64::MAX).unwrap_err();
        assert_eq!(error.errno(), Errno::EFBIG);
    }
}

#[test]
fn a_link_says_what_it_says() {
    let target = "x/".repeat(2000);
    let scratch = Scratch::new(&format!("{SPEC}\nl long -> {target}"));
    let fd = scratch.open("l");
    assert_eq!(readlink(scratch.at("l")).unwrap(), b"f");
    assert_eq!(readlink(At::object(&fd)).unwrap(), b"f");
    assert_eq!(readlink(scratch.at("long")).unwrap(), target.as_bytes());
    assert_eq!(
        readlink(scratch.at("f")).unwrap_err().errno(),
        Errno::EINVAL
    );
}
