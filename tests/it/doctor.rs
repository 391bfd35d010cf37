//! `plyfs doctor`: what it says is what was tried, and nothing is left behind.
use std::process::Command;

use plyfs_testkit::{bin, need_fuse, need_root};
use serde_json::Value;

fn doctor(words: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(bin())
        .arg("doctor")
        .args(words)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_directory_is_tried_and_left_as_it_was() {
    need_fuse!();
    need_root!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let (code, out, said) = doctor(&[path, "--json"]);
    assert_eq!(code, Some(0), "{out}{said}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["machine"]["dev_fuse_error"], Value::Null);
    let found = &report["directories"][0];
    assert_eq!(
        (&found["path"], &found["writable"]),
        (&Value::from(path), &Value::from(true))
    );
    let ability = |name: &str| {
        let all = found["abilities"].as_array().unwrap();
        all.iter().find(|a| a[0] == name).unwrap()[1]
            .as_bool()
            .unwrap()
    };
    // What is claimed is what happens when it is done by other means.
    let file = dir.path().join("own");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(
        ability("user xattrs"),
        xattr::set(&file, "user.overlay.x", b"y").is_ok()
    );
    assert_eq!(
        ability("trusted xattrs"),
        xattr::set(&file, "trusted.overlay.x", b"y").is_ok()
    );
    let mut clone = Command::new("cp");
    clone
        .arg("--reflink=always")
        .arg(&file)
        .arg(dir.path().join("c"));
    assert_eq!(ability("reflink"), clone_works(&mut clone));
    let chosen = found["chosen"].as_array().unwrap();
    let xattrs = chosen.iter().find(|o| o["name"] == "xattrs").unwrap();
    assert_eq!(xattrs["why"], "probed");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(
        left.iter().all(|p| !p.to_str().unwrap().contains("doctor")),
        "{left:?}"
    );
    let (code, out, _) = doctor(&[path]);
    assert!(
        code == Some(0) && out.contains("trial mount") && out.contains("works"),
        "{out}"
    );
}

fn clone_works(command: &mut Command) -> bool {
    command.output().unwrap().status.success()
}

#[test]
fn what_cannot_be_mounted_is_a_failure() {
    need_fuse!();
    let (code, out, _) = doctor(&["/proc/self/nowhere"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("FAILS") && out.contains("does not exist"),
        "{out}"
    );
}
