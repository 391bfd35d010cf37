//! Real programs on files of a lower layer, in the short form of `scripts/suites/programs`.
use plyfs_testkit::{need_fuse, need_overlay};

use crate::suites::suite;

fn part(name: &str) {
    let treecmp = env!("CARGO_BIN_EXE_treecmp");
    suite("programs", &["--treecmp", treecmp, "--short", name]);
}

#[test]
fn sqlite_rewrites_a_database_that_a_reader_holds_open() {
    need_overlay!();
    need_fuse!();
    part("sqlite");
}

#[test]
fn git_clones_collects_and_checks() {
    need_overlay!();
    need_fuse!();
    part("git");
}

#[test]
fn copies_with_every_attribute_are_equal() {
    need_overlay!();
    need_fuse!();
    part("copies");
}

#[test]
fn dpkg_rewrites_its_database() {
    need_overlay!();
    need_fuse!();
    part("dpkg");
}

#[test]
fn stress_ng_finds_nothing() {
    need_overlay!();
    need_fuse!();
    part("stress");
}
