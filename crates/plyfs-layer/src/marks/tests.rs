use std::os::fd::AsFd;

use plyfs_format::names::XattrNamespace::{Trusted, User};
use plyfs_format::opaque::Opaque;
use plyfs_format::redirect::Redirect;
use plyfs_sys::{At, Errno, Name, open};
use plyfs_testkit::need_root;

use super::{DirMarks, FileMarks, dir_marks, file_marks};

/// An object in a directory of its own, with these xattrs.
struct Marked {
    dir: tempfile::TempDir,
    fd: std::os::fd::OwnedFd,
}

impl Marked {
    fn new(is_dir: bool, xattrs: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
        let path = dir.path().join("x");
        if is_dir {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
        for (name, value) in xattrs {
            xattr::set(&path, name, value.as_bytes()).unwrap();
        }
        let fd = open::open_dir_path(dir.path()).unwrap();
        Self { dir, fd }
    }

    fn at(&self) -> At<'_> {
        assert!(self.dir.path().exists());
        At::entry(self.fd.as_fd(), Name::new(b"x").unwrap())
    }
}

fn dir(xattrs: &[(&str, &str)]) -> DirMarks {
    dir_marks(Marked::new(true, xattrs).at(), Trusted).unwrap()
}

fn file(xattrs: &[(&str, &str)]) -> FileMarks {
    file_marks(Marked::new(false, xattrs).at(), Trusted).unwrap()
}

#[test]
fn an_object_without_xattrs_has_no_marks() {
    need_root!();
    assert_eq!(dir(&[]), DirMarks::default());
    assert_eq!(file(&[]), FileMarks::default());
    assert_eq!(dir(&[("user.mine", "y")]), DirMarks::default());
    // The escaped mark of an overlay inside this one is none of ours.
    assert_eq!(
        dir(&[("trusted.overlay.overlay.opaque", "y")]),
        DirMarks::default()
    );
}

#[test]
fn opaque_marks_of_all_overlays_count() {
    need_root!();
    for name in [
        "trusted.overlay.opaque",
        "user.overlay.opaque",
        "user.fuseoverlayfs.opaque",
    ] {
        assert_eq!(dir(&[(name, "y")]).opaque, Opaque::Opaque, "{name}");
    }
    assert_eq!(
        dir(&[("trusted.overlay.opaque", "x")]).opaque,
        Opaque::XWhiteouts
    );
    assert_eq!(dir(&[("trusted.overlay.opaque", "n")]).opaque, Opaque::No);
}

#[test]
fn an_opaque_directory_needs_no_redirect() {
    need_root!();
    let marks = dir(&[
        ("trusted.overlay.opaque", "y"),
        ("trusted.overlay.redirect", "/old"),
        ("trusted.overlay.impure", "y"),
    ]);
    assert_eq!(marks.redirect, None);
    assert!(marks.impure);
}

#[test]
fn redirects_are_read_in_their_own_namespace() {
    need_root!();
    let relative = Some(Redirect::Relative(b"old".to_vec()));
    let absolute = Some(Redirect::Absolute(vec![b"a".to_vec(), b"b".to_vec()]));
    assert_eq!(
        dir(&[("trusted.overlay.redirect", "old")]).redirect,
        relative
    );
    assert_eq!(
        dir(&[("trusted.overlay.redirect", "/a/b")]).redirect,
        absolute
    );
    let marked = Marked::new(true, &[("user.overlay.redirect", "old")]);
    assert_eq!(dir_marks(marked.at(), Trusted).unwrap().redirect, None);
    assert_eq!(dir_marks(marked.at(), User).unwrap().redirect, relative);
}

#[test]
fn a_malformed_redirect_is_an_error() {
    need_root!();
    for value in ["", "/", "a/b", "..", "/a/../b", "/a//b"] {
        let xattrs = [
            ("trusted.overlay.redirect", value),
            ("trusted.overlay.metacopy", ""),
        ];
        let error = dir_marks(Marked::new(true, &xattrs).at(), Trusted).unwrap_err();
        assert_eq!(error.errno(), Errno::EIO, "{value:?}");
        let error = file_marks(Marked::new(false, &xattrs).at(), Trusted).unwrap_err();
        assert_eq!(error.errno(), Errno::EIO, "{value:?}");
    }
}

#[test]
fn a_redirect_of_a_file_counts_for_a_metacopy_only() {
    need_root!();
    let redirect = ("trusted.overlay.redirect", "old");
    assert_eq!(file(&[redirect]).redirect, None);
    let marks = file(&[redirect, ("trusted.overlay.metacopy", "")]);
    assert!(marks.metacopy);
    assert_eq!(marks.redirect, Some(Redirect::Relative(b"old".to_vec())));
}

#[test]
fn a_wrong_origin_is_no_origin() {
    need_root!();
    for value in ["", "nonsense", "\u{1}\u{2}"] {
        assert_eq!(
            file(&[("trusted.overlay.origin", value)]).origin,
            None,
            "{value:?}"
        );
    }
}
