use std::os::fd::AsFd;

use plyfs_testkit::need_root;

use super::{Handle, fs_uuid, handle, open};
use crate::at::At;
use crate::open::open_dir_for_list;
use crate::scratch::Scratch;
use crate::stat::{stat, stat_fd};

#[test]
fn a_handle_leads_back_to_the_object() {
    need_root!();
    let scratch = Scratch::new("f f\nd d\nl l -> f\np p");
    let mount = open_dir_for_list(scratch.fd()).unwrap();
    for name in ["f", "d", "l", "p"] {
        let Some(by_name) = handle(scratch.at(name)).unwrap() else {
            plyfs_testkit::skip("handles", "a file system with file handles");
            return;
        };
        let fd = scratch.open(name);
        assert_eq!(handle(At::object(&fd)).unwrap(), Some(by_name.clone()));
        std::fs::rename(scratch.path(name), scratch.path("moved")).unwrap();
        let found = open(mount.as_fd(), &by_name).unwrap().unwrap();
        let id = stat_fd(found.as_fd()).unwrap().id();
        assert_eq!(id, stat(scratch.at("moved")).unwrap().id(), "{name}");
        std::fs::rename(scratch.path("moved"), scratch.path(name)).unwrap();
    }
}

#[test]
fn what_is_gone_or_nonsense_is_nothing() {
    need_root!();
    let scratch = Scratch::new("f f");
    let mount = open_dir_for_list(scratch.fd()).unwrap();
    if let Some(gone) = handle(scratch.at("f")).unwrap() {
        std::fs::remove_file(scratch.path("f")).unwrap();
        assert!(open(mount.as_fd(), &gone).unwrap().is_none());
    }
    for len in [0, 1, 8, 128, 129, 1000] {
        let nonsense = Handle {
            kind: 77,
            bytes: vec![0xee; len],
        };
        assert!(
            open(mount.as_fd(), &nonsense).unwrap().is_none(),
            "{len} bytes"
        );
    }
}

#[test]
fn the_uuid_is_that_of_the_file_system() {
    let (a, b) = (Scratch::new(""), Scratch::new("d d"));
    let uuid = |fd: &std::os::fd::OwnedFd| fs_uuid(open_dir_for_list(fd.as_fd()).unwrap().as_fd());
    let (a, b) = (a.fd().try_clone_to_owned().unwrap(), b.dir("d"));
    assert_eq!(uuid(&a), uuid(&b));
}
