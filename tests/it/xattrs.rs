//! Extended attributes, access control lists and capabilities.
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use nix::errno::Errno;

use crate::support::{agree, as_user, errno, on_plyfs, run};

fn get(path: impl AsRef<Path>, name: &str) -> Option<Vec<u8>> {
    xattr::get(path, name).unwrap()
}

fn list(path: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = xattr::list(path)
        .unwrap()
        .map(|n| n.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn they_are_read_changed_listed_and_removed() {
    agree(
        &[
            "f top\nx top user.a = 1",
            "f a\nx a user.a = 1\nx a trusted.b = 2\nd d\nx d user.d = 3",
        ],
        |m| {
            let a = m.join("a");
            assert_eq!(list(&a), ["trusted.b", "user.a"]);
            assert_eq!(get(&a, "user.a").unwrap(), b"1");
            assert_eq!(get(&a, "user.none"), None);
            xattr::set(&a, "user.a", b"changed").unwrap();
            xattr::set(&a, "user.c", b"").unwrap();
            xattr::remove(&a, "trusted.b").unwrap();
            assert_eq!(list(&a), ["user.a", "user.c"]);
            assert_eq!(get(&a, "user.c").unwrap(), b"");
            assert_eq!(errno(xattr::remove(&a, "user.none")), Errno::ENODATA);
            xattr::set(m.join("d"), "user.e", vec![b'v'; 2000].as_slice()).unwrap();
            assert_eq!(get(m.join("d"), "user.e").unwrap().len(), 2000);
            assert_eq!(list(m.join("d")), ["user.d", "user.e"]);
        },
    );
}

#[test]
fn the_marks_of_the_overlay_are_its_own() {
    agree(
        &["o d\nf d/a\nf f\nx f trusted.overlay.origin = x", "f d/b"],
        |m| {
            assert_eq!(list(m.join("d")), Vec::<String>::new());
            assert_eq!(get(m.join("d"), "trusted.overlay.opaque"), None);
            assert_eq!(list(m.join("f")), Vec::<String>::new());
        },
    );
    on_plyfs(&["d d"], "", |stack, m| {
        fs::remove_dir(m.join("d")).unwrap();
        fs::create_dir(m.join("d")).unwrap();
        assert_eq!(list(m.join("d")), Vec::<String>::new());
        assert_eq!(list(m.path()), Vec::<String>::new());
        assert_eq!(
            get(stack.upper().join("d"), "trusted.overlay.opaque").unwrap(),
            b"y"
        );
    });
}

#[test]
fn marks_that_a_user_sets_are_escaped() {
    // So that an overlay can be built on an overlay.
    agree(&["d d", "f d/a\nf f"], |m| {
        for name in ["trusted.overlay.opaque", "trusted.overlay.redirect"] {
            xattr::set(m.join("d"), name, b"y").unwrap();
            assert_eq!(get(m.join("d"), name).unwrap(), b"y");
        }
        assert_eq!(
            list(m.join("d")),
            ["trusted.overlay.opaque", "trusted.overlay.redirect"]
        );
        xattr::remove(m.join("d"), "trusted.overlay.redirect").unwrap();
        assert_eq!(crate::support::names(m.join("d")), ["a"]);
    });
}

#[test]
fn links_and_devices_have_them_too() {
    agree(&["l l -> nowhere\nx . user.root = 1\np p"], |m| {
        xattr::set(m.join("l"), "trusted.t", b"1").unwrap();
        assert_eq!(get(m.join("l"), "trusted.t").unwrap(), b"1");
        assert_eq!(errno(xattr::set(m.join("l"), "user.u", b"1")), Errno::EPERM);
        assert_eq!(errno(xattr::set(m.join("p"), "user.u", b"1")), Errno::EPERM);
        xattr::set(m.join("p"), "trusted.t", b"2").unwrap();
        xattr::set(m, "user.mine", b"3").unwrap();
        assert_eq!(get(m, "user.mine").unwrap(), b"3");
    });
}

#[test]
fn access_control_lists_rule() {
    agree(&["f a = secret\nm 600 a\nf b\nd d"], |m| {
        assert!(!as_user(m, "cat a").0);
        run(m, "setfacl", &["-m", "u:1000:r", "a"]);
        assert!(as_user(m, "cat a").0);
        assert!(!as_user(m, "echo >>a").0);
        // Changing the mode changes the mask, and the other way round.
        run(m, "chmod", &["600", "a"]);
        assert!(!as_user(m, "cat a").0);
        run(m, "setfacl", &["-m", "m::rw", "a"]);
        assert_eq!(fs::metadata(m.join("a")).unwrap().mode() & 0o777, 0o660);
        run(m, "setfacl", &["-b", "a"]);
        assert_eq!(list(m.join("a")), Vec::<String>::new());
        run(m, "setfacl", &["-m", "g::rwx,o::r", "b"]);
        assert_eq!(fs::metadata(m.join("b")).unwrap().mode() & 0o777, 0o674);
        assert_eq!(list(m.join("b")), Vec::<String>::new());
        run(m, "setfacl", &["-m", "d:u:1000:rwx", "d"]);
        run(m, "setfacl", &["-k", "d"]);
    });
}

#[test]
fn a_users_attributes_need_the_users_permission() {
    agree(&["f own\nu 1000:1000 own\nf root"], |m| {
        assert!(as_user(m, "setfattr -n user.x -v 1 own && getfattr -n user.x own").0);
        assert!(!as_user(m, "setfattr -n user.x -v 1 root").0);
        assert!(!as_user(m, "setfattr -n trusted.x -v 1 own").0);
        assert!(!as_user(m, "setfacl -m u:5:r root").0);
    });
}

#[test]
fn capabilities_go_when_the_file_is_written() {
    agree(
        &["f a = program\nm 755 a\nf b\nm 755 b\nf c\nm 755 c"],
        |m| {
            for name in ["a", "b", "c"] {
                run(m, "setcap", &["cap_net_raw+ep", name]);
                assert!(get(m.join(name), "security.capability").is_some());
            }
            run(m, "sh", &["-c", "echo more >>a"]);
            run(m, "truncate", &["-s", "1", "b"]);
            run(m, "chown", &["5", "c"]);
            for name in ["a", "b", "c"] {
                assert_eq!(get(m.join(name), "security.capability"), None, "{name}");
            }
        },
    );
}

#[test]
fn a_new_symbolic_link_has_none() {
    agree(&["d d"], |m| {
        run(m, "setfacl", &["-m", "d:u:5:rwx", "d"]);
        symlink("x", m.join("d/l")).unwrap();
        assert_eq!(list(m.join("d/l")), Vec::<String>::new());
    });
}
