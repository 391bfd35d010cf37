//! `data=passthrough`: what is its own about it. That no lower is written and that it does what the
//! kernel does is tested beside the other data path, in `never_written`, `judge`, `suites` and `support`.
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use plyfs_testkit::{
    Mounted, Stack, bin, mount_kernel, mount_plyfs, need, need_fuse, need_overlay,
    need_passthrough, wait_until,
};
use plyfs_tests::fsx::Mapping;
use serde_json::Value;

use crate::support::{as_user, errno, on_plyfs, read, run};

const MODE: &str = "data=passthrough";

fn writer(path: impl AsRef<Path>) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// What `plyfs status` says of a mount.
fn status(mounted: &Mounted) -> Value {
    let path = mounted.path().to_str().unwrap();
    let said = run(
        Path::new("/"),
        bin().to_str().unwrap(),
        &["status", "--json", path],
    );
    serde_json::from_str(&said).unwrap()
}

fn opens(mounted: &Mounted, what: &str) -> u64 {
    status(mounted)["opens"][what].as_u64().unwrap()
}

/// The last close is told after the fact.
fn wait_until_closed(mounted: &Mounted) {
    wait_until("all is closed", || opens(mounted, "opens") == 0);
    assert_eq!((opens(mounted, "passed"), opens(mounted, "served")), (0, 0));
}

#[test]
fn what_is_written_shows_at_once_to_all() {
    need_passthrough!();
    on_plyfs(&["f f = lower"], MODE, |stack, m| {
        let path = m.join("f");
        let one = OpenOptions::new().append(true).open(&path).unwrap();
        let two = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().mtime(),
            fs::metadata(stack.upper().join("f")).unwrap().mtime()
        );
        std::thread::scope(|scope| {
            for mut file in [&one, &two] {
                scope.spawn(move || (0..500).for_each(|_| file.write_all(b"0123456789").unwrap()));
            }
        });
        let now = fs::metadata(&path).unwrap();
        assert_eq!(now.len(), 5 + 2 * 500 * 10);
        assert_eq!(one.metadata().unwrap().len(), now.len());
        let disk = fs::metadata(stack.upper().join("f")).unwrap();
        let facts = |m: &fs::Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime_nsec());
        assert_eq!(facts(&now), facts(&disk), "nothing is held back");
        drop((one, two));
        wait_until_closed(m);
    });
}

#[test]
fn a_mapping_moves_the_times() {
    need_passthrough!();
    on_plyfs(&["f f = 0123456789"], MODE, |stack, m| {
        let path = m.join("f");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.unwrap();
        let map = Mapping::writable(&file, 10).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime(), 0);
        drop(file);
        map.write(0, b"mapped").unwrap();
        let disk = fs::metadata(stack.upper().join("f")).unwrap();
        let seen = fs::metadata(&path).unwrap();
        assert_eq!(seen.mtime(), disk.mtime());
        assert_eq!(seen.mtime_nsec(), disk.mtime_nsec());
        drop(map);
        assert_eq!(read(&path), "mapped6789");
    });
}

#[test]
fn an_open_that_cuts_copies_nothing_and_a_reader_copies_nothing() {
    need_passthrough!();
    on_plyfs(&["f f = 0123456789\nf g = 0123456789"], MODE, |_, m| {
        drop(File::open(m.join("g")).unwrap());
        drop(File::create(m.join("f")).unwrap());
        assert_eq!(read(m.join("f")), "");
        assert_eq!(status(m)["copy_ups"]["bytes"], 0);
        drop(writer(m.join("g")));
        assert_eq!(status(m)["copy_ups"]["bytes"], 10, "as in the kernel");
    });
}

#[test]
fn writes_of_others_take_suid_off() {
    need_passthrough!();
    on_plyfs(
        &["f f = 1\nm 6777 f\nf g = 1\nm 4777 g"],
        MODE,
        |stack, m| {
            let (ok, said) = as_user(m.path(), "echo more >>f");
            assert!(ok, "{said}");
            assert_eq!(read(m.join("f")), "1more\n");
            assert_eq!(
                (mode(m.join("f")), mode(stack.upper().join("f"))),
                (0o777, 0o777)
            );
            writer(m.join("g")).write_all(b"2").unwrap();
            assert_eq!(mode(m.join("g")), 0o4777, "root keeps it");
            // It came after the open, so that the kernel writes without asking.
            chown(m.join("f"), Some(1000), Some(1000)).unwrap();
            let script =
                "exec 3>>f; chmod 4755 f; stat -c %a f; echo last >&3; stat -c %a f; test -u f";
            let (ok, said) = as_user(m.path(), script);
            assert!(!ok && said == "4755\n755\n", "{said}");
            assert_eq!(mode(stack.upper().join("f")), 0o755);
        },
    );
}

