//! What docs/semantics.md says to differ from kernel overlayfs: each line there has a test that pins it.
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Uid, setfsuid};
use plyfs_testkit::{Stack, mount_kernel, mount_plyfs, need, need_fuse};
use rustix::fs::{IFlags, ioctl_setflags};

use crate::copy_up_faults::backing::Backing;
use crate::support::{errno, names, on_plyfs, read, run};

/// How a line of the table begins, and the test of it.
const PINS: &[(&str, &str)] = &[
    (
        "opening a lower file for writing",
        "opening_for_writing_copies_nothing_until_it_is_written",
    ),
    (
        "a lower hard link opened",
        "links_of_the_lower_are_one_file_until_they_are_changed",
    ),
    (
        "data seen through a descriptor",
        "a_reader_from_before_sees_what_is_written",
    ),
    (
        "`fstat` of an unlinked lower",
        "a_lower_file_works_on_without_its_name",
    ),
    (
        "changing attributes through",
        "a_lower_file_works_on_without_its_name",
    ),
    (
        "whiteouts in a directory that merges",
        "whiteouts_that_hide_nothing_do_not_show",
    ),
    (
        "`truncate(path, n)`",
        "truncating_to_the_same_size_sets_the_time_by_descriptor",
    ),
    ("no room for the copy", "close_says_that_there_is_no_room"),
    ("`st_ctime`", "the_change_time_only_moves_forward"),
    (
        "`chown(file, -1, -1)`",
        "a_change_of_owner_to_nobody_is_no_change",
    ),
    (
        "`open` for writing of a file with the immutable",
        "a_protected_file_opens_and_takes_nothing",
    ),
    (
        "a descriptor opened for writing before",
        "a_writer_from_before_protection_writes_no_more",
    ),
    (
        "`copy_file_range`",
        "ranges_are_copied_between_file_systems",
    ),
    (
        "order of `readdir`",
        "the_order_of_a_listing_survives_a_remount",
    ),
    ("`rename(RENAME_WHITEOUT)`", "rename_whiteout_is_refused"),
    ("`st_dev`", "one_mount_is_one_device"),
    (
        "access time of upper files",
        "cached_reads_leave_the_access_time",
    ),
    (
        "link of a metacopy file",
        "a_metacopy_with_two_names_has_its_data",
    ),
    (
        "the first write to a metacopy",
        "opening_a_metacopy_leaves_its_time",
    ),
    (
        "a link or rename of a metacopy",
        "a_metacopy_moves_however_long_its_path",
    ),
    (
        "a name made in a directory while",
        "the_kernel_with_threads_agrees_with_itself",
    ),
    (
        "setting the modification time that",
        "the_time_that_a_file_has_copies_nothing_up",
    ),
    (
        "setting the modification time alone",
        "an_append_only_file_takes_a_time",
    ),
    (
        "a rename onto a directory",
        "a_rename_that_fails_on_ext4_changes_nothing",
    ),
    (
        "links of a lower symlink",
        "links_of_symlinks_show_one_number_with_userxattr",
    ),
    (
        "xattr whiteouts",
        "xattr_whiteouts_count_where_the_layer_announces_them",
    ),
    (
        "`rmdir` of a directory whose last",
        "a_directory_with_nothing_but_whiteouts_is_empty",
    ),
    ("`chattr` on a fifo", "flags_of_a_fifo_are_its_owners"),
    (
        "a file whose last name was removed",
        "a_lower_file_works_on_without_its_name",
    ),
    ("`nfs_export`, `verity`", "options_that_do_nothing_say_so"),
];

fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &read(path);
        }
    }
    text
}

#[test]
fn every_known_difference_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = read(root.join("docs/semantics.md"));
    let table = page
        .split("## Where plyfs differs from kernel overlayfs")
        .nth(1);
    let table = table.unwrap().split("\n## ").next().unwrap();
    let rows: Vec<_> = table
        .lines()
        .filter_map(|l| l.strip_prefix("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in &rows {
        assert!(
            PINS.iter().any(|(begin, _)| row.starts_with(begin)),
            "no test: {row}"
        );
    }
    let code = sources(&root.join("tests/it")) + &sources(&root.join("crates/plyfs-union/tests"));
    for (begin, test) in PINS {
        assert!(
            rows.iter().any(|row| row.starts_with(begin)),
            "no such line: {begin}"
        );
        assert!(
            code.contains(&format!("fn {test}()")),
            "no such test: {test}"
        );
    }
}

fn writer(path: impl AsRef<Path>) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn whiteouts_that_hide_nothing_do_not_show() {
    on_plyfs(&["w d/x\nf d/y"], "", |_, m| {
        assert_eq!(names(m.join("d")), ["y"]);
        fs::remove_file(m.join("d/y")).unwrap();
        fs::remove_dir(m.join("d")).unwrap();
    });
}

