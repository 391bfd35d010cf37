//! A real Debian root file system, worked on by chroot, beside kernel overlayfs.
use std::path::Path;
use std::process::Command;

use plyfs_testkit::{bin, need_fuse, need_overlay};

#[test]
fn a_debian_root_behaves_as_on_kernel_overlayfs() {
    need_overlay!();
    need_fuse!();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/realroot");
    let run = Command::new(script)
        .arg("--plyfs")
        .arg(bin())
        .args(["--treecmp", env!("CARGO_BIN_EXE_treecmp")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(
        run.status.success(),
        "scripts/realroot: {}\n{text}",
        run.status
    );
    println!("{text}");
}
