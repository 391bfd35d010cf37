//! Which layer wins when a name is looked up.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;

use crate::support::{agree, errno, names, read};

#[test]
fn the_topmost_layer_wins() {
    agree(
        &[
            "f a = top\nf d/x = top",
            "f a = bottom\nf b = bottom\nf d/x = 1\nf d/y = 2",
        ],
        |m| {
            assert_eq!(read(m.join("a")), "top");
            assert_eq!(read(m.join("b")), "bottom");
            assert_eq!(read(m.join("d/x")), "top");
            assert_eq!(read(m.join("d/y")), "2");
        },
    );
}

#[test]
fn a_whiteout_hides_every_layer_below_it() {
    agree(
        &[
            "f c = again",
            "w a\nw c\nw d",
            "f a\nf c\nf d/e",
            "f a\nf b",
        ],
        |m| {
            assert_eq!(names(m), ["b", "c"]);
            assert_eq!(errno(std::fs::metadata(m.join("a"))), Errno::ENOENT);
            assert_eq!(errno(std::fs::metadata(m.join("d/e"))), Errno::ENOENT);
            assert_eq!(read(m.join("c")), "again");
        },
    );
}

#[test]
fn an_opaque_directory_hides_what_lies_below() {
    agree(&["f d/a", "o d\nf d/b", "f d/c\nf d/sub/x"], |m| {
        assert_eq!(names(m.join("d")), ["a", "b"]);
        assert_eq!(errno(std::fs::metadata(m.join("d/sub"))), Errno::ENOENT);
    });
}

#[test]
fn a_file_over_a_directory_ends_the_merge() {
    agree(&["d p", "f p = file", "f p/hidden"], |m| {
        assert_eq!(names(m.join("p")), Vec::<String>::new());
    });
    agree(&["f p = file", "f p/hidden"], |m| {
        assert_eq!(read(m.join("p")), "file");
        assert_eq!(errno(std::fs::metadata(m.join("p/hidden"))), Errno::ENOTDIR);
    });
}

#[test]
fn a_directory_over_a_file_hides_it() {
    agree(&["f p/x = 1", "f p", "f p/y"], |m| {
        assert_eq!(names(m.join("p")), ["x"])
    });
}

#[test]
fn a_merged_directory_has_the_topmost_attributes() {
    agree(
        &["d d\nm 700 d\nu 5:6 d\nt 77 d", "f d/x\nm 755 d\nt 88 d"],
        |m| {
            let meta = std::fs::metadata(m.join("d")).unwrap();
            assert_eq!(
                (meta.mode() & 0o7777, meta.uid(), meta.gid()),
                (0o700, 5, 6)
            );
            assert_eq!(meta.mtime(), 77);
        },
    );
}

#[test]
fn a_missing_name_can_be_made_after_it_was_asked_for() {
    agree(&["d d"], |m| {
        for path in ["new", "d/new"] {
            assert_eq!(errno(std::fs::metadata(m.join(path))), Errno::ENOENT);
            std::fs::write(m.join(path), "now").unwrap();
            assert_eq!(read(m.join(path)), "now");
            std::fs::remove_file(m.join(path)).unwrap();
            assert_eq!(errno(std::fs::metadata(m.join(path))), Errno::ENOENT);
        }
    });
}

#[test]
fn names_are_bytes() {
    let long = "n".repeat(255);
    agree(&[&format!("f {long} = long")], |m| {
        assert_eq!(read(m.join(&long)), "long");
        assert_eq!(
            errno(std::fs::metadata(m.join(format!("{long}x")))),
            Errno::ENAMETOOLONG
        );
        for name in [
            &b"caf\xe9"[..],
            b"a\nb",
            b"-",
            b"..x",
            b"\\:,",
            b".wh",
            b" ",
        ] {
            let path = m.join(OsStr::from_bytes(name));
            std::fs::write(&path, name).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), name);
        }
    });
}

#[test]
fn links_lead_into_the_merged_tree() {
    agree(
        &[
            "l up -> d/x\nl abs -> /nonexistent",
            "f d/x = 1\nl loop -> loop",
        ],
        |m| {
            assert_eq!(read(m.join("up")), "1");
            std::fs::write(m.join("up"), "2").unwrap();
            assert_eq!(read(m.join("d/x")), "2");
            assert_eq!(errno(std::fs::metadata(m.join("abs"))), Errno::ENOENT);
            assert_eq!(errno(std::fs::metadata(m.join("loop"))), Errno::ELOOP);
            let long = "t".repeat(4000);
            std::os::unix::fs::symlink(&long, m.join("long")).unwrap();
            assert_eq!(
                std::fs::read_link(m.join("long"))
                    .unwrap()
                    .as_os_str()
                    .len(),
                4000
            );
        },
    );
}

#[test]
fn deep_paths_merge_at_every_step() {
    let deep = vec!["d"; 40].join("/");
    agree(
        &[
            &format!("f {deep}/top = t"),
            &format!("f {deep}/bottom = b"),
        ],
        |m| {
            assert_eq!(names(m.join(&deep)), ["bottom", "top"]);
            std::fs::write(m.join(&deep).join("bottom"), "c").unwrap();
            assert_eq!(read(m.join(&deep).join("bottom")), "c");
        },
    );
}

#[test]
fn what_is_looked_up_twice_is_the_same_file() {
    agree(&["f a\nd d", "f b\nh c -> b"], |m| {
        for path in ["a", "b", "d", "."] {
            let (x, y) = (
                m.join(path).metadata().unwrap(),
                m.join(path).metadata().unwrap(),
            );
            assert_eq!((x.dev(), x.ino()), (y.dev(), y.ino()), "{path}");
        }
        let ino = |path: &str| m.join(path).metadata().unwrap().ino();
        assert_eq!(ino("b"), ino("c"));
        assert_ne!(ino("a"), ino("b"));
    });
}
