use std::os::fd::AsFd;

use plyfs_format::names::XattrNamespace;
use plyfs_sys::open;
use plyfs_testkit::need_root;

use super::Upper;

#[test]
fn root_on_a_disk_can_do_everything() {
    need_root!();
    let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
    let root = open::open_dir_path(dir.path()).unwrap();
    for (wanted, found) in [
        (None, XattrNamespace::Trusted),
        (Some(XattrNamespace::Trusted), XattrNamespace::Trusted),
        (Some(XattrNamespace::User), XattrNamespace::User),
    ] {
        let upper = Upper::open(root.as_fd(), wanted).unwrap();
        assert_eq!(upper.caps.xattr, Some(found));
        assert!(upper.caps.whiteout && upper.caps.exchange && upper.caps.rename_whiteout);
        upper.work.close().unwrap();
        let litter = dir.path().join("work").read_dir().unwrap().count();
        assert_eq!(litter, 0, "probing leaves nothing");
    }
}

#[test]
fn opening_asks_nothing_of_a_workdir_that_is_not_there() {
    let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let fd = std::fs::File::open(&file).unwrap();
    assert!(Upper::open(fd.as_fd(), None).is_err());
}
