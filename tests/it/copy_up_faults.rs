//! Copy-up that fails, copy-up that many want at once, and what a good one must not cost.
pub(crate) mod backing;
mod delayed;
mod races;

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use plyfs_testkit::{Mounted, Stack, mount_plyfs, need, need_fuse, snapshot, wait_until};

use crate::support::{errno, names, on_plyfs, read, run};
use backing::Backing;

const BIG: usize = 6 << 20;

fn writer(path: impl AsRef<Path>) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Bytes without a hole that no file system compresses away.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Two lower files too big for the upper, one small, in directories that are not there yet.
fn stack_with_big_files() -> Stack {
    let stack = Stack::new(1);
    let dir = stack.lower(0).join("a/b");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("big"), noise(BIG, 1)).unwrap();
    fs::write(dir.join("small"), "small").unwrap();
    xattr::set(dir.join("big"), "user.kept", b"kept").unwrap();
    fs::set_permissions(dir.join("big"), PermissionsExt::from_mode(0o640)).unwrap();
    writer(dir.join("big"))
        .set_modified(UNIX_EPOCH + Duration::from_nanos(123_456_789))
        .unwrap();
    stack.sealed()
}

type Attempt = (&'static str, fn(&Path) -> Errno);

/// All that needs the data of a lower file and must say that there is no room for it.
const NEEDS_DATA: &[Attempt] = &[
    ("write", |f| errno(writer(f).write_at(b"x", 5))),
    ("append", |f| {
        errno(
            OpenOptions::new()
                .append(true)
                .open(f)
                .and_then(|mut f| f.write(b"x")),
        )
    }),
    ("ftruncate", |f| errno(writer(f).set_len(BIG as u64 - 1))),
    ("truncate", |f| {
        errno(nix::unistd::truncate(f, BIG as i64 - 1).map_err(Into::into))
    }),
    ("fallocate", |f| {
        let grown = fallocate(writer(f), FallocateFlags::empty(), BIG as i64, 4096);
        grown.err().unwrap_or(Errno::UnknownErrno)
    }),
    ("chmod", |f| {
        errno(fs::set_permissions(f, PermissionsExt::from_mode(0o600)))
    }),
    ("chown", |f| {
        errno(std::os::unix::fs::chown(f, Some(1), None))
    }),
    ("utimens", |f| {
        errno(File::open(f).unwrap().set_modified(UNIX_EPOCH))
    }),
    ("setxattr", |f| errno(xattr::set(f, "user.new", b"1"))),
    ("removexattr", |f| errno(xattr::remove(f, "user.kept"))),
    ("link", |f| {
        errno(fs::hard_link(f, f.with_file_name("link")))
    }),
    ("rename", |f| {
        errno(fs::rename(f, f.with_file_name("renamed")))
    }),
    ("copy_file_range", |f| {
        let small = File::open(f.with_file_name("small")).unwrap();
        let copied = nix::fcntl::copy_file_range(small, None, writer(f), None, 5);
        copied.err().unwrap_or(Errno::UnknownErrno)
    }),
];

/// Every copy-up of the big file fails with `expected` and leaves everything as it was.
fn no_room(stack: &Stack, backing: &Backing, expected: Errno) {
    // With cached writes it is the close that says so; see `delayed`.
    let mounted = mount_plyfs(stack, "writeback=0");
    let big = mounted.join("a/b/big");
    let (reader, before) = (File::open(&big).unwrap(), fs::metadata(&big).unwrap());
    let facts = |m: &fs::Metadata| {
        (
            m.ino(),
            m.mode(),
            m.uid(),
            m.mtime_nsec(),
            m.len(),
            m.nlink(),
        )
    };
    let room = backing.free();
    for (what, attempt) in NEEDS_DATA {
        assert_eq!(attempt(&big), expected, "{what}");
        let now = fs::metadata(&big).unwrap();
        assert_eq!(facts(&now), facts(&before), "{what}");
        assert_eq!(names(mounted.join("a/b")), ["big", "small"], "{what}");
        assert_eq!(litter(stack), [""; 0], "{what}: litter in the workdir");
        assert!(
            !stack.upper().join("a/b/big").exists(),
            "{what}: litter in the upper"
        );
        // The directories above may have come up, which takes a few blocks; what was staged is
        // given back by the file system a moment later.
        wait_until(format!("{what}: space comes back"), || {
            room.saturating_sub(backing.free()) < 256 << 10
        });
    }
    assert_eq!(xattr::get(&big, "user.kept").unwrap().unwrap(), b"kept");
    assert!(
        fs::read(&big).unwrap() == noise(BIG, 1),
        "the old file is intact"
    );
    let mut seen = vec![0; BIG];
    reader.read_exact_at(&mut seen, 0).unwrap();
    assert!(
        seen == noise(BIG, 1),
        "a reader from before is not disturbed"
    );
    others_work(&mounted);
    drop(reader);
    mounted.unmount();
    stack.assert_lowers_unchanged();
}

/// What needs little room goes on.
fn others_work(mounted: &Mounted) {
    writer(mounted.join("a/b/small"))
        .write_all_at(b"S", 0)
        .unwrap();
    assert_eq!(read(mounted.join("a/b/small")), "Small");
    fs::write(mounted.join("a/new"), "new").unwrap();
    assert_eq!(read(mounted.join("a/new")), "new");
    // A truncating open copies nothing, so it has room.
    fs::write(mounted.join("a/b/big"), "replaced").unwrap();
    assert_eq!(read(mounted.join("a/b/big")), "replaced");
}

#[test]
fn no_space_on_tmpfs_leaves_the_old_file() {
    need_fuse!();
    let stack = stack_with_big_files();
    let backing = Backing::tmpfs(&stack, 3 << 20).take_upper(&stack);
    no_room(&stack, &backing, Errno::ENOSPC);
}

#[test]
fn no_space_on_ext4_leaves_the_old_file() {
    need_fuse!();
    need!("mkfs.ext4");
    let stack = stack_with_big_files();
    let backing = Backing::image(&stack, "ext4", "8M", &["-m", "0"], "defaults").take_upper(&stack);
    backing.fill(3 << 20);
    no_room(&stack, &backing, Errno::ENOSPC);
}

#[test]
fn no_space_on_xfs_leaves_the_old_file() {
    need_fuse!();
    need!("mkfs.xfs");
    let stack = stack_with_big_files();
    let backing = Backing::image(&stack, "xfs", "320M", &[], "defaults").take_upper(&stack);
    backing.fill(3 << 20);
    no_room(&stack, &backing, Errno::ENOSPC);
}

/// A quota, as container engines give it to an upper, on the file system that has them built in.
#[test]
fn a_quota_leaves_the_old_file() {
    need_fuse!();
    need!("mkfs.btrfs", "btrfs");
    let stack = stack_with_big_files();
    let backing = Backing::image(&stack, "btrfs", "320M", &[], "defaults");
    let limited = backing.dir().join("limited");
    let (top, limited) = (backing.dir().to_str().unwrap(), limited.to_str().unwrap());
    run(
        stack.dir(),
        "btrfs",
        &["-q", "subvolume", "create", limited],
    );
    run(stack.dir(), "btrfs", &["-q", "quota", "enable", top]);
    run(
        stack.dir(),
        "btrfs",
        &["-q", "qgroup", "limit", "4M", limited],
    );
    let backing = backing
        .take("limited/upper", &stack.upper())
        .take("limited/work", &stack.work());
    no_room(&stack, &backing, Errno::EDQUOT);
}

/// No inode for the copy: of a file, or of one of the directories above it.
#[test]
fn no_inodes_left_is_no_harm() {
    need_fuse!();
    need!("mkfs.ext4");
    let deep = (1..80).fold(String::from("d"), |path, i| format!("{path}/{i}"));
    let stack = Stack::planted(&[&format!("f {deep}/file = content\nf top = content")]);
    let words = ["-N", "64", "-m", "0"];
    let backing = Backing::image(&stack, "ext4", "8M", &words, "defaults").take_upper(&stack);
    let spare = backing.dir().join("spare");
    (0..6).for_each(|i| fs::create_dir_all(spare.join(i.to_string())).unwrap());
    let mounted = mount_plyfs(&stack, "writeback=0");
    let before = snapshot(mounted.path());
    let file = mounted.join(&deep).join("file");
    assert_eq!(errno(writer(&file).write_at(b"C", 0)), Errno::ENOSPC);
    assert_eq!(
        errno(fs::set_permissions(&file, PermissionsExt::from_mode(0o600))),
        Errno::ENOSPC
    );
    assert_eq!(litter(&stack), [""; 0]);
    let lines = plyfs_testkit::diff(&before, &snapshot(mounted.path()));
    assert!(lines.is_empty(), "{lines:?}");
    mounted.unmount();
    // A mount needs an inode or two for its own trials, as the kernel's does.
    fs::remove_dir_all(&spare).unwrap();
    // Half a chain of directories in the upper is no harm to the next mount either.
    let again = mount_plyfs(&stack, "");
    let lines = plyfs_testkit::diff(&before, &snapshot(again.path()));
    assert!(lines.is_empty(), "{lines:?}");
    again.unmount();
    stack.assert_lowers_unchanged();
}

/// When room comes back, what failed works, without a new mount.
#[test]
fn room_that_comes_back_is_used() {
    need_fuse!();
    let stack = stack_with_big_files();
    let backing = Backing::tmpfs(&stack, 10 << 20).take_upper(&stack);
    let filler = backing.fill(2 << 20);
    let mounted = mount_plyfs(&stack, "writeback=0");
    let file = writer(mounted.join("a/b/big"));
    assert_eq!(errno(file.write_at(b"x", 0)), Errno::ENOSPC);
    fs::remove_file(filler).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let mut expected = noise(BIG, 1);
    expected[0] = b'x';
    assert!(fs::read(mounted.join("a/b/big")).unwrap() == expected);
    drop(file);
    mounted.unmount();
    drop(backing);
    stack.assert_lowers_unchanged();
}

/// What lies in the workdir, without the whiteout that others are links of.
fn litter(stack: &Stack) -> Vec<String> {
    let work = stack.work().join("work");
    let mut found = names(&work);
    found.retain(|name| {
        let meta = fs::symlink_metadata(work.join(name)).unwrap();
        meta.rdev() != 0 || !std::os::unix::fs::FileTypeExt::is_char_device(&meta.file_type())
    });
    found
}

#[test]
fn the_directories_above_keep_their_times() {
    need_fuse!();
    let spec =
        "f a/b/c/file = content\nt 1000 a/b/c\nt 2000 a/b\nt 3000 a\nf a/b/c/other = 2\nt 4000 .";
    on_plyfs(&[spec], "", |stack, m| {
        let dirs = ["a/b/c", "a/b", "a", "."];
        let times = |root: &Path| dirs.map(|d| fs::metadata(root.join(d)).unwrap().mtime());
        let before = times(m.path());
        writer(m.join("a/b/c/file")).write_all_at(b"C", 0).unwrap();
        assert_eq!(times(m.path()), before);
        fs::set_permissions(m.join("a/b/c/other"), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(times(m.path()), before);
        assert_eq!(times(&stack.upper())[..3], before[..3]);
    });
}

/// Writes one byte into a large sparse lower file; how many bytes the upper took.
fn one_byte(stack: &Stack) -> u64 {
    let mounted = mount_plyfs(stack, "");
    let file = writer(mounted.join("sparse"));
    file.write_all_at(b"!", 5).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 64 << 20);
    let mut seen = [0; 7];
    file.read_exact_at(&mut seen, 32 << 20).unwrap();
    assert_eq!(&seen, b"in here");
    drop(file);
    mounted.unmount();
    fs::metadata(stack.upper().join("sparse")).unwrap().blocks() * 512
}

fn plant_sparse(layer: &Path) {
    let file = File::create(layer.join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"in here", 32 << 20).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn holes_stay_holes() {
    need_fuse!();
    need!("mkfs.ext4", "mkfs.xfs");
    let plain = Stack::new(1);
    plant_sparse(plain.lower(0));
    assert!(
        one_byte(&plain) < 1 << 20,
        "on the file system of the tests"
    );
    for kind in ["tmpfs", "ext4", "xfs"] {
        let stack = Stack::new(1);
        plant_sparse(stack.lower(0));
        let backing = match kind {
            "tmpfs" => Backing::tmpfs(&stack, 32 << 20),
            kind => Backing::image(&stack, kind, "320M", &[], "defaults"),
        };
        let _backing = backing.take_upper(&stack);
        assert!(
            one_byte(&stack) < 1 << 20,
            "from another file system to {kind}"
        );
    }
}

/// Where the file system can share blocks, copy-up of a large file costs none.
#[test]
fn blocks_are_shared_where_they_can_be() {
    need_fuse!();
    need!("mkfs.xfs");
    let stack = Stack::new(1);
    let backing = Backing::image(&stack, "xfs", "400M", &["-m", "reflink=1"], "defaults")
        .take_upper(&stack)
        .take("lower", stack.lower(0));
    let content = noise(64 << 20, 3);
    fs::write(backing.dir().join("lower/big"), &content).unwrap();
    nix::unistd::sync();
    let room = backing.free();
    let mounted = mount_plyfs(&stack, "");
    let file = writer(mounted.join("big"));
    file.write_all_at(b"!", 5).unwrap();
    file.sync_all().unwrap();
    let used = room - backing.free();
    assert!(used < 4 << 20, "copy-up took {used} bytes");
    let mut seen = vec![0; 1000];
    file.read_exact_at(&mut seen, 30 << 20).unwrap();
    assert!(seen[..] == content[30 << 20..(30 << 20) + 1000]);
    drop(file);
    mounted.unmount();
    assert!(fs::read(backing.dir().join("lower/big")).unwrap() == content);
}

/// A large file may be read while its copy is made, and nobody waits for it but its writer.
#[test]
fn readers_do_not_wait_for_a_copy() {
    need_fuse!();
    let stack = Stack::new(1);
    fs::write(stack.lower(0).join("big"), noise(96 << 20, 5)).unwrap();
    fs::write(stack.lower(0).join("small"), "small").unwrap();
    let stack = stack.sealed();
    let mounted = mount_plyfs(&stack, "");
    let big = mounted.join("big");
    thread::scope(|scope| {
        let copy = scope.spawn(|| writer(&big).write_all_at(b"!", 0).unwrap());
        let mut rounds = 0;
        while !copy.is_finished() {
            assert_eq!(read(mounted.join("small")), "small");
            assert_eq!(fs::metadata(&big).unwrap().len(), 96 << 20);
            fs::write(mounted.join(format!("new-{}", rounds % 8)), "new").unwrap();
            rounds += 1;
        }
        assert!(rounds > 3, "others went on {rounds} times");
        copy.join().unwrap();
    });
    let times = FileTimes::new().set_modified(UNIX_EPOCH);
    writer(&big).set_times(times).unwrap();
    let mut log = OpenOptions::new().append(true).open(&big).unwrap();
    log.write_all(b"end").unwrap();
    drop(log);
    mounted.unmount();
    stack.assert_lowers_unchanged();
}
