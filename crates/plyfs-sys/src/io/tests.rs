use std::os::fd::AsFd;

use super::{copy_range, fallocate, fsync, lseek, pread, pwrite, try_lock};
use crate::error::Errno;
use crate::open::{Access, open_file};
use crate::scratch::Scratch;

const BOTH: Access = Access::READ.union(Access::WRITE);

#[test]
fn offsets_go_beyond_what_32_bits_hold() {
    let scratch = Scratch::new("f f");
    let file = open_file(scratch.at("f"), BOTH).unwrap();
    let far = 5 << 32;
    assert_eq!(pwrite(file.as_fd(), b"far", far).unwrap(), 3);
    let mut buf = [0; 8];
    assert_eq!(pread(file.as_fd(), &mut buf, far).unwrap(), 3);
    assert_eq!(pread(file.as_fd(), &mut buf, far + 3).unwrap(), 0);
    let error = pread(file.as_fd(), &mut buf, u64::MAX).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    assert_eq!(lseek(file.as_fd(), 0, libc::SEEK_HOLE).unwrap(), 0);
    fsync(file.as_fd(), true).unwrap();
    fsync(file.as_fd(), false).unwrap();
}

#[test]
fn ranges_are_copied_and_space_is_allocated() {
    let scratch = Scratch::new("f a = abcdef\nf b");
    let (a, b) = (
        open_file(scratch.at("a"), Access::READ).unwrap(),
        open_file(scratch.at("b"), BOTH).unwrap(),
    );
    assert_eq!(copy_range(a.as_fd(), 2, b.as_fd(), 1, 3).unwrap(), 3);
    assert_eq!(std::fs::read(scratch.path("b")).unwrap(), b"\0cde");
    fallocate(b.as_fd(), 0, 0, 4096).unwrap();
    assert_eq!(scratch.path("b").metadata().unwrap().len(), 4096);
    assert_eq!(
        fallocate(b.as_fd(), 0, 0, 0).unwrap_err().errno(),
        Errno::EINVAL
    );
}

#[test]
fn a_lock_is_held_once() {
    let scratch = Scratch::new("f f");
    let first = open_file(scratch.at("f"), BOTH).unwrap();
    let second = open_file(scratch.at("f"), BOTH).unwrap();
    assert!(try_lock(first.as_fd()).unwrap());
    assert!(!try_lock(second.as_fd()).unwrap());
    drop(first);
    assert!(try_lock(second.as_fd()).unwrap());
}
