use std::collections::{BTreeSet, HashSet};

use plyfs_format::names::XattrNamespace::Trusted;
use plyfs_layer::{LayerRoot, Reach};
use plyfs_sys::Name;
use plyfs_sys::stat::Kind;
use plyfs_testkit::need_root;

use super::{Builder, LowerIndex, cookie_of};
use crate::config::{UnionConfig, UnionOptions};
use crate::stack::Stack;

#[test]
fn cookies_are_fixed_for_all_time() {
    // A stream of one process goes on in the next: these numbers must never change.
    for (name, cookie) in COOKIES {
        assert_eq!(cookie_of(name.as_bytes()).0, cookie, "{name:?}");
    }
}

const COOKIES: [(&str, u64); 4] = [
    ("a", 1_692_201_827_616_700_213),
    ("b", 7_719_717_825_236_887_767),
    ("usr", 664_920_350_729_313_376),
    ("libc.so.6", 5_353_995_857_337_761_333),
];

#[test]
fn cookies_are_positive_and_leave_room_for_dots() {
    let mut all = HashSet::new();
    for i in 0..100_000 {
        let cookie = cookie_of(format!("file{i}").as_bytes()).0;
        assert!(cookie > 2 && i64::try_from(cookie).is_ok(), "{cookie}");
        assert!(all.insert(cookie), "file{i} shares its cookie");
    }
}

#[test]
fn names_of_one_published_hash_have_cookies_of_their_own() {
    let twins = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];
    assert_ne!(
        cookie_of(twins[0].as_bytes()),
        cookie_of(twins[1].as_bytes())
    );
}

/// The index of a directory with these layers; `xwhiteouts`: their roots announce such.
fn index(specs: &[&str], xwhiteouts: bool) -> LowerIndex {
    let mut config = UnionConfig {
        lowers: Vec::new(),
        data_only: Vec::new(),
        upper: None,
        options: UnionOptions {
            xattr_namespace: Some(Trusted),
            ..UnionOptions::default()
        },
    };
    let mut dirs = Vec::new();
    for spec in specs {
        let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
        plyfs_testkit::plant(dir.path(), spec);
        if xwhiteouts {
            xattr::set(dir.path(), "trusted.overlay.opaque", b"x").unwrap();
        }
        config.lowers.push(LayerRoot::open(dir.path()).unwrap());
        dirs.push(dir);
    }
    let stack = Stack::open(config, None).unwrap();
    let reach = Reach::new(16);
    Builder::new(&reach, &stack).build(&stack.lowers).unwrap()
}

/// `name kind positions` for all entries.
fn shown(index: &LowerIndex) -> BTreeSet<String> {
    let entries = index.entries().iter();
    entries
        .map(|e| {
            let places: Vec<_> = index.positions(e).map(|p| p.to_string()).collect();
            format!(
                "{} {:?} {}",
                index.name(e).escape_ascii(),
                e.kind,
                places.join(",")
            )
        })
        .collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn positions_are_those_that_may_merge() {
    need_root!();
    let index = index(
        &[
            "f f\nd d\nf x",
            "f f\nd d\nd x\nw g",
            "d f\nf d/x\nf g\nf h",
            "d d",
        ],
        false,
    );
    assert_eq!(
        shown(&index),
        set(&["f File 0", "d Dir 0,1,2,3", "x File 0", "h File 2"])
    );
}

#[test]
fn a_whiteout_or_a_file_closes_a_directory() {
    need_root!();
    let by_whiteout = index(&["d d", "w d", "d d"], false);
    assert_eq!(shown(&by_whiteout), set(&["d Dir 0"]));
    let by_file = index(&["d d", "f d", "d d"], false);
    assert_eq!(shown(&by_file), set(&["d Dir 0"]));
}

#[test]
fn aufs_names_hide_and_do_not_show() {
    let index = index(
        &[
            "f .wh.a\nf b",
            "f a\nf c\nf .wh..wh..opq\nf .wh..wh.plnk",
            "f d",
        ],
        false,
    );
    assert_eq!(shown(&index), set(&["b File 0", "c File 1"]));
}

#[test]
fn xattr_whiteouts_count_where_they_may_be() {
    need_root!();
    let specs = ["f a\nx a trusted.overlay.whiteout = y\nf b", "f a = 2"];
    assert_eq!(shown(&index(&specs, true)), set(&["b File 0"]));
    assert_eq!(shown(&index(&specs, false)), set(&["a File 0", "b File 0"]));
}

#[test]
fn every_name_is_found_and_no_other() {
    let spec: Vec<_> = (0..500).map(|i| format!("f n{i}")).collect();
    let index = index(&[&spec.join("\n")], false);
    for i in 0..500 {
        let name = format!("n{i}");
        let name = Name::new(name.as_bytes()).unwrap();
        let entry = index.find(name).unwrap();
        assert_eq!(
            (index.name(entry), entry.kind),
            (name.as_bytes(), Kind::File)
        );
    }
    assert!(!index.has(Name::new(b"n500").unwrap()));
    assert!(index.weight() > 500 * 2);
    let cookies: Vec<_> = index.entries().iter().map(|e| e.cookie).collect();
    assert!(cookies.is_sorted());
}

#[test]
fn an_empty_directory_has_an_empty_index() {
    assert!(shown(&index(&[""], false)).is_empty());
    assert!(shown(&index(&[], false)).is_empty());
}
