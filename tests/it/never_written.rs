//! A lower file is never written, whoever holds it open and whatever way a writer takes.
//!
//! A reader opens a lower file; a writer changes it in one of the [`ways`]. The lower keeps its
//! bytes, mode, owner, xattrs and times; the writer reads back what it wrote; a new reader sees it;
//! the old reader sees what `docs/semantics.md` says: the change, when it was made to the file it has
//! open, and its own file as it was, when another took the name; where data is passed through, its own
//! file as it was in any case. A program that reads the layer
//! itself, or another mount of it, sees no change at all.
mod ways;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use plyfs_testkit::{Mounted, Stack, mount_plyfs, need_fuse, need_passthrough};
use plyfs_tests::fsx::Mapping;

use ways::{After, LEN, NAMES, SHAPES, Site, WRITES, Way, both};

/// How the old reader holds its file.
#[derive(Debug, Clone, Copy)]
enum Holds {
    /// Opened, not yet read.
    Open,
    /// Opened and read, so that pages are cached.
    Read,
    /// Opened and mapped; the mapping is what it reads from.
    Mapped,
    /// Opened with O_DIRECT.
    Direct,
}

impl Holds {
    fn open(self, path: &Path) -> File {
        let flags = if matches!(self, Self::Direct) {
            libc::O_DIRECT
        } else {
            0
        };
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .unwrap()
    }

    fn look(self, file: &File) -> Vec<u8> {
        let len = file.metadata().unwrap().len() as usize;
        if matches!(self, Self::Mapped) {
            return if len == 0 {
                Vec::new()
            } else {
                Mapping::readable(file, len).unwrap().read(0, len).unwrap()
            };
        }
        let mut room = vec![0; len + 2 * 4096];
        let skip = room.as_ptr().align_offset(4096);
        let buffer = &mut room[skip..];
        let whole = buffer.len() / 4096 * 4096;
        let mut got = 0;
        while got < len {
            match file.read_at(&mut buffer[got..whole], got as u64).unwrap() {
                0 => break,
                count => got += count,
            }
        }
        buffer[..got].to_vec()
    }
}

/// How a file lies in the layers.
#[derive(Debug, Clone, Copy)]
enum Lies {
    InTheTopmost,
    AtTheBottom,
    /// With a second name in its layer.
    Linked,
}

fn content(way: usize) -> Vec<u8> {
    (0..LEN)
        .map(|i| (i / 97 + i * 31 + way) as u8 | 1)
        .collect()
}

fn ways() -> impl Iterator<Item = &'static Way> {
    WRITES.iter().chain(SHAPES).chain(NAMES)
}

