//! Disks below the layers that fail, vanish or hang: only who needs them notices.
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::errno::Errno;
use plyfs_testkit::{Stack, mount_plyfs, need, need_fuse, wait_until};
use plyfs_tests::disk::{Disk, Kind, MountedImage};

use crate::support::{errno, names, read};

/// Longer than anything but a request that nobody serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the blocks that fail have in them.
const MARK: &str = "this block cannot be read\n";

/// A disk with ext4, on which `plant` has put files; nothing of it is in a cache.
fn planted(stack: &Stack, plant: impl Fn(&Path)) -> Disk {
    let (dir, at) = (stack.dir().join("fuse"), stack.dir().join("planting"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&at).unwrap();
    let disk = Disk::new(Kind::Ext4.make(stack.dir()).unwrap(), &dir).unwrap();
    let mounted = disk.mount(Kind::Ext4, &at, "").unwrap();
    fs::remove_dir(at.join("lost+found")).unwrap();
    plant(&at);
    drop(mounted);
    disk
}

fn mount_at(disk: &Disk, place: &Path, options: &str) -> MountedImage {
    disk.mount(Kind::Ext4, place, options).unwrap()
}

/// Appends and syncs: the error, if either fails.
fn append(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(b"more")?;
    file.sync_all()
}

#[test]
fn what_cannot_be_read_fails_alone_and_is_not_copied_up() {
    need_fuse!();
    need!("mkfs.ext4");
    for options in ["", "metacopy=on", "data=passthrough"] {
        let stack = Stack::new(1);
        let disk = planted(&stack, |at| {
            fs::create_dir(at.join("d")).unwrap();
            fs::write(at.join("d/bad"), MARK.repeat(2000)).unwrap();
            fs::write(at.join("d/good"), "good").unwrap();
            fs::write(at.join("other"), "other").unwrap();
        });
        assert!(disk.break_blocks_with(&MARK.as_bytes()[..10]) > 5);
        let lower = mount_at(&disk, stack.lower(0), ",ro");
        let m = mount_plyfs(&stack, options);
        let bad = m.join("d/bad");
        assert_eq!(errno(fs::read(&bad)), Errno::EIO, "{options}");
        assert_eq!(fs::metadata(&bad).unwrap().len(), MARK.len() as u64 * 2000);
        assert_eq!(read(m.join("d/good")), "good");
        assert_eq!(errno(append(&bad)), Errno::EIO, "{options}");
        // No half of it comes to be in the upper; its attributes alone may be there.
        let copied = stack.upper().join("d/bad").exists();
        assert!(!copied || options == "metacopy=on", "{options}");
        append(&m.join("d/good")).unwrap();
        fs::write(m.join("d/new"), "new").unwrap();
        fs::rename(m.join("other"), m.join("d/moved")).unwrap();
        assert_eq!(read(m.join("d/good")), "goodmore");
        assert_eq!(read(m.join("d/moved")), "other");
        // A disk that can be read again is read again.
        disk.set_gone(false);
        assert_eq!(read(&bad), MARK.repeat(2000), "{options}");
        append(&bad).unwrap();
        assert_eq!(read(&bad), MARK.repeat(2000) + "more");
        m.unmount();
        assert_eq!(names(stack.work().join("work")), Vec::<String>::new());
        drop(lower);
    }
}

#[test]
fn a_lower_that_vanishes_takes_only_its_own_files_along() {
    need_fuse!();
    need!("mkfs.ext4");
    let stack = Stack::new(2);
    for dir in ["own", "both"] {
        fs::create_dir(stack.lower(0).join(dir)).unwrap();
        fs::write(stack.lower(0).join(dir).join("here"), "here").unwrap();
    }
    let content = |i: usize| format!("{i} is on the disk\n").repeat(500);
    let disk = planted(&stack, |at| {
        fs::create_dir(at.join("both")).unwrap();
        fs::create_dir(at.join("far")).unwrap();
        for i in 0..40 {
            fs::write(at.join(format!("far/f{i}")), content(i)).unwrap();
        }
        fs::write(at.join("both/there"), "there").unwrap();
    });
    let lower = mount_at(&disk, stack.lower(1), ",ro");
    let m = mount_plyfs(&stack, "");
    assert_eq!(names(m.path()), ["both", "far", "own"]);
    assert_eq!(names(m.join("both")), ["here", "there"]);
    disk.set_gone(true);
    let failed = (0..40)
        .filter(|i| match fs::read_to_string(m.join(format!("far/f{i}"))) {
            Ok(text) => {
                assert_eq!(text, content(*i));
                false
            }
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EIO));
                true
            }
        })
        .count();
    assert!(failed > 0, "nothing was read from the disk");
    for dir in ["own", "both"] {
        assert_eq!(read(m.join(dir).join("here")), "here");
        append(&m.join(dir).join("here")).unwrap();
        fs::write(m.join(dir).join("new"), "new").unwrap();
    }
    fs::create_dir(m.join("made")).unwrap();
    fs::remove_file(m.join("both/there")).unwrap();
    disk.set_gone(false);
    for i in 0..40 {
        assert_eq!(read(m.join(format!("far/f{i}"))), content(i));
    }
    assert_eq!(names(m.join("both")), ["here", "new"]);
    m.unmount();
    drop(lower);
}

#[test]
fn a_stuck_disk_holds_up_only_those_who_write_to_it() {
    need_fuse!();
    need!("mkfs.ext4");
    let stack = Stack::new(1);
    fs::create_dir(stack.lower(0).join("d")).unwrap();
    for i in 0..500 {
        fs::write(stack.lower(0).join(format!("d/f{i}")), "lower").unwrap();
    }
    let disk = planted(&stack, |at| {
        fs::create_dir(at.join("upper")).unwrap();
        fs::create_dir(at.join("work")).unwrap();
    });
    let at = stack.dir().join("planting");
    let upper = mount_at(&disk, &at, "");
    for (name, place) in [("upper", stack.upper()), ("work", stack.work())] {
        fs::remove_dir(&place).unwrap();
        std::os::unix::fs::symlink(at.join(name), place).unwrap();
    }
    let m = mount_plyfs(&stack, "");
    assert_eq!(names(m.join("d")).len(), 500);
    let mut file = File::create(m.join("written")).unwrap();
    file.sync_all().unwrap();
    disk.set_stuck(true);
    let writer = std::thread::spawn(move || {
        file.write_all(b"written").unwrap();
        file.sync_all()
    });
    wait_until("the disk is stuck", || disk.waiting() > 0);
    let (done, finished) = channel();
    let dir = m.join("d");
    let reader = std::thread::spawn(move || {
        for i in 0..500 {
            assert_eq!(read(dir.join(format!("f{i}"))), "lower");
        }
        done.send(()).unwrap();
    });
    let served = finished.recv_timeout(PATIENCE);
    let hung = !writer.is_finished();
    disk.set_stuck(false);
    assert!(served.is_ok(), "nobody served while the disk was stuck");
    assert!(hung, "the disk was not stuck, so nothing was shown");
    reader.join().unwrap();
    writer.join().unwrap().unwrap();
    m.unmount();
    drop(upper);
}
