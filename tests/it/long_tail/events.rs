//! inotify: changes made through the mount are told, before and after copy-up.
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

use super::both;
use crate::support::agree;

fn watch(path: impl AsRef<Path>) -> OwnedFd {
    let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    let quiet = WatchFlags::ACCESS | WatchFlags::OPEN | WatchFlags::CLOSE;
    add_watch(&inotify, path.as_ref(), WatchFlags::ALL_EVENTS & !quiet).unwrap();
    inotify
}

/// What has come since the last call, "EVENT NAME" each.
fn told(inotify: &OwnedFd) -> Vec<String> {
    let mut room = [MaybeUninit::uninit(); 8192];
    let mut reader = Reader::new(inotify, &mut room);
    let mut told = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let what = event
            .events()
            .iter_names()
            .map(|(n, _)| n.to_owned())
            .next()
            .unwrap_or_default();
        told.push(format!("{what} {name}").trim_end().to_owned());
    }
    told
}

#[test]
fn a_directory_tells_of_its_names() {
    agree(
        &["f d/lower = 1\nf d/old = 2\nd d/sub", "f d/below = 3"],
        |m| {
            let dir = m.join("d");
            let inotify = watch(&dir);
            let step = |what: &dyn Fn(), expected: &[&str]| {
                what();
                assert_eq!(told(&inotify), expected);
            };
            step(
                &|| drop(File::create(dir.join("new")).unwrap()),
                &["CREATE new"],
            );
            step(
                &|| both(dir.join("lower")).write_all_at(b"X", 0).unwrap(),
                &["MODIFY lower"],
            );
            step(
                &|| both(dir.join("lower")).write_all_at(b"Y", 0).unwrap(),
                &["MODIFY lower"],
            );
            let mode = || fs::Permissions::from_mode(0o600);
            step(
                &|| fs::set_permissions(dir.join("below"), mode()).unwrap(),
                &["ATTRIB below"],
            );
            let moved = &["MOVED_FROM old", "MOVED_TO moved"];
            step(
                &|| fs::rename(dir.join("old"), dir.join("moved")).unwrap(),
                moved,
            );
            step(
                &|| fs::hard_link(dir.join("moved"), dir.join("link")).unwrap(),
                &["CREATE link"],
            );
            step(
                &|| fs::create_dir(dir.join("made")).unwrap(),
                &["CREATE made"],
            );
            step(
                &|| fs::remove_dir(dir.join("sub")).unwrap(),
                &["DELETE sub"],
            );
            step(
                &|| fs::remove_file(dir.join("below")).unwrap(),
                &["DELETE below"],
            );
            let truncated = &["MODIFY moved"];
            step(&|| both(dir.join("moved")).set_len(0).unwrap(), truncated);
        },
    );
}

#[test]
fn a_lower_file_tells_of_its_changes() {
    agree(&["f f = 0123456789"], |m| {
        let inotify = watch(m.join("f"));
        let file = both(m.join("f"));
        file.write_all_at(b"X", 0).unwrap();
        assert_eq!(told(&inotify), ["MODIFY"], "the write that copies up");
        file.write_all_at(b"Y", 1).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640))
            .unwrap();
        xattr::set(m.join("f"), "user.x", b"1").unwrap();
        assert_eq!(told(&inotify), ["MODIFY", "ATTRIB"]);
        fs::rename(m.join("f"), m.join("g")).unwrap();
        assert_eq!(told(&inotify), ["MOVE_SELF"]);
        drop(file);
        fs::remove_file(m.join("g")).unwrap();
        let last = told(&inotify);
        assert!(last.contains(&"DELETE_SELF".to_owned()), "{last:?}");
    });
}
