use std::os::fd::AsFd;

use plyfs_sys::{Name, open};

use super::{MAX_DEPTH, names, remove_tree};

fn scratch() -> (tempfile::TempDir, std::os::fd::OwnedFd) {
    let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
    let fd = open::open_dir_path(dir.path()).unwrap();
    (dir, fd)
}

fn name(text: &str) -> &Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn a_tree_goes_with_all_kinds_in_it() {
    let (dir, fd) = scratch();
    plyfs_testkit::plant(
        dir.path(),
        "f t/a/b/c = 1\nl t/a/l -> ../../keep\np t/a/p\nd t/empty\nf keep/x = 1",
    );
    remove_tree(fd.as_fd(), name("t")).unwrap();
    let left = names(fd.as_fd()).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].as_bytes(), b"keep");
    // A symbolic link is removed, not followed.
    assert!(dir.path().join("keep/x").exists());
}

#[test]
fn absence_is_fine_and_files_are_trees_too() {
    let (dir, fd) = scratch();
    remove_tree(fd.as_fd(), name("no")).unwrap();
    plyfs_testkit::plant(dir.path(), "f f = 1\nl l -> f");
    remove_tree(fd.as_fd(), name("l")).unwrap();
    assert!(dir.path().join("f").exists());
    remove_tree(fd.as_fd(), name("f")).unwrap();
    assert!(names(fd.as_fd()).unwrap().is_empty());
}

#[test]
fn no_tree_is_too_deep() {
    let (_dir, fd) = scratch();
    let mut at = open::dup(&fd).unwrap();
    for level in 0..1500 {
        plyfs_sys::make::mkdir(at.as_fd(), name("d"), 0o755).unwrap();
        if level % MAX_DEPTH == 1 {
            plyfs_sys::make::mkdir(at.as_fd(), name("beside"), 0o755).unwrap();
        }
        at = open::open_dir(at.as_fd(), name("d")).unwrap();
    }
    // A name that such a removal would give is somebody else's.
    plyfs_sys::make::mkdir(fd.as_fd(), name(".plyfs-deep-0"), 0o755).unwrap();
    remove_tree(fd.as_fd(), name("d")).unwrap();
    let left = names(fd.as_fd()).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].as_bytes(), b".plyfs-deep-0");
}
