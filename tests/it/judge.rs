//! The judge: random work on plyfs and on kernel overlayfs, compared step by step.
//!
//! `scripts/judge` runs it for longer. `PLYFS_JUDGE_COUNT` and `PLYFS_JUDGE_SEED` choose how many
//! sequences run here and where they begin; a failure prints a small case for `cases/`.
use std::path::PathBuf;
use std::process::Command;

use plyfs_testkit::{need_fuse, need_overlay};

fn judge(arguments: &[&str], cases: &[PathBuf]) {
    let output = Command::new(env!("CARGO_BIN_EXE_judge"))
        .args(arguments)
        .args(cases)
        .env("PLYFS_BIN", plyfs_testkit::bin())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    println!("{said}{complaints}");
    assert!(
        output.status.success(),
        "judge {arguments:?} ended with {}; each case above can be put into a file for \
         `scripts/judge --replay FILE`",
        output.status
    );
}

fn from_env(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// A judge that finds differences where there are none would be believed about nothing.
#[test]
fn the_kernel_agrees_with_itself() {
    need_overlay!();
    judge(&["--subject=kernel", "--count=150"], &[]);
}

#[test]
fn kept_cases_agree() {
    need_overlay!();
    need_fuse!();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/it/judge/cases");
    let entries = std::fs::read_dir(dir).unwrap();
    let mut cases: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    cases.sort();
    assert!(!cases.is_empty(), "no case in {dir}");
    judge(&["--subject=plyfs", "--replay"], &cases);
}

#[test]
fn random_sequences_agree() {
    need_overlay!();
    need_fuse!();
    let count = format!("--count={}", from_env("PLYFS_JUDGE_COUNT", "2000"));
    let seed = format!("--seed={}", from_env("PLYFS_JUDGE_SEED", "1"));
    judge(&["--subject=plyfs", "--jobs=2", &count, &seed], &[]);
}
