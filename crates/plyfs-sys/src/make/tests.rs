use std::os::fd::AsFd;

use super::{Rename, link, mkdir, rename, rmdir, symlink, unlink};
use crate::at::At;
use crate::error::Errno;
use crate::scratch::{Scratch, as_name};
use crate::stat::stat;

fn errno<T>(result: crate::Result<T>) -> Option<Errno> {
    result.err().map(|e| e.errno())
}

#[test]
fn a_name_is_made_once() {
    let scratch = Scratch::new("f f");
    let name = as_name("f");
    assert_eq!(errno(mkdir(scratch.fd(), name, 0o755)), Some(Errno::EEXIST));
    assert_eq!(
        errno(symlink(b"t", scratch.fd(), name)),
        Some(Errno::EEXIST)
    );
    mkdir(scratch.fd(), as_name("d"), 0o755).unwrap();
    symlink(b"t", scratch.fd(), as_name("l")).unwrap();
}

#[test]
fn objects_are_linked_by_name_and_by_descriptor() {
    let scratch = Scratch::new("f f\nl l -> f");
    let ino = |name| stat(scratch.at(name)).unwrap().ino;
    link(scratch.at("f"), scratch.fd(), as_name("by-name")).unwrap();
    let fd = scratch.open("f");
    link(At::object(&fd), scratch.fd(), as_name("by-fd")).unwrap();
    assert_eq!((ino("by-name"), ino("by-fd")), (ino("f"), ino("f")));
    // The link itself, not what it leads to.
    link(scratch.at("l"), scratch.fd(), as_name("l2")).unwrap();
    assert_eq!(ino("l2"), ino("l"));
}

#[test]
fn a_nameless_file_gets_a_name() {
    let scratch = Scratch::new("");
    let file = crate::open::open_tmpfile(scratch.fd(), 0o600).unwrap();
    crate::io::pwrite(file.as_fd(), b"x", 0).unwrap();
    link(At::object(&file), scratch.fd(), as_name("f")).unwrap();
    assert_eq!(std::fs::read(scratch.path("f")).unwrap(), b"x");
}

#[test]
fn rename_obeys_its_flags() {
    let scratch = Scratch::new("f a = A\nf b = B\nd d");
    let mv = |from: &str, to: &str, flags| {
        errno(rename(
            scratch.fd(),
            as_name(from),
            scratch.fd(),
            as_name(to),
            flags,
        ))
    };
    let read = |name: &str| std::fs::read_to_string(scratch.path(name)).unwrap();
    assert_eq!(mv("a", "b", Rename::NOREPLACE), Some(Errno::EEXIST));
    assert_eq!(mv("a", "b", Rename::EXCHANGE), None);
    assert_eq!((read("a"), read("b")), ("B".to_owned(), "A".to_owned()));
    assert_eq!(mv("a", "no", Rename::EXCHANGE), Some(Errno::ENOENT));
    assert_eq!(mv("a", "d", Rename::empty()), Some(Errno::EISDIR));
    assert_eq!(mv("a", "b", Rename::empty()), None);
    assert_eq!(read("b"), "B");
    assert_eq!(mv("b", "new", Rename::NOREPLACE), None);
}

#[test]
fn removal_knows_files_from_directories() {
    let scratch = Scratch::new("f f\nd d\nf full/x");
    assert_eq!(
        errno(unlink(scratch.fd(), as_name("d"))),
        Some(Errno::EISDIR)
    );
    assert_eq!(
        errno(rmdir(scratch.fd(), as_name("f"))),
        Some(Errno::ENOTDIR)
    );
    assert_eq!(
        errno(rmdir(scratch.fd(), as_name("full"))),
        Some(Errno::ENOTEMPTY)
    );
    unlink(scratch.fd(), as_name("f")).unwrap();
    rmdir(scratch.fd(), as_name("d")).unwrap();
    assert_eq!(
        errno(unlink(scratch.fd(), as_name("f"))),
        Some(Errno::ENOENT)
    );
}

#[test]
fn an_error_says_what_failed_on_what() {
    let scratch = Scratch::new("");
    let error = unlink(scratch.fd(), as_name("no such")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("unlink") && text.contains("no such") && text.contains("ENOENT"),
        "{text}"
    );
}
