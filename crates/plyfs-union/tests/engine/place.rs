//! Puts the objects of a layer section onto the disk.
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};

use crate::text::{Object, What};

/// The mtime of everything that names none: long before any test.
const LONG_AGO: i64 = 1_500_000_000;

/// Plants `objects` below `root`, which is made; so are missing parents.
pub(crate) fn place(root: &Path, objects: &[Object]) {
    make_dirs(root);
    for object in objects {
        plant(root, object);
    }
    for object in objects {
        adorn(&on_disk(root, &object.path), object);
    }
    set_times(root, objects);
    for object in objects {
        if let Some(letters) = object.attr("flags") {
            chattr(&[&format!("+{letters}")], &on_disk(root, &object.path));
        }
    }
}

/// Runs chattr(1), which every machine with an ext4 has.
pub(crate) fn chattr(changes: &[&str], path: &Path) {
    let run = std::process::Command::new("chattr")
        .args(changes)
        .arg(path)
        .output();
    let run = run.unwrap();
    assert!(run.status.success(), "chattr {changes:?}: {run:?}");
}

pub(crate) fn on_disk(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn plant(root: &Path, object: &Object) {
    let path = on_disk(root, &object.path);
    if let Some(parent) = path.parent() {
        make_dirs(parent);
    }
    match &object.what {
        What::Dir => make_dirs(&path),
        What::File(content) => make_file(&path, content),
        What::Symlink(target) => symlink(target, &path).unwrap(),
        What::Link(to) => fs::hard_link(on_disk(root, to), &path).unwrap(),
        What::Whiteout => node(&path, FileType::CharacterDevice, (0, 0)),
        What::XattrWhiteout => {
            make_file(&path, b"");
            xattr::set(&path, "trusted.overlay.whiteout", b"y").unwrap();
        }
        What::Fifo => node(&path, FileType::Fifo, (0, 0)),
        What::Socket => node(&path, FileType::Socket, (0, 0)),
        What::Char => node(&path, FileType::CharacterDevice, (1, 3)),
        What::Block => node(&path, FileType::BlockDevice, (7, 0)),
    }
}

// The engine changes the umask of the threads it works in; these modes are the same under any.
fn make_dirs(path: &Path) {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path).unwrap();
}

fn make_file(path: &Path, content: &[u8]) {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o644);
    file.open(path).unwrap().write_all(content).unwrap();
}

fn node(path: &Path, kind: FileType, (major, minor): (u32, u32)) {
    let mode = Mode::from_raw_mode(0o644);
    mknodat(CWD, path, kind, mode, makedev(major, minor)).unwrap();
}

fn adorn(path: &Path, object: &Object) {
    let mark = |name: &str, value: &[u8]| {
        xattr::set(path, format!("trusted.overlay.{name}"), value).unwrap();
    };
    if let Some(ids) = object.attr("own") {
        let (uid, gid) = ids.split_once(':').unwrap();
        lchown(path, uid.parse().ok(), gid.parse().ok()).unwrap();
    }
    for attr in &object.attrs {
        let value = attr.value.as_str();
        match attr.name.as_str() {
            "mode" => {
                let mode = u32::from_str_radix(value, 8).unwrap();
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            "opaque" if value.is_empty() => mark("opaque", b"y"),
            "impure" => mark("impure", b"y"),
            "opaque" | "redirect" | "metacopy" => mark(&attr.name, value.as_bytes()),
            "size" => {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(value.parse().unwrap()).unwrap();
            }
            "own" | "t" | "flags" => {}
            name => match name.strip_prefix("x:") {
                Some(name) => xattr::set(path, name, value.as_bytes()).unwrap(),
                None => panic!("{name:?} cannot be planted on {}", object.path),
            },
        }
    }
}

fn set_times(root: &Path, objects: &[Object]) {
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            todo.extend(path.read_dir().unwrap().map(|e| e.unwrap().path()));
        }
        set_time(&path, LONG_AGO, 123_456_789);
    }
    for object in objects {
        if let Some(seconds) = object.attr("t") {
            set_time(&on_disk(root, &object.path), seconds.parse().unwrap(), 1);
        }
    }
}

fn set_time(path: &Path, seconds: i64, nsec: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nsec,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
