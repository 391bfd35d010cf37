use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Stack;

type Change = (&'static str, fn(&Path));

/// Changes of a lower file `d/f`, each of which must be seen.
const CHANGES: &[Change] = &[
    ("content", |f| fs::write(f, "other").unwrap()),
    ("same content", |f| fs::write(f, "1").unwrap()),
    ("mode", |f| {
        fs::set_permissions(f, PermissionsExt::from_mode(0o600)).unwrap();
    }),
    ("times", |f| {
        let file = fs::File::options().write(true).open(f).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }),
    ("xattr", |f| xattr::set(f, "user.new", b"1").unwrap()),
    ("link", |f| fs::hard_link(f, f.with_file_name("g")).unwrap()),
    ("removal", |f| fs::remove_file(f).unwrap()),
    ("a new name", |f| {
        fs::write(f.with_file_name("n"), "").unwrap()
    }),
];

#[test]
fn every_change_of_a_lower_is_seen() {
    crate::need_root!();
    for (what, change) in CHANGES {
        let stack = Stack::planted(&["f d/f = 1", "f other = 2"]);
        let mut watch = stack.watch_lowers();
        assert!(watch.changes().is_empty(), "{what}");
        change(&stack.lower(0).join("d/f"));
        assert!(!watch.changes().is_empty(), "{what} is not seen");
        watch.look_away();
    }
}

#[test]
fn looking_is_no_change() {
    let stack = Stack::planted(&["f d/f = 1"]);
    let watch = stack.watch_lowers();
    fs::read(stack.lower(0).join("d/f")).unwrap();
    fs::read_dir(stack.lower(0).join("d")).unwrap().count();
    drop(watch);
}
