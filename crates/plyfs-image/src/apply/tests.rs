//! What honest and hostile archives become on disk.
mod hostile;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use plyfs_sys::stat::Time;
use plyfs_testkit::need_root;
use proptest::prelude::*;

use super::*;
use crate::tar::{Meta, Writer};

fn meta<'a>(kind: Kind, path: &'a str, link: &'a str) -> Meta<'a> {
    Meta {
        path: path.as_bytes(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time { sec: 7, nsec: 0 },
        link: link.as_bytes(),
        rdev: (1, 3),
        xattrs: &[],
    }
}

/// An archive of entries such as `d dir`, `f file=text`, `l link>target`, `h link>target`, `c dev`.
fn archive(entries: &[&str]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for entry in entries {
        let (kind, rest) = entry.split_at(2);
        let (path, text) = rest.split_once(['=', '>']).unwrap_or((rest, ""));
        let (kind, link) = match kind.trim() {
            "d" => (Kind::Dir, ""),
            "f" => (Kind::File, ""),
            "l" => (Kind::Symlink, text),
            "h" => (Kind::HardLink, text),
            "c" => (Kind::Char, ""),
            "p" => (Kind::Fifo, ""),
            other => panic!("{other}"),
        };
        let size = if kind == Kind::File {
            text.len() as u64
        } else {
            0
        };
        tar.entry(&Meta {
            size,
            ..meta(kind, path, link)
        })
        .unwrap();
        if size > 0 {
            tar.data(text.as_bytes()).unwrap();
        }
    }
    tar.finish().unwrap()
}

fn apply_to(dir: &Path, tar: impl BufRead + Send, limits: &Limits) -> Result<Applied> {
    let root = open::open_dir_path(dir).unwrap();
    // In a thread of its own, whose umask may change.
    std::thread::scope(|s| {
        let work = || apply(root.as_fd(), XattrNamespace::Trusted, tar, limits).map(|(a, _)| a);
        s.spawn(work).join().unwrap()
    })
}

fn unpack(entries: &[&str]) -> (tempfile::TempDir, Result<Applied>) {
    let dir = tempfile::tempdir().unwrap();
    let done = apply_to(dir.path(), &archive(entries)[..], &Limits::default());
    (dir, done)
}

fn is_whiteout(path: &Path) -> bool {
    let m = fs::symlink_metadata(path).unwrap();
    m.file_type().is_char_device() && m.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattr::get(path, "trusted.overlay.opaque")
        .unwrap()
        .is_some()
}

#[test]
fn an_honest_layer_is_what_the_archive_says() {
    need_root!();
    let (dir, done) = unpack(&[
        "d ./",
        "d a",
        "f a/f=text",
        "l a/l>f",
        "h a/h>a/f",
        "p a/p",
        "c a/c",
    ]);
    assert!(done.unwrap().implicit.is_empty());
    let at = |p: &str| dir.path().join(p);
    assert_eq!(fs::read_to_string(at("a/h")).unwrap(), "text");
    assert_eq!(fs::metadata(at("a/f")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(at("a/l")).unwrap(), Path::new("f"));
    assert_eq!(fs::metadata(at("a")).unwrap().mtime(), 7);
    assert_eq!(fs::metadata(at("a/f")).unwrap().mode() & 0o7777, 0o755);
    assert!(fs::metadata(at("a/p")).unwrap().file_type().is_fifo());
}

/// What a directory would give to what is made in it is not what the archive says of that.
#[test]
fn a_directory_gives_nothing_on() {
    need_root!();
    // user::rwx user:70000:rwx group::r-x mask::rwx other::r-x, for what is made in it.
    let list: Vec<u8> = [(1u16, 7u16, u32::MAX), (2, 7, 70_000), (4, 5, u32::MAX)]
        .into_iter()
        .chain([(16, 7, u32::MAX), (32, 5, u32::MAX)])
        .fold(2u32.to_le_bytes().to_vec(), |mut bytes, (tag, perm, id)| {
            bytes.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
            bytes.extend(id.to_le_bytes());
            bytes
        });
    let lists = [(b"system.posix_acl_default".to_vec(), list)];
    let mut tar = Writer::new(Vec::new());
    for (dir, mode, gid, xattrs) in [("s", 0o2775, 70_000, &lists[..0]), ("a", 0o755, 0, &lists)] {
        let heir = Meta {
            mode,
            gid,
            xattrs,
            ..meta(Kind::Dir, dir, "")
        };
        tar.entry(&heir).unwrap();
        for (kind, name) in [(Kind::File, "f"), (Kind::Dir, "d"), (Kind::Fifo, "i/p")] {
            let path = format!("{dir}/{name}");
            let plain = Meta {
                mode: 0o644,
                ..meta(kind, &path, "")
            };
            tar.entry(&plain).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &tar.finish().unwrap()[..], &Limits::default()).unwrap();
    for name in ["f", "d", "i", "i/p"] {
        for path in ["s", "a"].map(|heir| dir.path().join(heir).join(name)) {
            let m = fs::symlink_metadata(&path).unwrap();
            let mode = if name == "i" { 0o755 } else { 0o644 };
            let seen = (m.mode() & 0o7777, m.gid());
            assert_eq!(seen, (mode, 0), "{}", path.display());
            for list in ["system.posix_acl_access", "system.posix_acl_default"] {
                let found = xattr::get(&path, list).unwrap();
                assert!(found.is_none(), "{}: {list}", path.display());
            }
        }
    }
}

#[test]
fn what_is_not_listed_is_made_and_told() {
    need_root!();
    let (dir, done) = unpack(&["f a/b/c=x"]);
    let want: Vec<Vec<u8>> = vec![b"".to_vec(), b"a".to_vec(), b"a/b".to_vec()];
    assert_eq!(done.unwrap().implicit, want);
    assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mtime(), 0);
}

#[test]
fn whiteouts_are_overlayfs_ones() {
    need_root!();
    let (dir, done) = unpack(&[
        "f .wh.gone",
        "d o",
        "f o/.wh..wh..opq",
        "f o/x=1",
        "f .wh.again",
        "d again",
        "d dir",
        "f dir/in=1",
        "f .wh.dir",
        "f .wh.file",
        "f file=2",
        "f .wh.both",
        "f both/.wh.inner",
        "f late/.wh.inner",
        "f .wh.late",
        "f .wh..wh.plnk/1.2=x",
        "f .wh.up",
        "f up/f=3",
    ]);
    done.unwrap();
    let at = |p: &str| dir.path().join(p);
    assert!(is_whiteout(&at("gone")));
    assert!(is_opaque(&at("o")) && at("o/x").exists());
    assert!(
        is_opaque(&at("again")),
        "deleted and made again hides what is below"
    );
    assert!(is_opaque(&at("dir")) && at("dir/in").exists());
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "2");
    assert!(
        is_whiteout(&at("both")),
        "a deleted directory stays deleted"
    );
    assert!(is_whiteout(&at("late")));
    assert!(is_opaque(&at("up")) && at("up/f").exists());
    assert!(!at(".wh..wh.plnk").exists());
}

#[test]
fn the_last_of_two_entries_wins() {
    need_root!();
    let (dir, done) = unpack(&[
        "f a=1",
        "f a=22",
        "d b",
        "f b/c=1",
        "f b=now a file",
        "l s>a",
        "d s",
        "d d",
        "f d/k=1",
        "d d",
    ]);
    done.unwrap();
    let at = |p: &str| dir.path().join(p);
    assert_eq!(fs::read_to_string(at("a")).unwrap(), "22");
    assert_eq!(fs::read_to_string(at("b")).unwrap(), "now a file");
    assert!(fs::symlink_metadata(at("s")).unwrap().is_dir());
    assert!(
        at("d/k").exists(),
        "a directory over a directory keeps what is in it"
    );
}

#[test]
fn hostile_entries_are_refused_by_name() {
    need_root!();
    for (entries, who) in [
        (&["f ../x=1"][..], "../x"),
        (&["f a/../../x=1"], "a/../../x"),
        (&["l a>/tmp", "f a/x=1"], "a/x"),
        (&["l a>..", "d a/b"], "a/b/"),
        (&["l a>.", "l b>a", "f b/a/x=1"], "b/a/x"),
        (&["f a=1", "f a/x=1"], "a/x"),
        (&["h x>../../etc/passwd"], "x"),
        (&["h x>/etc/passwd"], "x"),
        (&["l a>/etc", "h x>a/passwd"], "x"),
        (&["d a", "h x>a"], "x"),
        (&["f x=1", "h x>x"], "x"),
        (&["f .wh..=1"], ".wh.."),
        (&["f .wh...=1"], ".wh..."),
        (&["f a/.wh.=1"], "a/.wh."),
        (&["f .wh.a/b=1"], ".wh.a/b"),
        (&["l x>"], "x"),
        (&["f .=1"], "."),
    ] {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir(&root).unwrap();
        let failed = apply_to(&root, &archive(entries)[..], &Limits::default());
        let Err(ImageError::Entry { entry, .. }) = failed else {
            panic!("{entries:?}: {failed:?}");
        };
        assert_eq!(entry, who, "{entries:?}");
        assert_eq!(
            fs::read_dir(outside.path()).unwrap().count(),
            1,
            "{entries:?}"
        );
    }
    assert!(!Path::new("/tmp/x").exists());
}

#[test]
fn absolute_paths_are_relative_to_the_layer() {
    need_root!();
    let (dir, done) = unpack(&["f /plyfs-abs=1", "h /b>/plyfs-abs"]);
    done.unwrap();
    assert!(dir.path().join("plyfs-abs").exists() && dir.path().join("b").exists());
    assert!(!Path::new("/plyfs-abs").exists());
}

#[test]
fn a_whiteout_device_cannot_be_smuggled_in() {
    need_root!();
    let mut tar = Writer::new(Vec::new());
    tar.entry(&Meta {
        rdev: (0, 0),
        ..meta(Kind::Char, "x", "")
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let failed = apply_to(dir.path(), &tar.finish().unwrap()[..], &Limits::default());
    assert!(failed.unwrap_err().to_string().contains("whiteout"));
}

#[test]
fn xattrs_come_through_and_marks_do_not() {
    need_root!();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = [
        ("user.note", &b"n\0te"[..]),
        ("trusted.overlay.redirect", b"/etc"),
        ("user.overlay.opaque", b"y"),
        ("user.fuseoverlayfs.opaque", b"y"),
        ("user.containers.override_stat", b"0:0:04755"),
    ]
    .map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec()))
    .to_vec();
    let mut tar = Writer::new(Vec::new());
    tar.entry(&Meta {
        xattrs: &pairs,
        ..meta(Kind::Dir, "d", "")
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let done = apply_to(dir.path(), &tar.finish().unwrap()[..], &Limits::default()).unwrap();
    assert_eq!(done.xattrs_lost, 3);
    let d = dir.path().join("d");
    let mut names: Vec<_> = xattr::list(&d).unwrap().collect();
    names.sort();
    assert_eq!(names, ["trusted.overlay.overlay.redirect", "user.note"]);
    assert_eq!(xattr::get(&d, "user.note").unwrap().unwrap(), b"n\0te");
}

#[test]
fn suid_and_owners_survive_each_other() {
    need_root!();
    let mut tar = Writer::new(Vec::new());
    let m = Meta {
        mode: 0o6755,
        uid: 12,
        gid: 70_000,
        ..meta(Kind::File, "s", "")
    };
    tar.entry(&m).unwrap();
    tar.entry(&Meta {
        mode: 0o1777,
        ..meta(Kind::Dir, "t", "")
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &tar.finish().unwrap()[..], &Limits::default()).unwrap();
    let s = fs::metadata(dir.path().join("s")).unwrap();
    assert_eq!((s.mode() & 0o7777, s.uid(), s.gid()), (0o6755, 12, 70_000));
    assert_eq!(
        fs::metadata(dir.path().join("t")).unwrap().mode() & 0o7777,
        0o1777
    );
}

#[test]
fn zeros_become_holes() {
    need_root!();
    let size = (3u64 << 20) + 5;
    let mut tar = Writer::new(Vec::new());
    tar.entry(&Meta {
        size,
        ..meta(Kind::File, "z", "")
    })
    .unwrap();
    let mut data = vec![0u8; usize::try_from(size).unwrap()];
    data[1 << 20] = 9;
    tar.data(&data).unwrap();
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &tar.finish().unwrap()[..], &Limits::default()).unwrap();
    let path = dir.path().join("z");
    assert_eq!(fs::read(&path).unwrap(), data);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn limits_hold() {
    need_root!();
    let tar = archive(&["d a", "d b", "f c=12345"]);
    for limits in [
        Limits {
            entries: 2,
            ..Limits::default()
        },
        Limits {
            bytes: 4,
            ..Limits::default()
        },
        Limits {
            path: 0,
            ..Limits::default()
        },
        Limits {
            dir_paths: 1,
            ..Limits::default()
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            apply_to(dir.path(), &tar[..], &limits).is_err(),
            "{limits:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Entries of any kind in any order do what they may or are refused, and touch nothing outside.
    #[test]
    fn nothing_leaves_the_root(entries in proptest::collection::vec(
        ("[dflhcp]", "[ab.]{1,2}(/[ab.]{1,2}){0,2}", "(/|\\.\\./)?[ab.](/[ab.]){0,2}"), 1..24,
    )) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("a");
        fs::create_dir(&root).unwrap();
        fs::write(outside.path().join("b"), "untouched").unwrap();
        let lines: Vec<String> = entries.iter().map(|(k, p, l)| match k.as_str() {
            "f" => format!("f {p}={l}"),
            "l" | "h" => format!("{k} {p}>{l}"),
            _ => format!("{k} {p}"),
        }).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        drop(apply_to(&root, &archive(&lines)[..], &Limits::default()));
        prop_assert_eq!(fs::read_to_string(outside.path().join("b")).unwrap(), "untouched");
        prop_assert_eq!(fs::metadata(outside.path().join("b")).unwrap().nlink(), 1);
        prop_assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    }
}
