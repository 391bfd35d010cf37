//! Whom files belong to: id maps, squashing, owner and mode in marks, and what can be switched off.
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::errno::Errno;
use plyfs_testkit::{Rules, Stack, mount_plyfs, need_fuse, snapshot};

use crate::support::{as_user, errno, names, on_plyfs, read, run, same};

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

#[test]
fn a_layer_serves_a_container_with_other_ids() {
    let maps = "uidmapping=:0:1000:1:1:100000:65536,gidmapping=:0:1000:1:1:100000:65536";
    on_plyfs(
        &["f root\nf user\nu 5:7 user\nf far\nu 900000:900000 far\nd d\nm 755 d"],
        maps,
        |stack, m| {
            assert_eq!(owner(m.join("root")), (1000, 1000));
            assert_eq!(owner(m.join("user")), (100_004, 100_006));
            assert_eq!(owner(m.join("far")), (65534, 65534));
            // The container's root is the user 1000 outside: what is root's is theirs.
            let (done, said) = as_user(
                m.path(),
                "echo x >root && mkdir d/sub && touch d/new && chmod 600 root",
            );
            assert!(done, "{said}");
            assert!(!as_user(m.path(), "echo x >user").0);
            assert_eq!(owner(m.join("d/new")), (1000, 1000));
            assert_eq!(owner(stack.upper().join("d/new")), (0, 0));
            assert_eq!(owner(stack.upper().join("root")), (0, 0));
            chown(m.join("user"), Some(100_000), None).unwrap();
            assert_eq!(owner(stack.upper().join("user")), (1, 7));
            let unmapped = chown(m.join("user"), Some(5), None);
            assert_eq!(errno(unmapped), Errno::EOVERFLOW);
            // The test's own root is in no range: Podman makes /etc/mtab so.
            std::os::unix::fs::symlink("/proc/mounts", m.join("mtab")).unwrap();
            fs::create_dir(m.join("made")).unwrap();
            for made in ["mtab", "made"] {
                assert_eq!(owner(stack.upper().join(made)), (65534, 65534));
            }
        },
    );
}

#[test]
fn access_control_lists_name_mapped_ids() {
    let list = |id: u32| {
        let entry = |tag: u16, perm: u16, id: u32| {
            let words = [tag.to_le_bytes(), perm.to_le_bytes()].concat();
            [words, id.to_le_bytes().to_vec()].concat()
        };
        let none = u32::MAX;
        let entries = [
            entry(1, 6, none),
            entry(2, 6, id),
            entry(4, 0, none),
            entry(0x10, 6, none),
            entry(0x20, 0, none),
        ];
        [vec![2, 0, 0, 0], entries.concat()].concat()
    };
    on_plyfs(
        &["f f\nu 1:1 f\nm 600 f"],
        "uidmapping=0:995:100,gidmapping=0:995:100",
        |stack, m| {
            let name = "system.posix_acl_access";
            xattr::set(m.join("f"), name, &list(1000)).unwrap();
            let on_disk = xattr::get(stack.upper().join("f"), name).unwrap().unwrap();
            assert_eq!(on_disk, list(5));
            assert_eq!(xattr::get(m.join("f"), name).unwrap().unwrap(), list(1000));
            // The kernel judges by what is shown.
            assert!(as_user(m.path(), "echo mine >f").0);
        },
    );
}

#[test]
fn everything_shows_one_owner() {
    for (options, id) in [
        ("squash_to_root", (0, 0)),
        ("squash_to_uid=1000,squash_to_gid=1000", (1000, 1000)),
        ("squash_to_root,squash_to_gid=7", (0, 7)),
    ] {
        on_plyfs(&["f a\nu 5:6 a\nd d\nm 777 d"], options, |stack, m| {
            assert_eq!(owner(m.join("a")), id, "{options}");
            assert!(as_user(m.path(), "mkdir d/n").0, "{options}");
            assert_eq!(owner(m.join("d/n")), id, "{options}");
            chown(m.join("a"), Some(id.0), Some(id.1)).unwrap();
            fs::write(m.join("a"), "x").unwrap();
            assert_eq!(owner(stack.upper().join("a")), (5, 6), "{options}");
        });
    }
}

const LAYER: &str = "f low = 1\nu 3:4 low\nm 4755 low\nd d\nf d/x = 2\nf d/y = 3\nd gone\nf gone/z";

/// What a container does to its files; the same result is wanted wherever owners are kept.
fn work(m: &Path) {
    let script = "chown 5:6 d/x; chmod 2711 d/x; mkdir -m 1777 tmp; mknod null c 1 3; mknod disk b 7 9; mkfifo p; \
                  ln -s low link; touch -d @1000000000 new; chown 7:8 new; chmod 640 low; rm -r gone; mkdir gone; \
                  mv d/y d/w; ln d/w hard; chmod 600 null; rm disk; mkdir -m 2770 g; chown 0:9 g; mkdir g/sub; touch g/f";
    run(m, "sh", &["-ec", script]);
}

