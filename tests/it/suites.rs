//! Test suites of others and long random ones, in their short form; `scripts/suites` has the long.
use std::path::Path;
use std::process::Command;

use plyfs_testkit::{bin, need_fuse, need_overlay, need_passthrough};

/// Runs `scripts/suites/NAME` on the binary under test.
pub(crate) fn suite(name: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scripts/suites")
        .join(name);
    let run = Command::new(script)
        .arg("--plyfs")
        .arg(bin())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    println!("{text}");
    assert!(
        run.status.success(),
        "scripts/suites/{name} {arguments:?}: {}, see above",
        run.status
    );
}

#[test]
fn pjdfstest_fails_nowhere_but_where_the_kernel_does() {
    need_overlay!();
    need_fuse!();
    suite("pjdfstest", &["--fs", "ext4", "--fs", "xfs"]);
}

/// With cached writes, the default: without them Linux 6.17 and newer lose bytes (docs/semantics.md),
/// and fsx, which has dirty pages written all the time, finds that within seconds.
/// `PLYFS_FSX_OPS` and `PLYFS_FSX_SEED` choose another run; `scripts/suites/fsx` has a longer one.
#[test]
fn every_byte_is_what_was_written() {
    need_fuse!();
    let from_env = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let ops = from_env("PLYFS_FSX_OPS", "100000");
    let seed = from_env("PLYFS_FSX_SEED", "1");
    fsx(&["--ops", &ops, "--seed", &seed]);
}

#[test]
fn every_byte_that_is_passed_through_is_what_was_written() {
    need_passthrough!();
    let options = ["--options", "data=passthrough"];
    fsx(&[&["--ops", "30000", "--seed", "2"], &options[..]].concat());
}

fn fsx(arguments: &[&str]) {
    let run = Command::new(env!("CARGO_BIN_EXE_fsx"))
        .args(arguments)
        .env("PLYFS_BIN", bin())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    println!("{text}");
    assert!(run.status.success(), "fsx: {}, see above", run.status);
}