#[test]
fn the_change_time_only_moves_forward() {
    need_fuse!();
    let stack = Stack::planted(&["f f = 1"]);
    let m = mount_plyfs(&stack, "");
    writer(m.join("f")).write_all(b"2").unwrap();
    let ctime = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    let before = ctime(&m.join("f"));
    m.unmount();
    let m = mount_plyfs(&stack, "");
    assert!(ctime(&m.join("f")) >= before);
}

/// As another user, who keeps the capabilities that do not go by the user.
fn as_fsuid<T>(uid: u32, work: impl FnOnce() -> T) -> T {
    let before = setfsuid(Uid::from_raw(uid));
    let done = work();
    setfsuid(before);
    done
}

#[test]
fn a_change_of_owner_to_nobody_is_no_change() {
    on_plyfs(&["f f\nm 2755 f"], "", |_, m| {
        let path = m.join("f");
        as_fsuid(1000, || std::os::unix::fs::chown(&path, None, None)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2755);
    });
}

#[test]
fn a_protected_file_opens_and_takes_nothing() {
    on_plyfs(&["f f = data"], "", |_, m| {
        run(m.path(), "chattr", &["+i", "f"]);
        let mut file = writer(m.join("f"));
        file.write_all(b"more").unwrap();
        assert_eq!(errno(file.sync_all()), Errno::EPERM);
        drop(file);
        run(m.path(), "chattr", &["-i", "f"]);
    });
    on_plyfs(&["f f = data"], "writeback=0", |_, m| {
        run(m.path(), "chattr", &["+i", "f"]);
        assert_eq!(errno(writer(m.join("f")).write_all(b"more")), Errno::EPERM);
        assert_eq!(read(m.join("f")), "data");
        run(m.path(), "chattr", &["-i", "f"]);
    });
}

#[test]
fn an_append_only_file_takes_a_time() {
    on_plyfs(&["f f = data"], "", |_, m| {
        run(m.path(), "chattr", &["+a", "f"]);
        let file = File::open(m.join("f")).unwrap();
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        file.set_times(times).unwrap();
        assert_eq!(file.metadata().unwrap().mtime(), 0);
        let both = times.set_accessed(UNIX_EPOCH);
        assert_eq!(errno(file.set_times(both)), Errno::EPERM);
        run(m.path(), "chattr", &["-a", "f"]);
    });
}

#[test]
fn a_rename_that_fails_on_ext4_changes_nothing() {
    need_fuse!();
    need!("mkfs.ext4");
    for kernel in [true, false] {
        let stack = Stack::planted(&["d old"]);
        let _ext4 = Backing::image(&stack, "ext4", "16M", &[], "defaults").take_upper(&stack);
        fs::create_dir_all(stack.upper().join("new/full")).unwrap();
        let before = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::open(stack.upper())
            .and_then(|dir| dir.set_modified(before))
            .unwrap();
        let options = "redirect_dir=on";
        let m = if kernel {
            mount_kernel(&stack, options)
        } else {
            mount_plyfs(&stack, options)
        };
        let failed = fs::rename(m.join("old"), m.join("new"));
        assert_eq!(errno(failed), Errno::ENOTEMPTY);
        let after = fs::metadata(m.path()).unwrap().modified().unwrap();
        assert_eq!(after != before, kernel);
    }
}

#[test]
fn a_writer_from_before_protection_writes_no_more() {
    need_fuse!();
    let stack = Stack::planted(&["f f = data"]);
    let m = mount_plyfs(&stack, "");
    let mut file = OpenOptions::new().append(true).open(m.join("f")).unwrap();
    file.write_all(b" early").unwrap();
    run(m.path(), "chattr", &["+i", "f"]);
    file.write_all(b" late").unwrap();
    assert_eq!(errno(file.sync_all()), Errno::EPERM);
    drop(file);
    m.unmount();
    let m = mount_plyfs(&stack, "");
    assert_eq!(read(m.join("f")), "data early");
    run(m.path(), "chattr", &["-i", "f"]);
}

#[test]
fn ranges_are_copied_between_file_systems() {
    need_fuse!();
    let stack = Stack::new(2);
    let (none, tmpfs) = (None::<&str>, Some("tmpfs"));
    mount(none, stack.lower(0), tmpfs, MsFlags::empty(), none).unwrap();
    fs::write(stack.lower(0).join("a"), "from").unwrap();
    fs::write(stack.lower(1).join("b"), "1234").unwrap();
    let m = mount_plyfs(&stack, "");
    let (from, to) = (File::open(m.join("a")).unwrap(), writer(m.join("b")));
    assert_eq!(copy_file_range(from, None, to, None, 4), Ok(4));
    assert_eq!(read(m.join("b")), "from");
    m.unmount();
    umount2(stack.lower(0), MntFlags::empty()).unwrap();
}

