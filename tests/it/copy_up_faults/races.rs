//! Two things at once on one lower file, while its copy is made.
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use plyfs_testkit::{Stack, mount_plyfs, need_fuse};

use super::{litter, noise, writer};

/// A round of two things at once on one lower file of a megabyte: see [`races`].
struct Race {
    name: &'static str,
    first: fn(&Path),
    second: fn(&Path),
    after: fn(&Path, &[u8]),
}

fn write_at_start(path: &Path) {
    // A name that is gone before it is opened is not what this is about.
    if let Ok(file) = OpenOptions::new().read(true).write(true).open(path) {
        file.write_all_at(b"FIRST", 0).unwrap();
        let mut seen = [0; 5];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"FIRST", "the writer reads what it wrote");
    }
}

/// The old content, with or without what the writer put at its start.
fn old_or_written(content: &[u8], old: &[u8]) {
    assert_eq!(content.len(), old.len());
    assert!(&content[..5] == b"FIRST" || content[..5] == old[..5]);
    assert!(
        content[5..] == old[5..],
        "nothing but the start has changed"
    );
}

const RACES: &[Race] = &[
    Race {
        name: "two writers",
        first: write_at_start,
        second: |path| writer(path).write_all_at(b"SECOND", 900_000).unwrap(),
        after: |path, old| {
            let mut expected = old.to_vec();
            expected[..5].copy_from_slice(b"FIRST");
            expected[900_000..900_006].copy_from_slice(b"SECOND");
            assert!(fs::read(path).unwrap() == expected);
        },
    },
    Race {
        name: "a writer and an unlink",
        first: write_at_start,
        second: |path| fs::remove_file(path).unwrap(),
        after: |path, _| assert!(!path.exists()),
    },
    Race {
        name: "a writer and a rename",
        first: write_at_start,
        second: |path| fs::rename(path, path.with_extension("moved")).unwrap(),
        after: |path, old| {
            assert!(!path.exists());
            old_or_written(&fs::read(path.with_extension("moved")).unwrap(), old);
        },
    },
    Race {
        name: "a writer and a file renamed over it",
        first: write_at_start,
        second: |path| {
            fs::write(path.with_extension("other"), "other").unwrap();
            fs::rename(path.with_extension("other"), path).unwrap();
        },
        after: |path, _| {
            let content = fs::read(path).unwrap();
            assert!(content == b"other" || content == b"FIRST", "{content:?}");
        },
    },
    Race {
        name: "a writer and a chmod",
        first: write_at_start,
        second: |path| fs::set_permissions(path, PermissionsExt::from_mode(0o751)).unwrap(),
        after: |path, old| {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o751);
            let content = fs::read(path).unwrap();
            assert!(&content[..5] == b"FIRST" && content[5..] == old[5..]);
        },
    },
    Race {
        name: "a writer and a link",
        first: write_at_start,
        second: |path| fs::hard_link(path, path.with_extension("link")).unwrap(),
        after: |path, old| {
            let (one, two) = (
                fs::read(path).unwrap(),
                fs::read(path.with_extension("link")).unwrap(),
            );
            assert!(one == two && &one[..5] == b"FIRST" && one[5..] == old[5..]);
            assert_eq!(fs::metadata(path).unwrap().nlink(), 2);
        },
    },
    Race {
        name: "a writer and a truncating open",
        first: |path| writer(path).write_all_at(b"FIRST", 0).unwrap(),
        second: |path| drop(File::create(path).unwrap()),
        after: |path, _| {
            let content = fs::read(path).unwrap();
            assert!(
                content.is_empty() || content == b"FIRST",
                "{} bytes",
                content.len()
            );
        },
    },
    Race {
        name: "an xattr and an unlink",
        first: |path| drop(xattr::set(path, "user.race", b"1")),
        second: |path| fs::remove_file(path).unwrap(),
        after: |path, _| assert!(!path.exists()),
    },
    Race {
        name: "a rename and a rename of the directory above",
        first: |path| {
            // By the old or by the new name of the directory.
            let to = path.with_extension("moved");
            fs::rename(path, &to).unwrap();
        },
        second: |path| {
            fs::set_permissions(path.parent().unwrap(), PermissionsExt::from_mode(0o711)).unwrap()
        },
        after: |path, old| {
            assert!(fs::read(path.with_extension("moved")).unwrap() == old);
            assert_eq!(
                fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777,
                0o711
            );
        },
    },
];

/// Both halves of each race at the same moment, while a reader keeps reading.
#[test]
fn races() {
    need_fuse!();
    const ROUNDS: usize = 12;
    let stack = Stack::new(1);
    let old = noise(1 << 20, 7);
    for race in 0..RACES.len() {
        for round in 0..ROUNDS {
            let dir = stack.lower(0).join(format!("{race}-{round}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("file"), &old).unwrap();
        }
    }
    let stack = stack.sealed();
    let mounted = mount_plyfs(&stack, "");
    for (number, race) in RACES.iter().enumerate() {
        for round in 0..ROUNDS {
            let path = mounted.join(format!("{number}-{round}/file"));
            if round == 0 {
                eprintln!("{}", race.name);
            }
            let start = Barrier::new(3);
            thread::scope(|scope| {
                for half in [race.first, race.second] {
                    let (start, path) = (&start, &path);
                    scope.spawn(move || {
                        start.wait();
                        half(path);
                    });
                }
                let reader = File::open(&path).unwrap();
                start.wait();
                let mut seen = [0; 4096];
                for _ in 0..20 {
                    let got = reader.read_at(&mut seen, 500_000).unwrap();
                    assert!(
                        got == 0 || seen == old[500_000..504_096],
                        "neither old nor new"
                    );
                }
            });
            (race.after)(&path, &old);
        }
    }
    assert_eq!(litter(&stack), [""; 0]);
    mounted.unmount();
    stack.assert_lowers_unchanged();
}