fn planted(lies: Lies) -> Stack {
    let stack = Stack::new(2);
    let layer = stack.lower(usize::from(matches!(lies, Lies::AtTheBottom)));
    fs::create_dir_all(layer.join("d")).unwrap();
    fs::set_permissions(layer.join("d"), PermissionsExt::from_mode(0o755)).unwrap();
    for (i, (way, _)) in ways().enumerate() {
        let path = layer.join("d").join(way);
        fs::write(&path, content(i)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        xattr::set(&path, "user.planted", b"value").unwrap();
        if matches!(lies, Lies::Linked) {
            fs::hard_link(&path, layer.join("d").join(format!("{way}.peer"))).unwrap();
        }
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        both(&path).set_times(times).unwrap();
    }
    stack.sealed()
}

/// Goes one way and checks what everybody sees.
fn go(
    stack: &Stack,
    mounted: &Mounted,
    (holds, passes): (Holds, bool),
    number: usize,
    way: &Way,
) -> After {
    let path = mounted.join("d").join(way.0);
    let old = content(number);
    let in_layer = stack
        .lowers()
        .iter()
        .map(|l| l.join("d").join(way.0))
        .find(|p| p.exists());
    let in_layer = File::open(in_layer.unwrap()).unwrap();
    let before = in_layer.metadata().unwrap();
    let reader = holds.open(&path);
    // A mapping from before the change stays until the old reader has looked.
    let map = matches!(holds, Holds::Mapped).then(|| Mapping::readable(&reader, LEN).unwrap());
    if !matches!(holds, Holds::Open) {
        assert!(holds.look(&reader) == old);
        assert!(
            map.as_ref()
                .is_none_or(|map| map.read(0, LEN).unwrap() == old)
        );
    }
    let site = Site {
        path,
        reader: &reader,
        old: old.clone(),
        passes,
    };
    let after = (way.1)(&site);

    assert!(
        fs::read(&after.path).unwrap() == after.content,
        "a new reader sees otherwise"
    );
    let expected = if after.same_file && !passes {
        &after.content
    } else {
        &old
    };
    assert!(
        holds.look(&reader) == *expected,
        "the old reader sees otherwise"
    );
    if let Some(map) = map {
        let len = expected.len().min(LEN);
        assert!(
            map.read(0, len).unwrap() == expected[..len],
            "the old mapping shows otherwise"
        );
    }

    assert!(Holds::Open.look(&in_layer) == old, "the lower was written");
    let now = in_layer.metadata().unwrap();
    let facts = |m: &fs::Metadata| {
        (
            m.mtime(),
            m.ctime(),
            m.ctime_nsec(),
            m.mode(),
            m.uid(),
            m.len(),
        )
    };
    assert_eq!(facts(&now), facts(&before), "the lower was touched");
    after
}

/// A second name in the layer stays a name of the file where there is an index; without one the
/// changed name became a file of its own.
fn the_other_name(mounted: &Mounted, options: &str, number: usize, way: &Way, after: &After) {
    let seen = fs::read(mounted.join("d").join(format!("{}.peer", way.0))).unwrap();
    if after.same_file && options.contains("index=on") {
        assert!(seen == after.content, "the other name shows otherwise");
    } else {
        assert!(seen == content(number), "the other name has changed");
    }
}

/// Goes every way on one mount, beside a second, read-only mount of the same layers.
fn every_way(options: &str, holds: Holds, lies: Lies) {
    let stack = planted(lies);
    let elsewhere = Stack::new(2).read_only();
    let second = second_mount(&stack, &elsewhere, options);
    let mounted = mount_plyfs(&stack, options);
    let passes = options.contains("data=passthrough");
    let mut left = Vec::new();
    for (number, way) in ways().enumerate() {
        let far = File::open(elsewhere.mnt().join("d").join(way.0)).unwrap();
        let gone = catch_unwind(AssertUnwindSafe(|| {
            let after = go(&stack, &mounted, (holds, passes), number, way);
            if matches!(lies, Lies::Linked) {
                the_other_name(&mounted, options, number, way, &after);
            }
            after
        }));
        left.push(gone.unwrap_or_else(|why| {
            eprintln!("{}: {holds:?}, {lies:?}, options {options:?}", way.0);
            resume_unwind(why)
        }));
        assert!(
            Holds::Read.look(&far) == content(number),
            "{}: another mount sees it",
            way.0
        );
    }
    mounted.unmount();
    let again = mount_plyfs(&stack, options);
    for (after, (way, _)) in left.iter().zip(ways()) {
        let name = after.path.file_name().unwrap();
        assert!(
            fs::read(again.join("d").join(name)).unwrap() == after.content,
            "{way}: remounted"
        );
    }
    again.unmount();
    second.unmount();
    stack.assert_lowers_unchanged();
}

/// A read-only mount of the same layers somewhere else.
fn second_mount(stack: &Stack, elsewhere: &Stack, options: &str) -> Mounted {
    for (link, layer) in elsewhere.lowers().iter().zip(stack.lowers()) {
        fs::remove_dir(link).unwrap();
        symlink(layer, link).unwrap();
    }
    let data = options.split(',').find(|o| o.starts_with("data="));
    mount_plyfs(elsewhere, data.unwrap_or_default())
}

#[test]
fn by_a_reader_that_has_opened_it() {
    need_fuse!();
    every_way("", Holds::Open, Lies::InTheTopmost);
    every_way("", Holds::Open, Lies::Linked);
}

#[test]
fn by_a_reader_that_has_read_it() {
    need_fuse!();
    every_way("", Holds::Read, Lies::InTheTopmost);
    every_way("", Holds::Read, Lies::Linked);
    every_way("", Holds::Read, Lies::AtTheBottom);
}

#[test]
fn by_a_reader_that_has_mapped_it() {
    need_fuse!();
    every_way("", Holds::Mapped, Lies::InTheTopmost);
    every_way("", Holds::Mapped, Lies::Linked);
}

#[test]
fn by_a_reader_with_direct_io() {
    need_fuse!();
    every_way("", Holds::Direct, Lies::AtTheBottom);
}

#[test]
fn with_other_options_of_the_mount() {
    need_fuse!();
    for options in [
        "metacopy=on,redirect_dir=on",
        "volatile",
        "xino=on",
        "writeback=0",
        "writeback=0,metacopy=on",
    ] {
        every_way(options, Holds::Read, Lies::InTheTopmost);
        every_way(options, Holds::Mapped, Lies::AtTheBottom);
    }
    // With an index both names of a file stay one file, whichever is written.
    for options in ["index=on", "index=on,metacopy=on"] {
        every_way(options, Holds::Read, Lies::Linked);
        every_way(options, Holds::Mapped, Lies::Linked);
    }
}

#[test]
fn where_data_is_passed_through() {
    need_passthrough!();
    let mode = "data=passthrough";
    every_way(mode, Holds::Open, Lies::InTheTopmost);
    every_way(mode, Holds::Read, Lies::Linked);
    every_way(mode, Holds::Mapped, Lies::AtTheBottom);
    every_way(mode, Holds::Direct, Lies::InTheTopmost);
}

#[test]
fn where_data_is_passed_through_with_other_options() {
    need_passthrough!();
    let with = |options: &str| format!("data=passthrough,{options}");
    every_way(
        &with("metacopy=on,redirect_dir=on"),
        Holds::Read,
        Lies::AtTheBottom,
    );
    every_way(&with("volatile"), Holds::Mapped, Lies::InTheTopmost);
    every_way(&with("index=on"), Holds::Read, Lies::Linked);
    every_way(&with("index=on,metacopy=on"), Holds::Mapped, Lies::Linked);
}
