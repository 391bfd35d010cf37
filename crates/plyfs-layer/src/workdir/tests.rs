use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use plyfs_sys::{Errno, Name, io, open};
use plyfs_testkit::need_root;

use super::Workdir;

struct Place {
    dir: tempfile::TempDir,
    root: OwnedFd,
    upper: OwnedFd,
    work: Workdir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
        plyfs_testkit::plant(dir.path(), "d upper\nd root");
        let root = open::open_dir_path(&dir.path().join("root")).unwrap();
        let upper = open::open_dir_path(&dir.path().join("upper")).unwrap();
        let work = Workdir::open(root.as_fd()).unwrap();
        Self {
            dir,
            root,
            upper,
            work,
        }
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.dir.path().join("upper").join(name)
    }

    fn litter(&self) -> Vec<PathBuf> {
        entries(&self.dir.path().join("root/work"))
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    dir.read_dir().unwrap().map(|e| e.unwrap().path()).collect()
}

fn name(text: &str) -> &Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn opening_clears_what_a_crash_left() {
    let place = Place::new();
    plyfs_testkit::plant(
        place.dir.path(),
        "f root/work/#1/deep/er = 1\nf root/work/#2 = 1\nf root/mine = 1",
    );
    Workdir::open(place.root.as_fd()).unwrap();
    assert!(place.litter().is_empty());
    assert!(
        place.dir.path().join("root/mine").exists(),
        "only `work` is ours"
    );
}

#[test]
fn what_is_not_published_is_gone() {
    let place = Place::new();
    drop(place.work.stage_file().unwrap());
    drop(place.work.stage_symlink(b"target").unwrap());
    let dir = place.work.stage_dir().unwrap();
    assert_eq!(place.litter().len(), 1);
    std::fs::write(place.litter()[0].join("inside"), "x").unwrap();
    drop(dir);
    assert!(place.litter().is_empty());
}

#[test]
fn a_new_name_is_given_once() {
    let place = Place::new();
    let staged = place.work.stage_file().unwrap();
    io::pwrite(staged.file().unwrap(), b"one", 0).unwrap();
    staged
        .publish_new(place.upper.as_fd(), name("f"))
        .unwrap()
        .unwrap();
    assert_eq!(std::fs::read(place.upper("f")).unwrap(), b"one");
    for staged in [
        place.work.stage_file().unwrap(),
        place.work.stage_symlink(b"t").unwrap(),
        place.work.stage_dir().unwrap(),
    ] {
        let error = staged
            .publish_new(place.upper.as_fd(), name("f"))
            .unwrap_err();
        assert_eq!(error.errno(), Errno::EEXIST);
    }
    assert_eq!(std::fs::read(place.upper("f")).unwrap(), b"one");
    assert!(place.litter().is_empty());
}

#[test]
fn publishing_over_replaces_at_once() {
    let place = Place::new();
    std::fs::write(place.upper("f"), "old").unwrap();
    let staged = place.work.stage_file().unwrap();
    io::pwrite(staged.file().unwrap(), b"new", 0).unwrap();
    staged.publish_over(place.upper.as_fd(), name("f")).unwrap();
    assert_eq!(std::fs::read(place.upper("f")).unwrap(), b"new");
    let staged = place.work.stage_symlink(b"t").unwrap();
    staged.publish_over(place.upper.as_fd(), name("f")).unwrap();
    assert!(place.upper("f").is_symlink());
    std::fs::create_dir(place.upper("d")).unwrap();
    let staged = place.work.stage_file().unwrap();
    let error = staged
        .publish_over(place.upper.as_fd(), name("d"))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::EISDIR);
    assert!(place.litter().is_empty());
}

#[test]
fn an_exchange_removes_what_was_there() {
    let place = Place::new();
    plyfs_testkit::plant(place.dir.path(), "f upper/d/e/f = 1");
    let staged = place.work.stage_dir().unwrap();
    staged
        .publish_exchange(place.upper.as_fd(), name("d"))
        .unwrap();
    assert!(entries(&place.upper("d")).is_empty());
    assert!(place.litter().is_empty());
    let staged = place.work.stage_file().unwrap();
    staged
        .publish_exchange(place.upper.as_fd(), name("d"))
        .unwrap();
    assert!(place.upper("d").is_file());
    let staged = place.work.stage_file().unwrap();
    let error = staged
        .publish_exchange(place.upper.as_fd(), name("no"))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
    assert!(place.litter().is_empty());
}