#[test]
fn capabilities_go_with_a_write() {
    need_passthrough!();
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    on_plyfs(&["f f = 1"], MODE, |_, m| {
        let path = m.join("f");
        let name = "security.capability";
        xattr::set(&path, name, capability).unwrap();
        let file = writer(&path);
        assert!(
            xattr::get(&path, name).unwrap().is_some(),
            "an open changes nothing"
        );
        (&file).write_all(b"2").unwrap();
        assert_eq!(xattr::get(&path, name).unwrap(), None);
        xattr::set(&path, name, capability).unwrap();
        (&file).write_all(b"3").unwrap();
        assert_eq!(
            xattr::get(&path, name).unwrap(),
            None,
            "also when set in between"
        );
    });
}

#[test]
fn who_has_no_room_is_told_by_the_write() {
    need_passthrough!();
    let stack = Stack::planted(&["f f = lower"]);
    let (none, kind) = (MsFlags::empty(), Some("tmpfs"));
    let small = stack.dir().join("small");
    fs::create_dir(&small).unwrap();
    mount(kind, &small, kind, none, Some("size=2M,mode=755")).unwrap();
    for dir in ["upper", "work"] {
        fs::create_dir(small.join(dir)).unwrap();
        fs::remove_dir(stack.dir().join(dir)).unwrap();
        std::os::unix::fs::symlink(small.join(dir), stack.dir().join(dir)).unwrap();
    }
    let mounted = mount_plyfs(&stack, MODE);
    let mut file = writer(mounted.join("f"));
    let chunk = vec![7; 1 << 20];
    let full = (0..4).find_map(|_| file.write_all(&chunk).err());
    assert_eq!(full.unwrap().raw_os_error(), Some(Errno::ENOSPC as i32));
    file.set_len(0).unwrap();
    drop(file);
    fs::write(mounted.join("f"), "fits").unwrap();
    assert_eq!(read(mounted.join("f")), "fits");
    mounted.unmount();
    umount2(&small, MntFlags::empty()).unwrap();
    stack.assert_lowers_unchanged();
}

#[test]
fn programs_run_and_are_busy_meanwhile() {
    need_passthrough!();
    let stack = Stack::new(1);
    fs::copy("/bin/sleep", stack.lower(0).join("sleep")).unwrap();
    let stack = stack.sealed();
    let mounted = mount_plyfs(&stack, MODE);
    let path = mounted.join("sleep");
    let busy = |open: fn(&Path) -> std::io::Result<File>| {
        let mut child = Command::new(&path).arg("1000").spawn().unwrap();
        let result = open(&path).map(drop);
        child.kill().unwrap();
        child.wait().unwrap();
        result
    };
    let write = |path: &Path| OpenOptions::new().write(true).open(path);
    assert_eq!(errno(busy(write)), Errno::ETXTBSY, "a lower program");
    // What docs/semantics.md says: once the copy that chmod made has been opened for reading, it and
    // the running program are two inodes of the kernel.
    let mut child = Command::new(&path).arg("1000").spawn().unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(errno(write(&path)), Errno::ETXTBSY);
    drop(File::open(&path).unwrap());
    drop(write(&path).unwrap());
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(errno(busy(write)), Errno::ETXTBSY, "an upper program");
    let rust_truncates = |path: &Path| File::create(path);
    assert_eq!(errno(busy(rust_truncates)), Errno::ETXTBSY);
    assert!(fs::metadata(&path).unwrap().len() > 1000, "nothing was cut");
    wait_until_closed(&mounted);
    mounted.unmount();
    stack.assert_lowers_unchanged();
}

/// docs/semantics.md: a lock on a descriptor that keeps the lower file is apart from the others.
#[test]
fn locks_before_and_after_copy_up_are_apart() {
    need_passthrough!();
    on_plyfs(&["f f = 1\nf g = 1"], MODE, |_, m| {
        let lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let before = lock(File::open(m.join("f")).unwrap()).unwrap();
        let second = lock(File::open(m.join("f")).unwrap());
        assert_eq!(second.unwrap_err().1, Errno::EWOULDBLOCK);
        assert!(lock(writer(m.join("f"))).is_ok());
        drop(before);
        // Files of the upper have one lock, however they are opened.
        let upper = lock(writer(m.join("g"))).unwrap();
        let reader = lock(File::open(m.join("g")).unwrap());
        assert_eq!(reader.unwrap_err().1, Errno::EWOULDBLOCK);
        drop(upper);
    });
}

#[test]
fn a_descriptor_that_keeps_the_lower_shows_its_size_and_is_read_again() {
    need_passthrough!();
    on_plyfs(&["f f = 0123456789"], MODE, |_, m| {
        let path = m.join("f");
        let old = File::open(&path).unwrap();
        fs::write(&path, "new").unwrap();
        assert_eq!(
            (
                old.metadata().unwrap().len(),
                fs::metadata(&path).unwrap().len()
            ),
            (10, 3)
        );
        assert_eq!(
            old.metadata().unwrap().ino(),
            fs::metadata(&path).unwrap().ino()
        );
        let mut seen = [0; 10];
        old.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"0123456789");
        // Without a name to look up again it can be read, and cannot be written.
        let link = format!("/proc/self/fd/{}", old.as_raw_fd());
        assert_eq!(read(&link), "new");
        assert_eq!(errno(writer_of(&link)), Errno::ESTALE);
        let attr = OpenOptions::new().read(true).open(&path).unwrap();
        old.set_permissions(PermissionsExt::from_mode(0o640))
            .unwrap();
        assert_eq!(
            (mode(&path), attr.metadata().unwrap().mode() & 0o777),
            (0o640, 0o640)
        );
        run(m.path(), "lsattr", &["f"]);
        drop((old, attr));
        wait_until_closed(m);
        assert_eq!(read(&path), "new");
    });
}

