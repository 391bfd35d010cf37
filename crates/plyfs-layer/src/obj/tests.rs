use std::sync::Arc;

use plyfs_sys::stat::LayerIno;
use plyfs_sys::{Name, NameBuf};

use super::{LayerIdx, Obj};

fn name(text: &str) -> NameBuf {
    Name::new(text.as_bytes()).unwrap().to_owned()
}

fn id(ino: u64) -> LayerIno {
    LayerIno { dev: 1, ino }
}

fn root() -> Arc<Obj> {
    let fd = std::fs::File::open("/").unwrap();
    Obj::pinned(LayerIdx::UPPER, id(2), Arc::new(fd.into()))
}

#[test]
fn names_come_and_go_one_by_one() {
    let (dir, other) = (root(), root());
    let obj = Obj::found(LayerIdx::UPPER, id(3), &dir, name("a"));
    let names = || -> Vec<String> {
        let place = obj.place();
        place
            .names
            .iter()
            .map(|(_, n)| n.as_bytes().escape_ascii().to_string())
            .collect()
    };
    // The directory counts by what it is, not by which `Obj` says so.
    obj.place_mut().add_name(&other, name("a"));
    assert_eq!(names(), ["a"]);
    obj.place_mut().add_name(&dir, name("b"));
    assert_eq!(names(), ["a", "b"]);
    obj.place_mut().remove_name(&other, &name("a"));
    assert_eq!(names(), ["b"]);
    obj.place_mut().remove_name(&dir, &name("no"));
    obj.place_mut().remove_name(&dir, &name("b"));
    assert!(names().is_empty());
}

#[test]
fn every_obj_has_its_own_serial() {
    let dir = root();
    let make = || Obj::found(LayerIdx(1), id(3), &dir, name("a")).serial();
    assert!(make() < make());
}
