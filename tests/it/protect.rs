//! The immutable and append-only flags, as chattr(1) sets them.
use std::fs::{self, OpenOptions};
use std::io::Write;

use nix::errno::Errno;
use plyfs_testkit::{Stack, mount_kernel, mount_plyfs, need_fuse, need_overlay};

use crate::support::{agree, errno, names, read, run};

fn chattr(dir: &std::path::Path, words: &[&str]) {
    run(dir, "chattr", words);
}

#[test]
fn what_is_protected_stays_as_it_is() {
    agree(&["f a = 1\nf b = 1\nf d/x = 1\nd d/sub\nf e/x = 1"], |m| {
        chattr(m, &["+i", "a"]);
        chattr(m, &["+a", "b"]);
        chattr(m, &["+i", "d"]);
        chattr(m, &["+a", "e"]);
        let eperm = |what: &str, result: std::io::Result<()>| {
            assert_eq!(errno(result), Errno::EPERM, "{what}");
        };
        for name in ["a", "b", "d", "e"] {
            let mode = fs::metadata(m.join(name)).unwrap().permissions();
            eperm("chmod", fs::set_permissions(m.join(name), mode));
            eperm(
                "chown",
                std::os::unix::fs::chown(m.join(name), Some(3), None),
            );
            eperm("rename", fs::rename(m.join(name), m.join("other")));
            eperm("setxattr", xattr::set(m.join(name), "user.k", b"v"));
        }
        for name in ["a", "b"] {
            eperm("unlink", fs::remove_file(m.join(name)));
            eperm("link", fs::hard_link(m.join(name), m.join("other")));
            let cut = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(m.join(name));
            eperm("truncate", cut.map(|_| ()));
        }
        eperm("make in d", fs::create_dir(m.join("d/new")));
        eperm("move to d", fs::rename(m.join("e/x"), m.join("d/new")));
        eperm("unlink in d", fs::remove_file(m.join("d/x")));
        eperm("unlink in e", fs::remove_file(m.join("e/x")));
        // What is inside is not protected, and copied up below a protected directory.
        fs::write(m.join("d/x"), "2").unwrap();
        fs::write(m.join("d/sub/new"), "3").unwrap();
        fs::write(m.join("e/new"), "4").unwrap();
        let mut b = OpenOptions::new().append(true).open(m.join("b")).unwrap();
        b.write_all(b"more").unwrap();
        drop(b);
        assert_eq!(read(m.join("b")).replace('\n', ""), "1more");
    });
}

#[test]
fn flags_go_both_ways_between_the_kernel_and_plyfs() {
    need_overlay!();
    need_fuse!();
    let stack = Stack::planted(&["f low = 1\nf d/x = 1"]);
    let flags = |m: &std::path::Path, name: &str| {
        let line = run(m, "lsattr", &["-d", name]);
        let letters = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        letters
            .chars()
            .filter(|c| "ai".contains(*c))
            .collect::<String>()
    };
    let by_kernel = mount_kernel(&stack, "");
    chattr(by_kernel.path(), &["+i", "low"]);
    chattr(by_kernel.path(), &["+a", "d"]);
    by_kernel.unmount();
    let by_plyfs = mount_plyfs(&stack, "");
    let m = by_plyfs.path();
    assert_eq!((flags(m, "low"), flags(m, "d")), ("i".into(), "a".into()));
    assert_eq!(errno(fs::remove_file(m.join("low"))), Errno::EPERM);
    assert_eq!(errno(fs::remove_file(m.join("d/x"))), Errno::EPERM);
    fs::write(m.join("d/new"), "n").unwrap();
    chattr(m, &["-i", "low"]);
    chattr(m, &["+i", "d/new"]);
    fs::write(m.join("low"), "2").unwrap();
    by_plyfs.unmount();
    let by_kernel = mount_kernel(&stack, "");
    let m = by_kernel.path();
    assert_eq!(
        (flags(m, "low"), flags(m, "d/new")),
        (String::new(), "i".into())
    );
    assert_eq!(errno(fs::write(m.join("d/new"), "x")), Errno::EPERM);
    assert_eq!(names(m.join("d")), ["new", "x"]);
    chattr(m, &["-i", "d/new"]);
    by_kernel.unmount();
    // Nothing in the upper is protected by its own file system, which would stop copy-up.
    let own = run(&stack.upper(), "lsattr", &["-R", "."]);
    assert!(!own.contains("-i-") && !own.contains("-a-"), "{own}");
    stack.assert_lowers_unchanged();
}
