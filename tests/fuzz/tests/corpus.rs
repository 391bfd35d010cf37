//! What fuzzing has found, and where it starts from, goes through the targets with every test run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    assert!(files.len() > 5, "the corpus of {name} is gone");
    files
}

#[test]
fn layers() {
    // Owners and marks of overlayfs.
    plyfs_testkit::need_root!();
    for (name, bytes) in corpus("apply") {
        println!("{name}");
        plyfs_fuzz::apply(&bytes);
        let mut repaired = bytes.clone();
        plyfs_fuzz::repair(&mut repaired);
        plyfs_fuzz::apply(&repaired);
    }
}

#[test]
fn option_strings() {
    for (name, bytes) in corpus("options") {
        println!("{name}");
        plyfs_fuzz::options(&bytes);
    }
}

#[test]
fn marks_of_layers() {
    for (name, bytes) in corpus("marks") {
        println!("{name}");
        plyfs_fuzz::marks(&bytes);
    }
}

#[test]
fn documents() {
    for (name, bytes) in corpus("manifest") {
        println!("{name}");
        plyfs_fuzz::manifest(&bytes);
    }
}
