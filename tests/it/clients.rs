//! Real container tools on plyfs: the core of the scripts under `scripts/clients`.
//!
//! They need a Debian mirror for their image once; it is kept in the cache of `scripts/realroot`.
use std::path::Path;
use std::process::Command;

use plyfs_testkit::{bin, need, need_fuse, need_overlay};

/// Runs the core of `scripts/clients/NAME`, which fails with the lines of the failed steps.
fn script(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/clients");
    let run = Command::new(script.join(name))
        .arg("--core")
        .arg(bin())
        .env("TIMES", "1")
        .env("TREECMP", env!("CARGO_BIN_EXE_treecmp"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(
        run.status.success() && text.contains("failed=0"),
        "scripts/clients/{name}: {}\n{text}",
        run.status
    );
    println!("{text}");
}

#[test]
fn podman_works() {
    need_overlay!();
    need_fuse!();
    need!(
        "podman",
        "crun",
        "conmon",
        "skopeo",
        "docker-registry",
        "mmdebstrap",
        "jq"
    );
    script("podman");
}

#[test]
fn podman_works_for_an_ordinary_user() {
    need_overlay!();
    need_fuse!();
    need!(
        "podman",
        "crun",
        "conmon",
        "skopeo",
        "mmdebstrap",
        "jq",
        "newuidmap"
    );
    script("podman-rootless");
}

#[test]
fn buildah_works() {
    need_overlay!();
    need_fuse!();
    need!("buildah", "crun", "skopeo", "mmdebstrap", "jq");
    script("buildah");
}

#[test]
fn images_go_from_buildah_by_a_registry_to_podman() {
    need_overlay!();
    need_fuse!();
    need!(
        "buildah",
        "podman",
        "conmon",
        "crun",
        "skopeo",
        "docker-registry",
        "mmdebstrap",
        "jq",
        "busybox",
        "python3"
    );
    script("registry");
}

#[test]
fn a_real_image_goes_all_the_way() {
    need_overlay!();
    need_fuse!();
    need!(
        "buildah",
        "podman",
        "conmon",
        "crun",
        "skopeo",
        "umoci",
        "docker-registry",
        "mmdebstrap",
        "jq"
    );
    script("real-image");
}

#[test]
fn crun_and_runc_work() {
    need_overlay!();
    need_fuse!();
    need!("crun", "runc", "skopeo", "mmdebstrap", "jq", "newuidmap");
    script("oci-runtime");
}

#[test]
fn mount_and_umount_work() {
    need_overlay!();
    need_fuse!();
    need!(
        "/sbin/mount.fuse3",
        "fusermount3",
        "skopeo",
        "mmdebstrap",
        "jq"
    );
    script("mount");
}
