use std::thread;

use super::*;

/// In a thread of its own, which alone has the filter.
fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let run = move || {
        super::super::no_new_privileges().unwrap();
        assert!(allow_only_listed(Denied::Fails).unwrap() > 100);
        work()
    };
    thread::spawn(run).join().unwrap()
}

fn errno(rc: libc::c_long) -> Errno {
    Errno::result(rc).expect_err("the call was made")
}

#[test]
fn calls_that_are_not_listed_are_not_there() {
    confined(|| {
        let none = std::ptr::null::<u8>();
        // SAFETY: each call is refused before it does anything; should one be made, its
        // arguments are invalid.
        unsafe {
            for call in [
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_execve,
                libc::SYS_ptrace,
                libc::SYS_mount,
                libc::SYS_umount2,
                libc::SYS_setns,
                libc::SYS_bpf,
                libc::SYS_keyctl,
                libc::SYS_clone3,
                libc::SYS_setuid,
                libc::SYS_process_vm_writev,
                libc::SYS_io_uring_setup,
            ] {
                let rc = libc::syscall(call, -1, none, none, none, none, none);
                assert_eq!(errno(rc), Errno::ENOSYS, "{call}");
            }
        }
    });
}

#[test]
fn conditions_hold() {
    confined(|| {
        let page = 4096;
        // SAFETY: new anonymous memory; signal 0 only asks; the ioctl is refused.
        unsafe {
            let map = |prot| libc::mmap(std::ptr::null_mut(), page, prot, 0x22, -1, 0);
            assert_eq!(map(libc::PROT_READ | libc::PROT_EXEC), libc::MAP_FAILED);
            let memory = map(libc::PROT_READ);
            assert_ne!(memory, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(memory, page, libc::PROT_EXEC), -1);
            assert_eq!(libc::munmap(memory, page), 0);
            assert_eq!(libc::kill(libc::getpid(), 0), 0);
            assert_eq!(errno(libc::kill(libc::getppid(), 0).into()), Errno::ENOSYS);
            assert_eq!(libc::unshare(libc::CLONE_FS), 0);
            let rc = libc::unshare(libc::CLONE_NEWNS);
            assert_eq!(errno(rc.into()), Errno::ENOSYS);
            let rc = libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr());
            assert_eq!(errno(rc.into()), Errno::ENOSYS);
            let rc = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
            assert_eq!(errno(rc), Errno::ENOSYS);
        }
    });
}

#[test]
fn what_a_daemon_does_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    confined(move || {
        std::fs::write(path.join("a"), "a").unwrap();
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1);
        assert!(crate::peer::look_up(std::process::id()).is_some());
        assert!(crate::usage::of_this_process().descriptors > Some(2));
        // Threads inherit the filter and can be made.
        thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(1)))
            .join()
            .unwrap();
        assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
    });
}
