//! Hard links: new ones, those of the lowers, and what they share.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::errno::Errno;

use crate::support::{agree, as_user, errno, read};

#[test]
fn a_new_link_is_the_same_file() {
    agree(&["f d/lower = 1\nu 3:4 d/lower\nt 44 d/lower"], |m| {
        fs::write(m.join("upper"), "2").unwrap();
        for (from, to) in [("d/lower", "linked"), ("upper", "d/linked")] {
            fs::hard_link(m.join(from), m.join(to)).unwrap();
            let (a, b) = (
                m.join(from).metadata().unwrap(),
                m.join(to).metadata().unwrap(),
            );
            assert_eq!((a.ino(), a.nlink()), (b.ino(), b.nlink()), "{from}");
            assert_eq!(a.nlink(), 2);
            OpenOptions::new()
                .append(true)
                .open(m.join(to))
                .unwrap()
                .write_all(b"+")
                .unwrap();
            assert!(read(m.join(from)).ends_with('+'));
        }
    });
}

#[test]
fn removing_a_link_leaves_the_others() {
    agree(&["f a = 1"], |m| {
        fs::hard_link(m.join("a"), m.join("b")).unwrap();
        fs::hard_link(m.join("a"), m.join("c")).unwrap();
        fs::remove_file(m.join("a")).unwrap();
        assert_eq!(fs::metadata(m.join("b")).unwrap().nlink(), 2);
        fs::rename(m.join("b"), m.join("a")).unwrap();
        assert_eq!(read(m.join("a")) + &read(m.join("c")), "11");
    });
}

#[test]
fn links_of_the_lower_are_one_file_until_they_are_changed() {
    agree(&["f a = 1\nh b -> a\nh d/c -> a"], |m| {
        let of = |name: &str| fs::metadata(m.join(name)).unwrap();
        assert_eq!((of("a").ino(), of("a").nlink()), (of("b").ino(), 3));
        assert_eq!(of("d/c").ino(), of("a").ino());
    });
}

#[test]
fn a_removed_name_can_be_linked_again() {
    agree(&["f a = 1\nf gone\nf d/x"], |m| {
        fs::remove_file(m.join("gone")).unwrap();
        fs::hard_link(m.join("a"), m.join("gone")).unwrap();
        assert_eq!(read(m.join("gone")), "1");
        fs::remove_dir_all(m.join("d")).unwrap();
        fs::hard_link(m.join("a"), m.join("d")).unwrap();
        assert_eq!(fs::metadata(m.join("a")).unwrap().nlink(), 3);
    });
}

#[test]
fn what_cannot_be_linked_is_refused() {
    agree(&["f a\nf b\nd d"], |m| {
        assert_eq!(
            errno(fs::hard_link(m.join("a"), m.join("b"))),
            Errno::EEXIST
        );
        assert_eq!(errno(fs::hard_link(m.join("d"), m.join("e"))), Errno::EPERM);
        assert_eq!(
            errno(fs::hard_link(m.join("no"), m.join("e"))),
            Errno::ENOENT
        );
        assert_eq!(
            errno(fs::hard_link(m.join("a"), m.join("no/e"))),
            Errno::ENOENT
        );
    });
}

#[test]
fn symbolic_links_and_fifos_can_be_linked() {
    agree(&["l l -> target\np p"], |m| {
        fs::hard_link(m.join("l"), m.join("l2")).unwrap();
        fs::hard_link(m.join("p"), m.join("p2")).unwrap();
        symlink("x", m.join("s")).unwrap();
        fs::hard_link(m.join("s"), m.join("s2")).unwrap();
        assert_eq!(
            fs::read_link(m.join("l2")).unwrap().to_str(),
            Some("target")
        );
        assert_eq!(fs::symlink_metadata(m.join("s")).unwrap().nlink(), 2);
    });
}

#[test]
fn users_link_what_is_theirs() {
    agree(
        &["d d\nm 777 d\nf d/own\nu 1000:1000 d/own\nf closed/x"],
        |m| {
            assert!(as_user(&m.join("d"), "ln own two && echo 1 >two && cat own").0);
            assert!(!as_user(m, "ln d/own closed/y").0);
        },
    );
}
