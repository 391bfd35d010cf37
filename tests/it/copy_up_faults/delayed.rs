//! Writes that the kernel caches and cannot store later: who is told, and what is left.
use std::fs;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use plyfs_testkit::{Stack, mount_plyfs, need_fuse};

use super::{BIG, Backing, litter, noise, stack_with_big_files, writer};
use crate::support::{errno, read};

/// A stack whose upper has no room for the big file.
fn full() -> (Stack, Backing) {
    let stack = stack_with_big_files();
    let backing = Backing::tmpfs(&stack, 4 << 20).take_upper(&stack);
    (stack, backing)
}

fn close(file: fs::File) -> Errno {
    nix::unistd::close(file.into_raw_fd())
        .err()
        .unwrap_or(Errno::UnknownErrno)
}

/// After a new mount, when nothing is in a cache any more.
fn old_file_is_intact(stack: &Stack, name: &str) {
    assert_eq!(litter(stack), [""; 0]);
    let again = mount_plyfs(stack, "");
    assert!(fs::read(again.join(name)).unwrap() == noise(BIG, 1));
    again.unmount();
    stack.assert_lowers_unchanged();
}

#[test]
fn close_says_that_there_is_no_room() {
    need_fuse!();
    let (stack, backing) = full();
    let mounted = mount_plyfs(&stack, "");
    let file = writer(mounted.join("a/b/big"));
    file.write_all_at(b"x", 5).unwrap();
    assert_eq!(close(file), Errno::ENOSPC);
    assert!(!stack.upper().join("a/b/big").exists());
    mounted.unmount();
    old_file_is_intact(&stack, "a/b/big");
    drop(backing);
}

#[test]
fn fsync_says_that_there_is_no_room() {
    need_fuse!();
    let (stack, backing) = full();
    let mounted = mount_plyfs(&stack, "");
    let file = writer(mounted.join("a/b/big"));
    file.write_all_at(b"x", 5).unwrap();
    assert_eq!(errno(file.sync_all()), Errno::ENOSPC);
    drop(file);
    mounted.unmount();
    old_file_is_intact(&stack, "a/b/big");
    drop(backing);
}

/// The room for a new file ends within the pages of one request.
#[test]
fn a_file_that_does_not_fit_is_no_success() {
    need_fuse!();
    let (stack, backing) = full();
    let mounted = mount_plyfs(&stack, "");
    let file = fs::File::create(mounted.join("new")).unwrap();
    file.write_all_at(&noise(5 << 20, 3), 0).unwrap();
    assert_eq!(close(file), Errno::ENOSPC);
    // What is told to have worked later is there.
    fs::remove_file(mounted.join("new")).unwrap();
    let fits = noise(1 << 20, 4);
    fs::write(mounted.join("fits"), &fits).unwrap();
    mounted.unmount();
    let again = mount_plyfs(&stack, "");
    assert!(fs::read(again.join("fits")).unwrap() == fits);
    again.unmount();
    drop(backing);
}

/// When room comes back, what failed works, without a new mount.
#[test]
fn what_failed_works_when_room_comes_back() {
    need_fuse!();
    let stack = stack_with_big_files();
    let backing = Backing::tmpfs(&stack, 10 << 20).take_upper(&stack);
    let filler = backing.fill(2 << 20);
    let mounted = mount_plyfs(&stack, "");
    let change = |path: &Path| {
        let file = writer(path);
        file.write_all_at(b"x", 0).unwrap();
        close(file)
    };
    let big = mounted.join("a/b/big");
    assert_eq!(change(&big), Errno::ENOSPC);
    fs::remove_file(filler).unwrap();
    assert_eq!(change(&big), Errno::UnknownErrno);
    mounted.unmount();
    let mut expected = noise(BIG, 1);
    expected[0] = b'x';
    assert!(fs::read(stack.upper().join("a/b/big")).unwrap() == expected);
    assert_eq!(read(stack.lower(0).join("a/b/small")), "small");
    drop(backing);
    stack.assert_lowers_unchanged();
}