fn writer_of(path: &str) -> std::io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

#[test]
fn nothing_stays_registered() {
    need_passthrough!();
    on_plyfs(&["f f = 1\nf d/g = 2"], MODE, |_, m| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..60 {
                        let own = m.join(format!("own{thread}"));
                        fs::write(&own, "x").unwrap();
                        assert_eq!(read(m.join("d/g")), "2");
                        let shared = m.join(format!("shared{}", round % 3));
                        drop(OpenOptions::new().append(true).create(true).open(&shared));
                        let open = File::open(&own).unwrap();
                        fs::remove_file(&own).unwrap();
                        drop(open);
                        drop(fs::rename(&shared, m.join("f")));
                    }
                });
            }
        });
        wait_until_closed(m);
    });
}

/// A file system that stands on two others is as deep as the kernel allows.
#[test]
fn files_that_are_too_deep_are_served() {
    need_overlay!();
    need_passthrough!();
    let first = Stack::planted(&["f f = lower\nf g = lower"]);
    let one = mount_kernel(&first, "");
    let second = stack_on(&one);
    let two = mount_kernel(&second, "");
    let third = stack_on(&two);
    let mounted = mount_plyfs(&third, MODE);
    let (f, g) = (File::open(mounted.join("f")).unwrap(), mounted.join("g"));
    assert_eq!(
        (opens(&mounted, "passed"), opens(&mounted, "served")),
        (0, 1)
    );
    assert_eq!(read(&g), "lower");
    // The upper is on a disk; while the lower file is open its inode stays one that is served.
    let mut write = OpenOptions::new()
        .append(true)
        .open(mounted.join("f"))
        .unwrap();
    write.write_all(b" and more").unwrap();
    assert_eq!(
        (read(mounted.join("f")), f.metadata().unwrap().len()),
        ("lower and more".to_owned(), 14)
    );
    assert_eq!(opens(&mounted, "passed"), 0);
    drop((f, write));
    wait_until_closed(&mounted);
    let _again = File::open(mounted.join("f")).unwrap();
    assert_eq!(opens(&mounted, "passed"), 1);
    drop(_again);
    mounted.unmount();
    two.unmount();
    one.unmount();
    first.assert_lowers_unchanged();
}

/// A stack with a mount as its lower.
fn stack_on(mounted: &Mounted) -> Stack {
    let stack = Stack::new(1);
    fs::remove_dir(stack.lower(0)).unwrap();
    std::os::unix::fs::symlink(mounted.path(), stack.lower(0)).unwrap();
    stack
}

#[test]
fn mounts_stand_on_each_other_as_far_as_the_kernel_allows() {
    need_overlay!();
    need_passthrough!();
    let first = Stack::planted(&["f f = lower"]);
    let one = mount_plyfs(&first, MODE);
    let above = stack_on(&one);
    let by_kernel = mount_kernel(&above, "");
    assert_eq!(read(by_kernel.join("f")), "lower");
    fs::write(by_kernel.join("f"), "kernel").unwrap();
    assert_eq!(read(by_kernel.join("f")), "kernel");
    by_kernel.unmount();
    let above = stack_on(&one);
    let two = mount_plyfs(&above, MODE);
    let open = File::open(two.join("f")).unwrap();
    assert_eq!((opens(&two, "passed"), opens(&one, "passed")), (1, 1));
    drop(open);
    fs::write(two.join("f"), "plyfs").unwrap();
    assert_eq!(
        (read(two.join("f")), read(one.join("f"))),
        ("plyfs".to_owned(), "lower".to_owned())
    );
    two.unmount();
    wait_until_closed(&one);
    one.unmount();
    first.assert_lowers_unchanged();
}

#[test]
fn where_it_cannot_be_had_the_mount_says_so_and_auto_does_without() {
    need_fuse!();
    need!("unshare");
    let stack = Stack::planted(&["f f = lower"]);
    let in_namespace = |data: &str| {
        let script = "\"$PLYFS\" -o \"$OPTIONS\" \"$MNT\" && cat \"$MNT/f\" && umount \"$MNT\"";
        let out = Command::new("unshare")
            .args(["-Urm", "sh", "-c", script])
            .env("PLYFS", bin())
            .env("OPTIONS", stack.options(data))
            .env("MNT", stack.mnt())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.success(), text(&out.stdout), text(&out.stderr))
    };
    assert_eq!(
        in_namespace("data=auto"),
        (true, "lower".to_owned(), String::new())
    );
    let (ok, _, said) = in_namespace(MODE);
    assert!(!ok && said.lines().count() == 1, "{said}");
    assert!(
        said.contains("data=passthrough needs") && said.contains("data=cached"),
        "{said}"
    );
}
