use std::os::fd::AsFd;

use plyfs_format::names::XattrNamespace::Trusted;
use plyfs_sys::{Errno, Name, open};
use plyfs_testkit::need_root;

use super::{Probe, probe};

#[test]
fn a_name_is_absent_a_whiteout_or_an_object() {
    need_root!();
    let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
    plyfs_testkit::plant(
        dir.path(),
        "f f = 1\nf empty\nd d\nl l -> nowhere\nw w\nc null 1 3\nf x\nx x trusted.overlay.whiteout = y\n\
         f full = 1\nx full trusted.overlay.whiteout = y",
    );
    let fd = open::open_dir_path(dir.path()).unwrap();
    let ask = |name: &str, xwhiteouts| {
        let found = probe(
            fd.as_fd(),
            Name::new(name.as_bytes()).unwrap(),
            Trusted,
            xwhiteouts,
        );
        match found.unwrap() {
            Probe::Absent => "absent".to_owned(),
            Probe::Whiteout => "whiteout".to_owned(),
            Probe::Found(stat) => format!("{:?}", stat.kind()),
        }
    };
    for (name, plain, with_xwhiteouts) in [
        ("no", "absent", "absent"),
        ("f", "File", "File"),
        ("empty", "File", "File"),
        ("d", "Dir", "Dir"),
        ("l", "Symlink", "Symlink"),
        ("w", "whiteout", "whiteout"),
        ("null", "Char", "Char"),
        ("x", "File", "whiteout"),
        ("full", "File", "File"),
    ] {
        assert_eq!(ask(name, false), plain, "{name}");
        assert_eq!(ask(name, true), with_xwhiteouts, "{name}");
    }
}

#[test]
fn failure_is_not_absence() {
    let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
    plyfs_testkit::plant(dir.path(), "f f = 1");
    let root = open::open_dir_path(dir.path()).unwrap();
    let file = open::open_path(root.as_fd(), Name::new(b"f").unwrap()).unwrap();
    let found = probe(file.as_fd(), Name::new(b"x").unwrap(), Trusted, false);
    assert_eq!(found.unwrap_err().errno(), Errno::ENOTDIR);
}
