//! `plyfs diff --tar`: the changes of a mount as an image layer, as tar itself reads it.
use std::fs;
use std::process::Command;

use plyfs_testkit::{Stack, bin, mount_plyfs, need_fuse, need_root};

use crate::support::assert_ok;

fn layer(words: &[&str]) -> Vec<u8> {
    let out = Command::new(bin())
        .arg("diff")
        .args(words)
        .output()
        .unwrap();
    assert_ok(&out);
    out.stdout
}

fn listed(archive: &std::path::Path) -> Vec<String> {
    let out = Command::new("tar")
        .arg("-tf")
        .arg(archive)
        .output()
        .unwrap();
    assert_ok(&out);
    let text = String::from_utf8(out.stdout).unwrap();
    let clean = |l: &str| l.trim_start_matches("./").trim_end_matches('/').to_owned();
    text.lines().map(clean).filter(|l| !l.is_empty()).collect()
}

#[test]
fn a_live_mount_becomes_a_layer() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f gone = 1\nf d/kept = 2\nf d/changed = 3\nf moved/x = 4"]);
    let m = mount_plyfs(&stack, "redirect_dir=on");
    fs::remove_file(m.join("gone")).unwrap();
    fs::write(m.join("d/changed"), "33").unwrap();
    fs::write(m.join("new"), "5").unwrap();
    fs::hard_link(m.join("new"), m.join("twin")).unwrap();
    fs::rename(m.join("moved"), m.join("here")).unwrap();
    let file = stack.dir().join("layer.tar");
    let mnt = m.path().to_str().unwrap().to_owned();
    layer(&[&mnt, &format!("--tar={}", file.display())]);
    let names = listed(&file);
    for want in [
        ".wh.gone",
        "d/changed",
        "new",
        "twin",
        ".wh.moved",
        "here/x",
    ] {
        assert!(names.iter().any(|n| n == want), "no {want} in {names:?}");
    }
    assert!(!names.iter().any(|n| n == "d/kept"), "{names:?}");
    // The same state gives the same bytes, to stdout too.
    assert!(layer(&[&mnt, "--tar"]) == fs::read(&file).unwrap());
    let into = stack.dir().join("unpacked");
    fs::create_dir(&into).unwrap();
    let done = Command::new("tar")
        .arg("-xf")
        .arg(&file)
        .arg("-C")
        .arg(&into)
        .status()
        .unwrap();
    assert!(done.success());
    assert_eq!(fs::read_to_string(into.join("d/changed")).unwrap(), "33");
    assert_eq!(fs::read_to_string(into.join("here/x")).unwrap(), "4");
    m.unmount();
}