#[test]
fn owners_kept_in_marks_look_like_owners() {
    need_fuse!();
    let since = crate::support::written_in_this_test();
    let plain = Stack::planted(&[LAYER]);
    let m = mount_plyfs(&plain, "");
    work(m.path());
    let wanted = snapshot(m.path());
    m.unmount();
    for mode in ["1", "2"] {
        let options = format!("xattr_permissions={mode}");
        let stack = Stack::planted(&[LAYER]);
        let m = mount_plyfs(&stack, &options);
        work(m.path());
        let rules = Rules {
            written_since: Some(since),
            ..Rules::default()
        };
        same(&options, &wanted, &snapshot(m.path()), &rules);
        let before = snapshot(m.path());
        m.unmount();
        // The backing files are the daemon's, grant nothing more, and are no devices.
        let null = fs::metadata(stack.upper().join("null")).unwrap();
        assert!(null.is_file() && null.uid() == 0 && null.mode() & 0o7077 == 0);
        let x = fs::metadata(stack.upper().join("d/x")).unwrap();
        assert_eq!((x.uid(), x.mode() & 0o7000), (0, 0));
        // An upper with marks is read by them without the option, too.
        let m = mount_plyfs(&stack, "");
        same(
            "after a remount",
            &before,
            &snapshot(m.path()),
            &Rules::default(),
        );
        assert!(
            fs::metadata(m.join("null"))
                .unwrap()
                .file_type()
                .is_char_device()
        );
        assert_eq!(names(m.join("gone")), Vec::<String>::new());
        m.unmount();
        stack.assert_lowers_unchanged();
    }
}

#[test]
fn layers_with_marks_of_containers_storage_are_read() {
    need_fuse!();
    let stack = Stack::planted(&["f bin = run\nm 700 bin\nf null\nm 700 null\nd d\nm 700 d"]);
    let lower = stack.lowers()[0].clone();
    let mark = |name: &str, value: &str| {
        xattr::set(
            lower.join(name),
            "user.containers.override_stat",
            value.as_bytes(),
        )
        .unwrap();
    };
    mark("", "0:0:0555:dir");
    mark("bin", "0:3:4755:file");
    mark("null", "0:0:0666:char-1-3");
    mark("d", "1000:1000:0700:dir");
    let m = mount_plyfs(&stack, "");
    let bin = fs::metadata(m.join("bin")).unwrap();
    assert_eq!((bin.mode() & 0o7777, bin.gid()), (0o4755, 3));
    let null = fs::metadata(m.join("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == 0x103);
    assert_eq!(fs::read(m.join("null")).unwrap(), b"");
    let is_device = |e: &fs::DirEntry| e.file_type().unwrap().is_char_device();
    let mut listed = fs::read_dir(m.path()).unwrap().map(Result::unwrap);
    assert!(listed.any(|e| e.file_name() == "null" && is_device(&e)));
    drop(listed);
    assert!(
        as_user(m.path(), "echo x >d/new").0,
        "the directory is theirs"
    );
    assert_eq!(xattr::list(m.join("bin")).unwrap().count(), 0);
    m.unmount();
}

#[test]
fn what_is_switched_off_is_not_there() {
    let layer = &["f a\nx a user.k = v\nd d/e"];
    on_plyfs(layer, "noxattrs=1", |_, m| {
        let got = xattr::get(m.join("a"), "user.k");
        assert_eq!(errno(got), Errno::EOPNOTSUPP);
        assert_eq!(
            errno(xattr::set(m.join("a"), "user.k", b"w")),
            Errno::EOPNOTSUPP
        );
        fs::set_permissions(m.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    });
    on_plyfs(layer, "noacl,static_nlink", |_, m| {
        let acl = xattr::get(m.join("a"), "system.posix_acl_access");
        assert_eq!(errno(acl), Errno::EOPNOTSUPP);
        assert_eq!(xattr::get(m.join("a"), "user.k").unwrap().unwrap(), b"v");
        assert_eq!(fs::metadata(m.join("d")).unwrap().nlink(), 1);
        assert!(as_user(m.path(), "cat a").0);
    });
}

#[test]
fn names_are_asked_for_again_when_their_time_is_over() {
    // With a timeout of 0 a lower that changes underneath, which nobody should do, shows at once.
    on_plyfs(&["d d"], "timeout=0", |stack, m| {
        assert!(!m.join("new").exists());
        fs::write(stack.upper().join("new"), "x").unwrap();
        assert_eq!(read(m.join("new")), "x");
    });
    on_plyfs(&["d d"], "", |stack, m| {
        assert!(!m.join("new").exists());
        fs::write(stack.upper().join("new"), "x").unwrap();
        assert!(!m.join("new").exists(), "absence is remembered for ever");
    });
}
