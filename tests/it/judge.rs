//! The judge: random work on plyfs and on kernel overlayfs, compared step by step.
//!
//! Each test is one variant of options or backing file system, with seeds of its own;
//! `scripts/judge` runs any of them for longer. `PLYFS_JUDGE_PERCENT` scales the number of sequences
//! and `PLYFS_JUDGE_SEED` is added to the seeds; a failure prints a small case for `cases/`.
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs_testkit::{need, need_fuse, need_overlay, need_passthrough, private_mounts};

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

fn from_env(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    text.parse().unwrap_or(default)
}

/// Random sequences on plyfs: how many, from which seed, with which further arguments.
fn random(count: u64, seed: u64, arguments: &[&str]) {
    let count = count * from_env("PLYFS_JUDGE_PERCENT", 100) / 100;
    let count = format!("--count={}", count.max(1));
    let seed = format!("--seed={}", seed + from_env("PLYFS_JUDGE_SEED", 0));
    judge(
        &[&["--subject=plyfs", &count, &seed], arguments].concat(),
        &[],
    );
}

/// A test of this name for each line: count, first seed, arguments.
macro_rules! variants {
    ($($name:ident: $count:literal from $seed:literal $arguments:expr;)*) => {$(
        #[test]
        fn $name() {
            need_overlay!();
            need_fuse!();
            random($count, $seed, &$arguments);
        }
    )*};
}

variants! {
    random_sequences_agree: 400 from 1 [];
    more_random_sequences_agree: 400 from 10_001 [];
    with_an_index: 200 from 20_001 ["--options=index=on"];
    with_redirects: 250 from 30_001 ["--options=redirect_dir=on"];
    with_redirects_that_are_not_followed: 100 from 40_001 ["--options=redirect_dir=nofollow"];
    with_metacopy: 200 from 50_001 ["--options=redirect_dir=on,metacopy=on"];
    with_metacopy_and_an_index: 200 from 60_001 ["--options=redirect_dir=on,metacopy=on,index=on"];
    with_xino: 100 from 70_001 ["--options=xino=on"];
    with_marks_in_user_xattrs: 100 from 80_001 ["--options=userxattr"];
    volatile: 100 from 90_001 ["--options=volatile,redirect_dir=on"];
    with_append_only_and_immutable_files: 50 from 100_001 ["--immutable"];
    following_redirects: 25 from 130_001 ["--options=redirect_dir=follow"];
    without_cached_writes: 40 from 140_001 ["--subject-options=writeback=0"];
    with_data_only_layers: 25 from 150_001
        ["--options=redirect_dir=on,metacopy=on", "--data-only"];
    in_turn_with_everything: 12 from 160_001
        ["--options=redirect_dir=on,metacopy=on,index=on,xino=on", "--alternate=6"];
    in_turn_following_redirects: 8 from 170_001
        ["--options=redirect_dir=follow", "--alternate=6"];
    in_turn_in_user_xattrs: 8 from 180_001 ["--options=userxattr", "--alternate=6"];
    in_turn_volatile: 8 from 190_001
        ["--options=volatile,redirect_dir=on", "--alternate=6"];
    in_turn_with_data_only_layers: 8 from 200_001
        ["--options=redirect_dir=on,metacopy=on,index=on", "--data-only", "--alternate=6"];
}

/// A tenth of the ordinary sequences and of those with each format, with the data passed through.
#[test]
fn with_data_passed_through() {
    need_overlay!();
    need_passthrough!();
    let passed = "--subject-options=data=passthrough";
    random(90, 130_001, &[passed]);
    let options = "--options=redirect_dir=on,metacopy=on,index=on";
    random(60, 140_001, &[passed, options]);
}

#[test]
fn on_ext4() {
    need_overlay!();
    need_fuse!();
    need!("mkfs.ext4");
    private_mounts();
    let scratch = tempfile::tempdir().unwrap();
    let (image, dir) = (scratch.path().join("image"), scratch.path().join("ext4"));
    std::fs::create_dir(&dir).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let run = |program: &str, arguments: &[&str]| {
        crate::support::run(scratch.path(), program, arguments);
    };
    run("truncate", &["-s", "700M", &path(&image)]);
    run("mkfs.ext4", &["-q", "-F", &path(&image)]);
    run("mount", &["-o", "loop", &path(&image), &path(&dir)]);
    let backing = format!("--backing={}", path(&dir));
    random(50, 110_001, &[&backing]);
    let options = "--options=redirect_dir=on,metacopy=on,index=on";
    random(50, 120_001, &[&backing, options]);
    run("umount", &[&path(&dir)]);
}

/// A judge that finds nothing proves nothing, unless it finds what is wrong on purpose.
#[test]
fn sabotage_is_found() {
    need_overlay!();
    need_fuse!();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/sabotage");
    let run = Command::new(script)
        .arg("--plyfs")
        .arg(plyfs_testkit::bin())
        .args(["--judge", env!("CARGO_BIN_EXE_judge"), "--count", "100"])
        .output()
        .unwrap();
    println!("{}", crate::support::assert_ok(&run));
}

/// A judge that finds differences where there are none would be believed about nothing.
#[test]
fn the_kernel_agrees_with_itself() {
    need_overlay!();
    judge(&["--subject=kernel", "--one-thread", "--count=120"], &[]);
}

/// What the judge lets threads do at once must not depend on their order. Modification times of
/// directories are left out: the kernel itself loses one when a child is copied up meanwhile.
#[test]
fn the_kernel_with_threads_agrees_with_itself() {
    need_overlay!();
    judge(&["--subject=kernel", "--ignore=mtime", "--count=120"], &[]);
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
