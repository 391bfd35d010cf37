use std::collections::BTreeMap;
use std::os::fd::AsFd;

use super::for_each;
use crate::error::{Errno, SysError};
use crate::open::open_dir_for_list;
use crate::scratch::Scratch;
use crate::stat::Kind;

#[test]
fn all_entries_come_once_with_their_kinds() {
    // More than one buffer full of names as long as they can be.
    let long = "n".repeat(250);
    let mut spec = "f f\nd d\nl l -> f\np p".to_owned();
    for i in 0..600 {
        spec += &format!("\nf {i:05}{long}");
    }
    let scratch = Scratch::new(&spec);
    let list = open_dir_for_list(scratch.fd()).unwrap();
    let mut seen = BTreeMap::new();
    for_each::<SysError>(list.as_fd(), |e| {
        assert!(e.ino > 0);
        let before = seen.insert(e.name.to_vec(), e.kind);
        assert!(before.is_none());
        Ok(())
    })
    .unwrap();
    assert_eq!(seen.len(), 604);
    for (name, kind) in [
        ("f", Kind::File),
        ("d", Kind::Dir),
        ("l", Kind::Symlink),
        ("p", Kind::Fifo),
    ] {
        let found = seen[name.as_bytes()];
        assert!(found.is_none() || found == Some(kind), "{name}: {found:?}");
    }
}

#[test]
fn an_error_of_the_caller_ends_it() {
    let scratch = Scratch::new("f a\nf b");
    let list = open_dir_for_list(scratch.fd()).unwrap();
    let mut calls = 0;
    let ended = for_each(list.as_fd(), |_| {
        calls += 1;
        Err(SysError::new("caller", Errno::EIO))
    });
    assert_eq!((ended.unwrap_err().call(), calls), ("caller", 1));
}
