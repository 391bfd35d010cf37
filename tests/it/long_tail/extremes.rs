//! The ends of ranges: times, sizes, many names, many layers, deep paths, loops of links.
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use plyfs_testkit::{Stack, mount_kernel, mount_plyfs, need_fuse, need_overlay};

use super::both;
use crate::support::{agree, errno, names, on_plyfs, read, run};

/// Does `work` on a lower layer made by `plant`, mounted by the kernel and by plyfs. For layers that
/// are too large to be compared byte by byte.
pub(super) fn on_both(plant: impl Fn(&Path), work: impl Fn(&Path)) {
    need_overlay!();
    need_fuse!();
    for mount in [mount_kernel, mount_plyfs] {
        let stack = Stack::new(1);
        plant(stack.lower(0));
        let mounted = mount(&stack, "");
        eprintln!("working on {:?}", plyfs_testkit::mounted_at(mounted.path()));
        work(mounted.path());
        mounted.unmount();
    }
}

/// Before 1970, after 2038 and 2106, to the end of what ext4 keeps.
const SECONDS: [i64; 6] = [
    -2_147_483_647,
    -1,
    0,
    2_147_483_648,
    4_294_967_296,
    15_032_385_534,
];

#[test]
fn times_of_every_century() {
    let lower: String = SECONDS
        .iter()
        .map(|s| format!("f lower{s} = 1\nt {s} lower{s}\n"))
        .collect();
    agree(&[&lower], |m| {
        for seconds in SECONDS {
            let lower = m.join(format!("lower{seconds}"));
            assert_eq!(fs::metadata(&lower).unwrap().mtime(), seconds);
            // What is copied up keeps them.
            run(m, "chmod", &["600", lower.to_str().unwrap()]);
            assert_eq!(fs::metadata(&lower).unwrap().mtime(), seconds);
            let new = m.join(format!("new{seconds}"));
            fs::write(&new, "new").unwrap();
            let time = TimeSpec::new(seconds, 999_999_999);
            let follow = UtimensatFlags::FollowSymlink;
            utimensat(AT_FDCWD, &new, &time, &time, follow).unwrap();
            let meta = fs::metadata(&new).unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, 999_999_999));
            assert_eq!(meta.atime(), seconds);
        }
    });
}

#[test]
fn files_larger_than_four_gigabytes() {
    const FAR: u64 = (5 << 30) + 12345;
    on_both(
        |layer| {
            let file = File::create(layer.join("lower")).unwrap();
            file.write_all_at(b"lower", FAR).unwrap();
        },
        |m| {
            fs::write(m.join("new"), "").unwrap();
            both(m.join("new")).write_all_at(b"lower", FAR).unwrap();
            for name in ["lower", "new"] {
                let file = both(m.join(name));
                file.write_all_at(b"near", 4 << 30).unwrap();
                let mut seen = [0; 5];
                file.read_exact_at(&mut seen, FAR).unwrap();
                assert_eq!(&seen, b"lower");
                file.read_exact_at(&mut seen, (4 << 30) - 1).unwrap();
                assert_eq!(&seen, b"\0near");
                let meta = file.metadata().unwrap();
                assert_eq!(meta.len(), FAR + 5);
                assert!(meta.blocks() < 10_000, "the holes stay holes");
                file.set_len(6 << 40).unwrap();
                assert_eq!(fs::metadata(m.join(name)).unwrap().len(), 6 << 40);
                assert_eq!(file.read_at(&mut seen, (6 << 40) - 3).unwrap(), 3);
                file.set_len(3).unwrap();
                assert_eq!(file.read_at(&mut seen, 0).unwrap(), 3);
            }
        },
    );
}

