//! Locks: of whole files and of ranges, between descriptors and between processes.
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};

use super::both;
use crate::support::{agree, read};

fn range(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

#[test]
fn whole_files_are_locked() {
    agree(&["f new = 1", "f old = 2\nd d"], |m| {
        for name in ["new", "old"] {
            let shared = FlockArg::LockSharedNonblock;
            let one = Flock::lock(both(m.join(name)), shared).unwrap();
            let two = Flock::lock(File::open(m.join(name)).unwrap(), shared).unwrap();
            let third = both(m.join(name));
            let (third, why) = Flock::lock(third, FlockArg::LockExclusiveNonblock).unwrap_err();
            assert_eq!(why, Errno::EWOULDBLOCK);
            two.unlock().unwrap();
            drop(one);
            let third = Flock::lock(third, FlockArg::LockExclusiveNonblock).unwrap();
            // The change copies the file up; the lock is on the file, whatever it is backed by.
            third.write_all_at(b"X", 0).unwrap();
            let (_, why) = Flock::lock(both(m.join(name)), shared).unwrap_err();
            assert_eq!(why, Errno::EWOULDBLOCK, "{name}");
            drop(third);
            Flock::lock(both(m.join(name)), shared).unwrap();
        }
        let dir = Flock::lock(
            File::open(m.join("d")).unwrap(),
            FlockArg::LockExclusiveNonblock,
        );
        let (_, why) = Flock::lock(
            File::open(m.join("d")).unwrap(),
            FlockArg::LockSharedNonblock,
        )
        .unwrap_err();
        assert_eq!(why, Errno::EWOULDBLOCK);
        drop(dir.unwrap());
    });
}

#[test]
fn ranges_are_locked() {
    agree(&["f a = 0123456789"], |m| {
        let (one, two) = (both(m.join("a")), both(m.join("a")));
        let lock = |file: &File, kind, start, len| {
            fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, start, len)))
        };
        lock(&one, libc::F_WRLCK, 0, 5).unwrap();
        lock(&two, libc::F_WRLCK, 5, 5).unwrap();
        assert_eq!(lock(&two, libc::F_RDLCK, 4, 1), Err(Errno::EAGAIN));
        one.write_all_at(b"X", 0).unwrap();
        assert_eq!(
            lock(&two, libc::F_RDLCK, 0, 1),
            Err(Errno::EAGAIN),
            "after copy-up"
        );
        let mut asked = range(libc::F_WRLCK, 0, 0);
        fcntl(&two, FcntlArg::F_OFD_GETLK(&mut asked)).unwrap();
        assert_eq!(libc::c_int::from(asked.l_type), libc::F_WRLCK);
        assert_eq!((asked.l_start, asked.l_len), (0, 5));
        lock(&one, libc::F_UNLCK, 2, 3).unwrap();
        lock(&two, libc::F_RDLCK, 4, 1).unwrap();
        drop(one);
        lock(&two, libc::F_WRLCK, 0, 0).unwrap();
    });
}

#[test]
fn processes_lock_each_other_out() {
    agree(&["f a = 1"], |m| {
        let held = Flock::lock(both(m.join("a")), FlockArg::LockExclusive).unwrap();
        let try_it = || {
            let tried = Command::new("flock")
                .arg("-n")
                .arg(m.join("a"))
                .arg("true")
                .status();
            tried.unwrap().success()
        };
        assert!(!try_it());
        drop(held);
        assert!(try_it());
        // A lock that is waited for comes when the holder goes.
        let mut holder = Command::new("flock")
            .arg(m.join("a"))
            .args(["sh", "-c", "echo held >b; sleep 0.3; echo done >b"])
            .current_dir(m)
            .spawn()
            .unwrap();
        while !fs::read_to_string(m.join("b")).is_ok_and(|text| text == "held\n") {
            std::thread::yield_now();
        }
        drop(Flock::lock(both(m.join("a")), FlockArg::LockExclusive).unwrap());
        assert_eq!(read(m.join("b")), "done\n");
        holder.wait().unwrap();
    });
}
