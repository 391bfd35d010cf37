//! Open files and directories that have lost their names, and files that never had one.
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag, fallocate, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;
use plyfs_tests::fsx::Mapping;
use rustix::fs::XattrFlags;

use super::both;
use crate::support::{agree, names, on_plyfs, read};

/// What can be done by descriptor, on a file that has no name any more.
fn everything_by_descriptor(file: &File, links: u64) {
    assert_eq!(file.metadata().unwrap().nlink(), links);
    file.write_all_at(b"nameless", 2).unwrap();
    let mut seen = [0; 10];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"01nameless");
    file.set_len(6).unwrap();
    fallocate(file, FallocateFlags::empty(), 0, 5000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 5000);
    file.set_permissions(fs::Permissions::from_mode(0o4711))
        .unwrap();
    std::os::unix::fs::fchown(file, Some(5), Some(6)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o777, meta.mtime()),
        (5, 6, 0o711, 0)
    );
    rustix::fs::fsetxattr(file, "user.x", b"y", XattrFlags::empty()).unwrap();
    let mut value = [0; 8];
    assert_eq!(
        rustix::fs::fgetxattr(file, "user.x", &mut value).unwrap(),
        1
    );
    rustix::fs::fremovexattr(file, "user.x").unwrap();
    let map = Mapping::writable(file, 4096).unwrap();
    map.write(100, b"mapped").unwrap();
    file.sync_all().unwrap();
    let mut seen = [0; 6];
    file.read_exact_at(&mut seen, 100).unwrap();
    assert_eq!(&seen, b"mapped");
}

#[test]
fn a_new_file_works_on_without_its_name() {
    agree(&["d d"], |m| {
        fs::write(m.join("d/f"), "0123456789").unwrap();
        let file = both(m.join("d/f"));
        fs::remove_file(m.join("d/f")).unwrap();
        everything_by_descriptor(&file, 0);
        // Without any name left there is nothing to give another to.
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let linked = linkat(
            AT_FDCWD,
            link.as_str(),
            AT_FDCWD,
            &m.join("again"),
            AtFlags::AT_SYMLINK_FOLLOW,
        );
        assert_eq!(linked, Err(Errno::ENOENT));
        assert_eq!(names(m.join("d")), [""; 0]);
    });
}

/// The kernel counts one link, and refuses to change attributes.
#[test]
fn a_lower_file_works_on_without_its_name() {
    on_plyfs(
        &["f d/f = 0123456789\nf d/g = 0123456789"],
        "",
        |stack, m| {
            let (file, other) = (both(m.join("d/f")), both(m.join("d/g")));
            fs::remove_file(m.join("d/f")).unwrap();
            everything_by_descriptor(&file, 0);
            // Copied up first, then unlinked.
            other.write_all_at(b"0", 0).unwrap();
            fs::remove_file(m.join("d/g")).unwrap();
            everything_by_descriptor(&other, 0);
            assert_eq!(names(m.join("d")), [""; 0]);
            assert_eq!(read(stack.lower(0).join("d/f")), "0123456789");
            drop((file, other));
            assert_eq!(
                names(stack.upper().join("d")),
                ["f", "g"],
                "whiteouts alone"
            );
        },
    );
}

#[test]
fn an_open_file_is_given_another_name() {
    agree(&["f lower = 0123456789\nd d"], |m| {
        fs::write(m.join("new"), "new").unwrap();
        for name in ["lower", "new"] {
            let file = File::open(m.join(name)).unwrap();
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            let to = m.join("d").join(name);
            linkat(
                AT_FDCWD,
                link.as_str(),
                AT_FDCWD,
                &to,
                AtFlags::AT_SYMLINK_FOLLOW,
            )
            .unwrap();
            assert_eq!(
                fs::metadata(&to).unwrap().ino(),
                fs::metadata(m.join(name)).unwrap().ino()
            );
            assert_eq!(fs::metadata(&to).unwrap().nlink(), 2);
        }
    });
}

#[test]
fn a_removed_directory_is_empty_and_stays_so() {
    agree(&["d lower/dir", "d lower/dir"], |m| {
        fs::create_dir(m.join("new")).unwrap();
        for name in ["lower/dir", "new"] {
            let dir = File::open(m.join(name)).unwrap();
            fs::remove_dir(m.join(name)).unwrap();
            let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
            let made = openat(&dir, "f", flags, Mode::from_bits_truncate(0o600));
            assert_eq!(made.err(), Some(Errno::ENOENT), "{name}");
            let own = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()));
            assert_eq!(own.map_or(0, Iterator::count), 0, "{name}");
        }
    });
}

/// The released fuser does not know the request, so a program falls back to a named file.
#[test]
fn unnamed_temporary_files_are_refused_clearly() {
    on_plyfs(&["d d"], "", |_, m| {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
        let made = open(&m.join("d"), flags, Mode::from_bits_truncate(0o600));
        assert_eq!(made.err(), Some(Errno::EOPNOTSUPP));
        let fallback = tempfile::tempfile_in(m.join("d")).unwrap();
        fallback.write_all_at(b"works", 0).unwrap();
        assert_eq!(names(m.join("d")), [""; 0]);
    });
}

/// The same for the time of birth: the field is not there, rather than wrong.
#[test]
fn statx_has_no_birth_time() {
    on_plyfs(&["f f = 1"], "", |_, m| {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        let asked = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = statx(CWD, m.join("f"), AtFlags::empty(), asked).unwrap();
        let mask = StatxFlags::from_bits_retain(found.stx_mask);
        assert!(mask.contains(StatxFlags::BASIC_STATS) && !mask.contains(StatxFlags::BTIME));
    });
}
