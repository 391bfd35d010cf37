//! Unpacking a layer: nothing outside changes, and what comes in goes out and comes in the same.
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use plyfs_format::names::XattrNamespace;
use plyfs_image::apply::apply as unpack;
use plyfs_image::{Limits, layer_tar};
use plyfs_sys::{Name, open};

const NS: XattrNamespace = XattrNamespace::Trusted;
const VICTIM: &str = "untouched";

/// Small enough that a run ends soon, whatever the archive says.
fn limits() -> Limits {
    Limits {
        entries: 500,
        bytes: 1 << 20,
        depth: 40,
        pax: 64 << 10,
        ..Limits::default()
    }
}

/// Takes `data` for a layer.
pub fn apply(data: &[u8]) {
    let dir = tempfile::tempdir_in(crate::scratch()).unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["one", "two"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("victim"), VICTIM).unwrap();
    if into(&at("one"), data).is_ok() {
        // What was taken is shown, can be written as an archive, and is the same again from there.
        let shown = all_of(&at("one"));
        into(&at("two"), &shown).expect("an archive of ours is refused");
        assert!(all_of(&at("two")) == shown, "it comes out differently");
    }
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), VICTIM);
    assert_eq!(fs::metadata(at("victim")).unwrap().nlink(), 1);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        3,
        "something was made outside"
    );
    let root = open::open_dir_path(dir.path()).unwrap();
    for name in ["one", "two"] {
        // Deeper than the usual way of removing may go.
        plyfs_layer::remove_tree(root.as_fd(), Name::new(name.as_bytes()).unwrap()).unwrap();
    }
}

fn into(dir: &Path, data: &[u8]) -> plyfs_image::Result<()> {
    let root = open::open_dir_path(dir).unwrap();
    unpack(root.as_fd(), NS, data, &limits()).map(drop)
}

fn all_of(dir: &Path) -> Vec<u8> {
    let options = layer_tar::Options {
        namespace: NS,
        latest: None,
    };
    let written = layer_tar::write_all(&[dir.to_owned()], Vec::new(), options);
    written.expect("what was unpacked cannot be read").0
}