#[test]
fn discarding_moves_out_and_removes() {
    let place = Place::new();
    plyfs_testkit::plant(place.dir.path(), "f upper/d/e/f = 1");
    place.work.discard(place.upper.as_fd(), name("d")).unwrap();
    assert!(!place.upper("d").exists());
    assert!(place.litter().is_empty());
    let error = place
        .work
        .discard(place.upper.as_fd(), name("d"))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
}

#[test]
fn anything_can_stay_without_a_name() {
    let place = Place::new();
    let staged = place.work.stage_file().unwrap();
    let fd = staged.keep_nameless().unwrap();
    io::pwrite(fd.as_fd(), b"x", 0).unwrap();
    assert!(place.litter().is_empty());
    for staged in [
        place.work.stage_dir().unwrap(),
        place.work.stage_symlink(b"t").unwrap(),
    ] {
        let fd = staged.keep_nameless().unwrap();
        plyfs_sys::stat::stat_fd(fd.as_fd()).unwrap();
    }
    assert!(place.litter().is_empty());
}

#[test]
fn a_staged_link_is_the_same_file() {
    let place = Place::new();
    std::fs::write(place.upper("f"), "x").unwrap();
    let old = plyfs_sys::At::entry(place.upper.as_fd(), name("f"));
    let staged = place.work.stage_link(old).unwrap();
    staged.publish_new(place.upper.as_fd(), name("g")).unwrap();
    let ino = |n: &str| std::os::unix::fs::MetadataExt::ino(&place.upper(n).metadata().unwrap());
    assert_eq!(ino("f"), ino("g"));
}

#[test]
fn whiteouts_are_links_of_one_inode() {
    need_root!();
    let place = Place::new();
    for n in ["a", "b", "c"] {
        place
            .work
            .make_whiteout(place.upper.as_fd(), name(n))
            .unwrap();
    }
    let staged = place.work.stage_whiteout().unwrap();
    staged.publish_new(place.upper.as_fd(), name("d")).unwrap();
    let tree = plyfs_testkit::snapshot(&place.dir.path().join("upper"));
    for n in ["a", "b", "c", "d"] {
        let node = tree.node(n).unwrap();
        assert_eq!(
            (node.kind, node.rdev),
            (plyfs_testkit::Kind::Char, 0),
            "{n}"
        );
        assert_eq!(node.same_file_as.as_deref(), Some("a"), "{n}");
    }
    let error = place
        .work
        .make_whiteout(place.upper.as_fd(), name("a"))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::EEXIST);
    // Another process may have cleared the workdir meanwhile.
    for path in place.litter() {
        std::fs::remove_file(path).unwrap();
    }
    place
        .work
        .make_whiteout(place.upper.as_fd(), name("e"))
        .unwrap();
    place.work.close().unwrap();
    assert!(place.litter().is_empty());
    place
        .work
        .make_whiteout(place.upper.as_fd(), name("f"))
        .unwrap();
}

#[test]
fn a_volatile_mark_lies_where_the_kernel_looks() {
    let place = Place::new();
    place.work.mark_volatile().unwrap();
    assert!(
        place
            .dir
            .path()
            .join("root/work/incompat/volatile")
            .is_dir()
    );
    place.work.close_volatile().unwrap();
    assert!(place.litter().is_empty());
}

#[test]
fn a_workdir_the_kernel_made_can_be_used() {
    let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
    plyfs_testkit::plant(dir.path(), "d work\nm 0 work");
    let root = open::open_dir_path(dir.path()).unwrap();
    let work = Workdir::open(root.as_fd()).unwrap();
    drop(work.stage_dir().unwrap());
    let mode = std::os::unix::fs::MetadataExt::mode(&dir.path().join("work").metadata().unwrap());
    assert_eq!(mode & 0o700, 0o700);
}
