//! Processes that share one table of descriptors: what one has opened outlives it.
//!
//! A descriptor that a dead process has opened keeps its number. Whoever takes over claims those
//! it knows the meaning of and closes the others.
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::check;
use crate::error::{Errno, Result, SysError};
use crate::process::thread_count;

/// A process that shares its descriptors with this one.
#[derive(Debug)]
pub struct Twin(Pid);

/// On which side of a [`split`] the caller is.
#[derive(Debug)]
pub enum Side {
    /// The process that called.
    Parent(Twin),
    /// The new process.
    Child,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Killed(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(known) => write!(f, "{known}"),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// Splits the process in two that share their table of descriptors and nothing else.
///
/// # Errors
/// EBUSY when the process has more than one thread, otherwise what `clone(2)` answers.
pub fn split() -> Result<Side> {
    if thread_count().is_some_and(|n| n > 1) {
        return Err(SysError::new("clone", Errno::EBUSY));
    }
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack this is fork(2) but for the shared descriptors. No
    // other thread exists, so no lock can be held by a thread that is not copied, and the C
    // library has nothing to prepare: its fork handlers only take and give back such locks.
    let rc = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match Errno::result(rc).map_err(|e| SysError::new("clone", e))? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(Twin(Pid::from_raw(
            i32::try_from(pid).unwrap_or(i32::MAX),
        )))),
    }
}

impl Twin {
    /// Waits for the end of the process.
    ///
    /// # Errors
    /// ECHILD when somebody else has already waited for it.
    pub fn wait(&self) -> Result<End> {
        loop {
            match waitpid(self.0, None) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(End::Exited(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(End::Killed(signal as i32)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(SysError::new("waitpid", e)),
            }
        }
    }

    /// Whether it has ended. Answers so each time.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(
            waitpid(self.0, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
        )
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.as_raw()
    }
}

/// The descriptors that a dead process has left in the table of this one.
#[derive(Debug)]
pub struct Left(BTreeSet<RawFd>);

impl Left {
    /// All that are open now but for the standard ones, in a process that has just begun with what
    /// another has left. To be called before the process opens any further.
    ///
    /// # Errors
    /// ENOENT without /proc, EMFILE.
    pub fn all() -> Result<Self> {
        Self::since(&BTreeSet::from([0, 1, 2]))
    }

    /// The numbers that nobody has taken.
    #[must_use]
    pub fn numbers(&self) -> &BTreeSet<i32> {
        &self.0
    }

    /// All that are open now and are none of `before`, which belong to this process. To be called
    /// before the process opens any further.
    ///
    /// # Errors
    /// ENOENT without /proc, EMFILE.
    pub fn since(before: &BTreeSet<i32>) -> Result<Self> {
        Ok(Self(open_now()?.difference(before).copied().collect()))
    }

    /// Takes over one descriptor by its number. Nobody else gets it then.
    ///
    /// # Errors
    /// EBADF where nothing was left under the number, or somebody took it already.
    pub fn take(&mut self, number: i32) -> Result<OwnedFd> {
        if !self.0.remove(&number) {
            return Err(SysError::new("take over descriptor", Errno::EBADF));
        }
        // SAFETY: it was open and belonged to a process that is dead; no value of this process
        // owns it, as those were struck off the list, and it is struck off now.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Closes what nobody has taken, standard descriptors excepted. Answers how many.
    pub fn close_rest(self) -> usize {
        let rest = self.0.into_iter().filter(|fd| *fd > 2);
        rest.map(|fd| {
            // SAFETY: as in `take`.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        })
        .count()
    }
}

/// The numbers of all open descriptors.
///
/// # Errors
/// ENOENT without /proc, EMFILE.
pub fn open_now() -> Result<BTreeSet<i32>> {
    let list = fs::read_dir("/proc/self/fd").map_err(|e| failed(&e))?;
    let listed = list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let listed: BTreeSet<RawFd> = listed.collect();
    // The descriptor of the list itself is closed by now.
    Ok(listed.into_iter().filter(|fd| is_open(*fd)).collect())
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: no memory is touched.
    (unsafe { libc::fcntl(fd, libc::F_GETFD) }) != -1
}

fn failed(e: &std::io::Error) -> SysError {
    let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    SysError::on("list", b"/proc/self/fd", errno)
}

/// Lets the number of `target` mean from now on what `source` is.
///
/// # Errors
/// Practically none.
pub fn replace(target: BorrowedFd<'_>, source: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the owner of `target` keeps the number and closes it once; what it meant is closed.
    let rc = unsafe { libc::dup3(source.as_raw_fd(), target.as_raw_fd(), libc::O_CLOEXEC) };
    check("dup3", b"", rc.min(0))
}

/// From now on the process has a table of its own, with the same in it.
///
/// # Errors
/// EMFILE, ENOMEM.
pub fn part() -> Result<()> {
    unshare(CloneFlags::CLONE_FILES).map_err(|e| SysError::new("unshare", e))
}

/// Has a descriptor stay open in the program that this process becomes.
///
/// # Errors
/// EBADF where there is none.
pub fn hand_on(number: i32) -> Result<()> {
    // SAFETY: no memory is touched; what owns the descriptor is not asked.
    let rc = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    check("fcntl(F_SETFD)", b"", rc)
}

/// The number of a descriptor, to be noted for [`Left::take`].
#[must_use]
pub fn number(fd: &impl std::os::fd::AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}
