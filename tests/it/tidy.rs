//! Rules of the code base that can be checked: the crate map, the edges between crates, unsafe.
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

#[test]
fn the_crate_map_is_what_the_modules_say() {
    let script = Command::new(root().join("scripts/crate-map"))
        .output()
        .unwrap();
    assert!(
        script.status.success(),
        "{}",
        String::from_utf8_lossy(&script.stderr)
    );
    let map = String::from_utf8(script.stdout).unwrap();
    let readme = std::fs::read_to_string(root().join("crates/README.md")).unwrap();
    for line in map.lines() {
        assert!(
            readme.lines().any(|l| l == line),
            "run scripts/crate-map --write; missing: {line}"
        );
    }
    for line in readme.lines().filter(|l| l.starts_with("- `")) {
        assert!(
            map.lines().any(|l| l == line),
            "run scripts/crate-map --write; stale: {line}"
        );
    }
}

/// What each crate may use of ours. A new edge is a change of design.
const EDGES: [(&str, &[&str]); 10] = [
    ("plyfs-sys", &[]),
    ("plyfs-format", &[]),
    ("plyfs-layer", &["plyfs-sys", "plyfs-format"]),
    ("plyfs-union", &["plyfs-sys", "plyfs-format", "plyfs-layer"]),
    ("plyfs-fuse", &["plyfs-sys", "plyfs-union"]),
    (
        "plyfs-mount",
        &[
            "plyfs-sys",
            "plyfs-format",
            "plyfs-layer",
            "plyfs-union",
            "plyfs-fuse",
        ],
    ),
    ("plyfs-image", &["plyfs-sys", "plyfs-format", "plyfs-layer"]),
    ("plyfs-registry", &["plyfs-image"]),
    (
        "plyfs",
        &[
            "plyfs-sys",
            "plyfs-format",
            "plyfs-layer",
            "plyfs-union",
            "plyfs-fuse",
            "plyfs-mount",
            "plyfs-image",
            "plyfs-registry",
            "plyfs-benches",
        ],
    ),
    ("plyfs-testkit", &["plyfs-sys", "plyfs-format"]),
];

/// The `[dependencies]` of a crate, without those for tests.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = root().join("crates").join(name).join("Cargo.toml");
    let text = std::fs::read_to_string(manifest).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|l| l.split(['.', ' ', '=']).next())
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_use_only_what_they_may() {
    for (name, allowed) in EDGES {
        for used in dependencies(name).iter().filter(|d| d.starts_with("plyfs")) {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} must not use {used}"
            );
        }
        let names_fuser = dependencies(name).iter().any(|d| d == "fuser");
        assert_eq!(names_fuser, name == "plyfs-fuse", "{name} and fuser");
    }
}

#[test]
fn unsafe_code_is_in_plyfs_sys_alone() {
    for (name, _) in EDGES {
        let src = root().join("crates").join(name).join("src");
        let top = ["lib.rs", "main.rs"]
            .iter()
            .map(|f| src.join(f))
            .find(|f| f.exists())
            .unwrap();
        let forbids = std::fs::read_to_string(top)
            .unwrap()
            .contains("#![forbid(unsafe_code)]");
        let may_skip = matches!(name, "plyfs-sys" | "plyfs-testkit");
        assert!(forbids || may_skip, "{name} lacks #![forbid(unsafe_code)]");
    }
}
