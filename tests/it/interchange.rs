//! The marks on disk: plyfs writes what the kernel reads, and reads what the kernel writes.
//!
//! Every test that uses `support::agree` also mounts each upper by the other implementation; here
//! is what that does not reach.
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use plyfs_testkit::{Rules, Stack, mount_kernel, mount_plyfs, need_fuse, need_overlay, snapshot};

use crate::support::{names, on_plyfs, run, same};

#[test]
fn whiteouts_and_opaque_marks_are_the_kernels() {
    on_plyfs(&["f a\nf d/x\nf e/y"], "", |stack, m| {
        fs::remove_file(m.join("a")).unwrap();
        fs::remove_file(m.join("d/x")).unwrap();
        run(m.path(), "rm", &["-r", "e"]);
        fs::create_dir(m.join("e")).unwrap();
        for name in ["a", "d/x"] {
            let meta = fs::symlink_metadata(stack.upper().join(name)).unwrap();
            assert!(
                meta.file_type().is_char_device() && meta.rdev() == 0,
                "{name}"
            );
        }
        let opaque = xattr::get(stack.upper().join("e"), "trusted.overlay.opaque").unwrap();
        assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
        assert_eq!(names(stack.upper().join("e")), Vec::<String>::new());
    });
}

#[test]
fn the_workdir_is_left_clean() {
    need_fuse!();
    let stack = Stack::planted(&["f d/a = 1\nf d/b = 2"]);
    let m = mount_plyfs(&stack, "");
    run(
        m.path(),
        "sh",
        &[
            "-c",
            "echo x >>d/a; rm d/b; mkdir n; mv d/a n/a; rm -r d; ln n/a n/b",
        ],
    );
    m.unmount();
    let left = run(&stack.work(), "find", &[".", "-mindepth", "2"]);
    assert_eq!(left, "", "left in the workdir");
}

#[test]
fn redirects_and_metacopies_of_the_kernel_are_followed() {
    need_overlay!();
    need_fuse!();
    let stack = Stack::planted(&[
        "d d",
        "f d/sub/a = 1\nf big = large content\nf x/y/z = 3\nt 5 big",
    ]);
    let m = mount_kernel(&stack, "redirect_dir=on,metacopy=on");
    run(
        m.path(),
        "sh",
        &[
            "-c",
            "mv d/sub moved; mv x/y d/y; chmod 600 big; mv big bigger; echo n >moved/n",
        ],
    );
    let expected = snapshot(m.path());
    m.unmount();
    assert_eq!(names(stack.upper()), ["big", "bigger", "d", "moved", "x"]);
    let m = mount_plyfs(&stack, "redirect_dir=on,metacopy=on");
    same(
        "what was written",
        &expected,
        &snapshot(m.path()),
        &Rules::default(),
    );
    // And it is written on top of them.
    run(
        m.path(),
        "sh",
        &[
            "-c",
            "echo 2 >>moved/a; echo tail >>bigger; rm d/y/z; ls d/y",
        ],
    );
    let expected = snapshot(m.path());
    assert_eq!(
        crate::support::read(m.join("bigger")),
        "large contenttail\n"
    );
    m.unmount();
    let m = mount_kernel(&stack, "redirect_dir=on,metacopy=on");
    same(
        "what was written",
        &expected,
        &snapshot(m.path()),
        &Rules::default(),
    );
    m.unmount();
    stack.assert_lowers_unchanged();
}

#[test]
fn an_upper_becomes_a_lower() {
    need_overlay!();
    need_fuse!();
    let first = Stack::planted(&["f a = 1\nf d/b = 2\nf e/c = 3"]);
    let m = mount_plyfs(&first, "");
    run(
        m.path(),
        "sh",
        &["-c", "rm a; rm -r e; mkdir e; echo new >e/n; echo x >>d/b"],
    );
    let expected = snapshot(m.path());
    m.unmount();
    let second = Stack::new(2);
    run(
        second.dir(),
        "cp",
        &[
            "-a",
            "--no-target-directory",
            first.upper().to_str().unwrap(),
            "l0",
        ],
    );
    run(
        second.dir(),
        "cp",
        &[
            "-a",
            "--no-target-directory",
            first.lower(0).to_str().unwrap(),
            "l1",
        ],
    );
    let second = second.sealed().read_only();
    let rules = Rules::default();
    for mount in [mount_kernel, mount_plyfs] {
        let m = mount(&second, "");
        same(
            "the upper as an upper and as a lower",
            &expected,
            &snapshot(m.path()),
            &rules,
        );
        m.unmount();
    }
    second.assert_lowers_unchanged();
}

#[test]
fn whiteouts_by_name_are_read() {
    // What image tools unpack where they cannot make devices; kernel overlayfs does not read it.
    on_plyfs(
        &["f .wh.a\nf d/.wh..wh..opq\nf d/new", "f a\nf b\nf d/old"],
        "",
        |_, m| {
            assert_eq!(names(m.path()), ["b", "d"]);
            assert_eq!(names(m.join("d")), ["new"]);
        },
    );
}

#[test]
fn an_upper_of_fuse_overlayfs_is_gone_on_with() {
    need_fuse!();
    // As fuse-overlayfs 1.10 leaves `rm -r d; mkdir d; echo own >d/own; rm f`.
    let stack = Stack::planted(&["f d/a\nf d/s/b\nf f"]);
    let upper = stack.upper();
    fs::create_dir(upper.join("d")).unwrap();
    xattr::set(upper.join("d"), "trusted.overlay.opaque", b"y").unwrap();
    fs::write(upper.join("d/.wh..wh..opq"), "").unwrap();
    run(&upper, "chmod", &["700", "d/.wh..wh..opq"]);
    fs::write(upper.join("d/own"), "own").unwrap();
    run(&upper, "mknod", &["d/.wh..opq", "c", "0", "0"]);
    run(&upper, "mknod", &["f", "c", "0", "0"]);
    let m = mount_plyfs(&stack, "");
    assert_eq!(names(m.path()), ["d"]);
    assert_eq!(names(m.join("d")), ["own"]);
    assert!(!m.join("d/.wh..wh..opq").exists());
    fs::create_dir(m.join("new")).unwrap();
    // Whoever unpacks a layer in the mount has files of that name.
    fs::write(m.join("new/.wh..wh..opq"), "").unwrap();
    assert_eq!(names(m.join("new")), [".wh..wh..opq"]);
    fs::remove_file(m.join("new/.wh..wh..opq")).unwrap();
    fs::remove_file(m.join("d/own")).unwrap();
    fs::rename(m.join("new"), m.join("d")).unwrap();
    assert_eq!(names(m.join("d")), Vec::<String>::new());
    fs::remove_dir(m.join("d")).unwrap();
    m.unmount();
    let m = mount_plyfs(&stack, "");
    assert_eq!(names(m.path()), Vec::<String>::new());
    m.unmount();
}