#[test]
fn the_order_of_a_listing_survives_a_remount() {
    need_fuse!();
    let lower: String = (0..50).map(|i| format!("f d/{i}\n")).collect();
    let stack = Stack::planted(&[&lower]);
    let order = |dir: &Path| -> Vec<_> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let m = mount_plyfs(&stack, "");
    (50..80).for_each(|i| fs::write(m.join(format!("d/{i}")), "").unwrap());
    let before = order(&m.join("d"));
    m.unmount();
    let m = mount_plyfs(&stack, "");
    assert_eq!(order(&m.join("d")), before);
}

#[test]
fn cached_reads_leave_the_access_time() {
    on_plyfs(&[""], "", |_, m| {
        fs::write(m.join("f"), "data").unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1000);
        let times = FileTimes::new().set_accessed(old);
        writer(m.join("f")).set_times(times).unwrap();
        assert_eq!(read(m.join("f")), "data");
        assert_eq!(fs::metadata(m.join("f")).unwrap().accessed().unwrap(), old);
    });
}

const META: &str = "metacopy=on,redirect_dir=on";

fn chmod(path: impl AsRef<Path>) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn is_metacopy(path: impl AsRef<Path>) -> bool {
    xattr::get(path, "trusted.overlay.metacopy")
        .unwrap()
        .is_some()
}

#[test]
fn a_metacopy_with_two_names_has_its_data() {
    on_plyfs(&["f f = lower"], META, |stack, m| {
        chmod(m.join("f"));
        assert!(is_metacopy(stack.upper().join("f")));
        fs::hard_link(m.join("f"), m.join("g")).unwrap();
        assert!(!is_metacopy(stack.upper().join("f")));
        assert_eq!(
            (read(m.join("f")), read(m.join("g"))),
            ("lower".into(), "lower".into())
        );
    });
}

#[test]
fn opening_a_metacopy_leaves_its_time() {
    on_plyfs(&["f f = lower"], META, |_, m| {
        chmod(m.join("f"));
        let mtime = || fs::metadata(m.join("f")).unwrap().modified().unwrap();
        let before = mtime();
        let file = writer(m.join("f"));
        assert_eq!(mtime(), before);
        file.write_all_at(b"L", 0).unwrap();
        drop(file);
        assert_ne!(mtime(), before);
        assert_eq!(read(m.join("f")), "Lower");
    });
}

#[test]
fn a_metacopy_moves_however_long_its_path() {
    let long = "n".repeat(200);
    on_plyfs(
        &[&format!("f {long}/{long}/f = lower\nf g = g")],
        META,
        |stack, m| {
            let from = m.join(&long).join(&long).join("f");
            chmod(&from);
            fs::rename(&from, m.join("moved")).unwrap();
            assert!(!is_metacopy(stack.upper().join("moved")));
            assert_eq!(read(m.join("moved")), "lower");
        },
    );
}

#[test]
fn the_time_that_a_file_has_copies_nothing_up() {
    on_plyfs(&["f f = 1"], "", |stack, m| {
        let mtime = fs::metadata(m.join("f")).unwrap().modified().unwrap();
        File::open(m.join("f"))
            .unwrap()
            .set_modified(mtime)
            .unwrap();
        assert!(!stack.upper().join("f").exists());
    });
}

#[test]
fn links_of_symlinks_show_one_number_with_userxattr() {
    on_plyfs(&["l l -> target"], "userxattr", |_, m| {
        fs::hard_link(m.join("l"), m.join("l2")).unwrap();
        let ino = |name: &str| fs::symlink_metadata(m.join(name)).unwrap().ino();
        assert_eq!(ino("l"), ino("l2"));
    });
}

#[test]
fn flags_of_a_fifo_are_its_owners() {
    on_plyfs(&["p p\nm 666 p"], "", |_, m| {
        let fifo = OpenOptions::new().read(true).write(true).open(m.join("p"));
        let fifo = fifo.unwrap();
        let set = as_fsuid(1000, || {
            // Who may act for any owner is asked for the type.
            ioctl_setflags(&fifo, IFlags::APPEND)
        });
        assert_eq!(
            set.map_err(|e| Errno::from_raw(e.raw_os_error())),
            Err(Errno::EPERM)
        );
    });
}

#[test]
fn options_that_do_nothing_say_so() {
    on_plyfs(&["f f = 1"], "nfs_export=on,verity=on", |_, m| {
        assert_eq!(read(m.join("f")), "1");
        for option in ["nfs_export", "verity"] {
            assert!(m.log().contains(option), "{}", m.log());
        }
    });
}
