use plyfs_testkit::need_root;

use super::{SetFlags, get, get_strict, list, remove, set};
use crate::at::At;
use crate::error::Errno;
use crate::scratch::Scratch;

#[test]
fn names_and_descriptors_are_the_same_object() {
    let scratch = Scratch::new("f f\nd d");
    for name in ["f", "d"] {
        let fd = scratch.open(name);
        let (entry, object) = (scratch.at(name), At::object(&fd));
        set(entry, b"user.a", b"1", SetFlags::empty()).unwrap();
        set(object, b"user.b", b"2", SetFlags::empty()).unwrap();
        for at in [entry, object] {
            assert_eq!(get(at, b"user.a").unwrap().unwrap(), b"1");
            assert_eq!(get_strict(at, b"user.b").unwrap(), b"2");
            let mut names = list(at).unwrap();
            names.sort();
            assert_eq!(names, [b"user.a", b"user.b"]);
        }
        remove(object, b"user.a").unwrap();
        remove(entry, b"user.b").unwrap();
        assert!(list(entry).unwrap().is_empty());
    }
}

#[test]
fn a_symbolic_link_is_not_followed() {
    need_root!();
    let scratch = Scratch::new("f f\nl l -> f");
    let fd = scratch.open("l");
    for (at, name) in [
        (scratch.at("l"), b"trusted.a"),
        (At::object(&fd), b"trusted.b"),
    ] {
        set(at, name, b"1", SetFlags::empty()).unwrap();
        assert_eq!(get(at, name).unwrap().unwrap(), b"1");
        remove(at, name).unwrap();
    }
    assert!(list(scratch.at("f")).unwrap().is_empty());
}

#[test]
fn absence_is_a_value_or_an_error_as_asked() {
    let scratch = Scratch::new("f f");
    let at = scratch.at("f");
    assert_eq!(get(at, b"user.no").unwrap(), None);
    assert_eq!(
        get_strict(at, b"user.no").unwrap_err().errno(),
        Errno::ENODATA
    );
    assert_eq!(remove(at, b"user.no").unwrap_err().errno(), Errno::ENODATA);
    assert_eq!(
        get(scratch.at("gone"), b"user.a").unwrap_err().errno(),
        Errno::ENOENT
    );
    assert_eq!(list(scratch.at("gone")).unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn flags_say_what_must_be_there() {
    let scratch = Scratch::new("f f");
    let at = scratch.at("f");
    let put = |flags| set(at, b"user.a", b"1", flags).map_err(|e| e.errno());
    assert_eq!(put(SetFlags::REPLACE), Err(Errno::ENODATA));
    assert_eq!(put(SetFlags::CREATE), Ok(()));
    assert_eq!(put(SetFlags::CREATE), Err(Errno::EEXIST));
    assert_eq!(put(SetFlags::REPLACE), Ok(()));
}

#[test]
fn long_values_and_many_names_come_whole() {
    let scratch = Scratch::new("f f");
    let at = scratch.at("f");
    // One block of ext4 has room for this much.
    let value = vec![b'v'; 3000];
    set(at, b"user.long", &value, SetFlags::empty()).unwrap();
    assert_eq!(get(at, b"user.long").unwrap().unwrap(), value);
    assert_eq!(get_strict(at, b"user.long").unwrap(), value);
    set(at, b"user.empty", b"", SetFlags::empty()).unwrap();
    assert_eq!(get(at, b"user.empty").unwrap().unwrap(), b"");
    remove(at, b"user.long").unwrap();
    for i in 0..40 {
        let name = format!("user.{i:020}");
        set(at, name.as_bytes(), b"", SetFlags::empty()).unwrap();
    }
    assert_eq!(list(at).unwrap().len(), 41);
}
