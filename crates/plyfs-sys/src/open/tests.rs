use std::os::fd::AsFd;

use super::{Access, create_file, open_dir, open_dir_path, open_file, open_path_at, open_tmpfile};
use crate::at::At;
use crate::error::Errno;
use crate::io;
use crate::scratch::{Scratch, as_name};
use crate::stat::stat_fd;

const SPEC: &str = "f f = data\nd d\nl to-f -> f\nl to-d -> d";

#[test]
fn symbolic_links_are_never_followed_below_a_layer() {
    let scratch = Scratch::new(SPEC);
    let dir = open_dir(scratch.fd(), as_name("to-d")).unwrap_err();
    assert_eq!(dir.errno(), Errno::ENOTDIR);
    let file = open_file(scratch.at("to-f"), Access::READ).unwrap_err();
    assert_eq!(file.errno(), Errno::ELOOP);
    // What an operator names is another matter.
    assert!(open_dir_path(&scratch.path("to-d")).is_ok());
}

#[test]
fn a_descriptor_opens_again_whatever_its_name_means_now() {
    let scratch = Scratch::new(SPEC);
    let pin = scratch.open("f");
    std::fs::remove_file(scratch.path("f")).unwrap();
    std::fs::write(scratch.path("f"), "another").unwrap();
    let file = open_file(At::object(&pin), Access::READ | Access::WRITE).unwrap();
    io::pwrite(file.as_fd(), b"D", 0).unwrap();
    let mut buf = [0; 8];
    let n = io::pread(file.as_fd(), &mut buf, 0).unwrap();
    assert_eq!(&buf[..n], b"Data");
    let again = open_path_at(At::object(&pin)).unwrap();
    assert_eq!(
        stat_fd(again.as_fd()).unwrap().id(),
        stat_fd(pin.as_fd()).unwrap().id()
    );
}

#[test]
fn access_is_what_was_asked_for() {
    let scratch = Scratch::new(SPEC);
    let reader = open_file(scratch.at("f"), Access::READ | Access::NOATIME).unwrap();
    assert_eq!(
        io::pwrite(reader.as_fd(), b"x", 0).unwrap_err().errno(),
        Errno::EBADF
    );
    let writer = open_file(scratch.at("f"), Access::WRITE).unwrap();
    assert_eq!(
        io::pread(writer.as_fd(), &mut [0], 0).unwrap_err().errno(),
        Errno::EBADF
    );
}

#[test]
fn making_a_file_takes_nobody_elses_place() {
    let scratch = Scratch::new(SPEC);
    for name in ["f", "d", "to-f"] {
        let made = create_file(scratch.fd(), as_name(name), 0o600);
        assert_eq!(made.unwrap_err().errno(), Errno::EEXIST, "{name}");
    }
    let nameless = open_tmpfile(scratch.fd(), 0o640).unwrap();
    assert_eq!(stat_fd(nameless.as_fd()).unwrap().nlink, 0);
}

#[test]
fn descriptors_are_not_inherited() {
    let scratch = Scratch::new(SPEC);
    let fds = [
        open_file(scratch.at("f"), Access::READ).unwrap(),
        open_dir(scratch.fd(), as_name("d")).unwrap(),
        open_tmpfile(scratch.fd(), 0o600).unwrap(),
        super::dup(&scratch.fd()).unwrap(),
        super::open_dir_for_list(scratch.fd()).unwrap(),
    ];
    for fd in fds {
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
