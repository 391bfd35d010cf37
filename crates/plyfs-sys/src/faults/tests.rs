use super::{Fault, arm};
use crate::error::Errno;
use crate::make::mkdir;
use crate::scratch::{Scratch, as_name};
use crate::stat::stat;

#[test]
fn one_call_fails_and_the_next_works() {
    let scratch = Scratch::new("f f");
    let armed = arm(Fault::Fails(Errno::EIO), 1);
    stat(scratch.at("f")).unwrap();
    assert_eq!(armed.hit(), None);
    assert_eq!(stat(scratch.at("f")).unwrap_err().errno(), Errno::EIO);
    assert_eq!(armed.hit(), Some("statx"));
    stat(scratch.at("f")).unwrap();
    drop(armed);
    stat(scratch.at("f")).unwrap();
}

#[test]
fn only_calls_that_take_space_find_none() {
    let scratch = Scratch::new("f f");
    let armed = arm(Fault::Fails(Errno::ENOSPC), 0);
    stat(scratch.at("f")).unwrap();
    let made = mkdir(scratch.fd(), as_name("d"), 0o700);
    assert_eq!(made.unwrap_err().errno(), Errno::ENOSPC);
    assert_eq!(armed.hit(), Some("mkdirat"));
    assert!(!scratch.path("d").exists());
}

#[test]
fn nothing_happens_after_the_last_call() {
    let scratch = Scratch::new("f f");
    let armed = arm(Fault::Stops, 1);
    mkdir(scratch.fd(), as_name("a"), 0o700).unwrap();
    stat(scratch.at("a")).unwrap();
    for name in ["b", "c"] {
        assert!(mkdir(scratch.fd(), as_name(name), 0o700).is_err());
        assert!(!scratch.path(name).exists());
    }
    drop(armed);
    mkdir(scratch.fd(), as_name("b"), 0o700).unwrap();
}
