//! Finds the programs under test: the `plyfs` binary and the rival it is compared with.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `plyfs` binary: `$PLYFS_BIN`, or the one beside the running test, built once if missing.
///
/// # Panics
/// When there is none and it cannot be built.
#[must_use]
pub fn bin() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("PLYFS_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "PLYFS_BIN={} is not a file", path.display());
        return std::fs::canonicalize(path).unwrap();
    }
    let dir = profile_dir();
    let path = dir.join("plyfs");
    if !path.is_file() {
        build(&dir);
    }
    assert!(
        path.is_file(),
        "no plyfs binary at {}: cargo build -p plyfs",
        path.display()
    );
    path
}

/// `target/debug` for a test in `target/debug/deps`, and for a program in `target/debug`.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the running test");
    let dir = exe.parent().unwrap();
    if dir.ends_with("deps") {
        dir.parent().unwrap().to_owned()
    } else {
        dir.to_owned()
    }
}

fn build(profile_dir: &Path) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "-p", "plyfs", "--target-dir"])
        .arg(profile_dir.parent().unwrap());
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "cargo build -p plyfs failed");
}

/// The fuse-overlayfs binary: `$FUSE_OVERLAYFS_BIN`, the one kept for comparisons, or in PATH.
#[must_use]
pub fn fuse_overlayfs() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FUSE_OVERLAYFS_BIN") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from("/opt/rivals/bin"))
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join("fuse-overlayfs"))
        .find(|program| program.is_file())
}