/// Twenty layers that each bring 5,000 names of their own, 100 that all have, and hide one each.
#[test]
fn a_hundred_thousand_names_from_twenty_layers() {
    need_overlay!();
    need_fuse!();
    const LAYERS: usize = 20;
    const OWN: usize = 5_000;
    let stack = Stack::new(LAYERS);
    for (number, layer) in stack.lowers().iter().enumerate() {
        let dir = layer.join("d");
        fs::create_dir(&dir).unwrap();
        let first = dir.join(format!("own-{number}-0"));
        File::create(&first).unwrap();
        let own = (1..OWN).map(|i| format!("own-{number}-{i}"));
        for name in own.chain((0..100).map(|i| format!("shared-{i}"))) {
            fs::hard_link(&first, dir.join(name)).unwrap();
        }
        if number + 1 < LAYERS {
            plyfs_testkit::plant(layer, &format!("w d/own-{}-7", number + 1));
        }
    }
    let kernel = mount_kernel(&stack, "");
    let expected = names(kernel.join("d"));
    kernel.unmount();
    assert_eq!(expected.len(), LAYERS * OWN + 100 - (LAYERS - 1));
    let mounted = mount_plyfs(&stack, "");
    let dir = mounted.join("d");
    assert!(names(&dir) == expected);
    for name in ["own-0-0", "own-19-4999", "shared-0", "shared-99"] {
        assert!(dir.join(name).exists(), "{name}");
    }
    assert!(!dir.join("own-19-7").exists() && !dir.join("own-19-5000").exists());
    fs::remove_file(dir.join("own-10-10")).unwrap();
    fs::rename(dir.join("own-11-11"), dir.join("renamed")).unwrap();
    fs::write(dir.join("added"), "").unwrap();
    let mut changed = expected;
    changed.retain(|name| name != "own-10-10" && name != "own-11-11");
    changed.extend(["added".to_owned(), "renamed".to_owned()]);
    changed.sort();
    assert!(names(&dir) == changed);
    mounted.unmount();
}

/// As many new names in one directory of the upper, and all gone again.
#[test]
fn many_names_come_and_go() {
    on_plyfs(&["f d/lower = 1"], "", |_, m| {
        const COUNT: usize = 20_000;
        let dir = m.join("d");
        let first = dir.join("first");
        fs::write(&first, "").unwrap();
        for i in 0..COUNT {
            fs::hard_link(&first, dir.join(i.to_string())).unwrap();
        }
        assert_eq!(names(&dir).len(), COUNT + 2);
        assert_eq!(fs::metadata(&first).unwrap().nlink(), COUNT as u64 + 1);
        // While it is listed, every name goes: none is missed, none comes twice.
        let mut gone = 0;
        for entry in fs::read_dir(&dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
            gone += 1;
        }
        assert_eq!(gone, COUNT + 2);
        fs::remove_dir(&dir).unwrap();
    });
}

#[test]
fn paths_of_two_hundred_levels() {
    let deep = vec!["d"; 200].join("/");
    let other: PathBuf = vec!["d"; 150].iter().collect();
    let lower = format!("f {deep}/file = deep\nf {}/side = side", other.display());
    agree(&[&format!("d {deep}/upper"), &lower], |m| {
        let dir = m.join(&deep);
        assert_eq!(names(&dir), ["file", "upper"]);
        both(dir.join("file")).write_all_at(b"DEEP", 0).unwrap();
        assert_eq!(read(dir.join("file")), "DEEP");
        fs::create_dir_all(dir.join("more/and/more")).unwrap();
        fs::write(dir.join("more/and/more/new"), "new").unwrap();
        fs::rename(dir.join("more"), m.join("more")).unwrap();
        assert_eq!(read(m.join("more/and/more/new")), "new");
        assert_eq!(read(m.join(&other).join("side")), "side");
        fs::remove_file(m.join(&other).join("side")).unwrap();
        // A component that is one too long, and a path that is.
        assert_eq!(
            errno(fs::metadata(m.join("n".repeat(256)))),
            Errno::ENAMETOOLONG
        );
        assert_eq!(
            errno(fs::metadata(m.join("n/".repeat(2100)))),
            Errno::ENAMETOOLONG
        );
        fs::write(m.join("n".repeat(255)), "long").unwrap();
        assert_eq!(read(m.join("n".repeat(255))), "long");
    });
}

#[test]
fn loops_of_links_end() {
    let chain: String = (0..45)
        .map(|i| format!("l chain{} -> chain{i}\n", i + 1))
        .collect();
    agree(&["l a -> b\nl b -> a\nl self -> self", &chain], |m| {
        for name in ["a", "b", "self", "a/below"] {
            assert_eq!(errno(fs::metadata(m.join(name))), Errno::ELOOP, "{name}");
            assert_eq!(errno(File::open(m.join(name))), Errno::ELOOP, "{name}");
        }
        fs::write(m.join("chain0"), "the end").unwrap();
        assert_eq!(read(m.join("chain40")), "the end");
        assert_eq!(errno(fs::read(m.join("chain41"))), Errno::ELOOP);
        symlink("../loop/d", m.join("d")).unwrap();
        assert_eq!(errno(fs::metadata(m.join("d"))), Errno::ENOENT);
        let long = "x".repeat(4095);
        symlink(&long, m.join("long")).unwrap();
        assert_eq!(
            fs::read_link(m.join("long")).unwrap().as_os_str().len(),
            4095
        );
        assert_eq!(
            errno(symlink("x".repeat(4096), m.join("longer"))),
            Errno::ENAMETOOLONG
        );
    });
}
