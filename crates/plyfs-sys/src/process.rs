//! What this process is and becomes: credentials, limits, stop signals, fork and detaching.
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::{check, check_long};
use crate::error::{Errno, Result, SysError};

/// Inode number of the initial user namespace in nsfs (PROC_USER_INIT_INO of proc_ns.h).
const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;
/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// CAP_SYS_ADMIN of linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;

/// Effective user id.
#[must_use]
pub fn euid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Effective group id.
#[must_use]
pub fn egid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// Whether the process lives in the initial user namespace; without /proc the answer is no, which
/// costs abilities but never claims one.
#[must_use]
pub fn in_initial_user_ns() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|m| m.ino() == INITIAL_USER_NS)
}

/// Whether CAP_SYS_ADMIN is effective in the process's own user namespace.
#[must_use]
pub fn has_sys_admin() -> bool {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads the header and writes the two Data elements that `data` has.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check_long("capget", b"", rc).is_ok() && data[0].effective & (1 << CAP_SYS_ADMIN) != 0
}

/// Raises the soft limit of open descriptors to the hard limit; answers the limit now in force.
///
/// # Errors
/// What `getrlimit` and `setrlimit` answer.
pub fn raise_nofile_limit() -> Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: limit is valid for writes of one rlimit.
    check("getrlimit", b"", unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr())
    })?;
    // SAFETY: getrlimit succeeded, so it filled the buffer.
    let mut limit = unsafe { limit.assume_init() };
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: limit is only read.
        check("setrlimit", b"", unsafe {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
        })?;
    }
    Ok(limit.rlim_cur)
}

/// A process made by [`fork`].
#[derive(Debug)]
pub struct Child(Pid);

impl Child {
    /// Waits for the end of the process: its exit status, or 128 + the signal that killed it.
    ///
    /// # Errors
    /// ECHILD when somebody else has already waited for it.
    pub fn wait(&self) -> Result<i32> {
        loop {
            match waitpid(self.0, None) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(SysError::new("waitpid", e)),
            }
        }
    }
}

/// A process made by [`fork_group`], with all that it makes and that stays in its group.
#[derive(Debug)]
pub struct Group(Pid);

impl Group {
    /// Ends all of them and waits for their ends.
    pub fn end(self) {
        // ESRCH: there is none any more.
        nix::sys::signal::killpg(self.0, Signal::SIGKILL).ok();
        let group = Pid::from_raw(-self.0.as_raw());
        // ECHILD: that was the last.
        while !matches!(waitpid(group, None), Err(e) if e != Errno::EINTR) {}
    }
}

/// Splits the process in two; the new one leads a process group, and what it makes becomes the
/// child of the calling one when its parent ends. None is the new one.
///
/// # Errors
/// As [`fork`].
pub fn fork_group() -> Result<Option<Group>> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| SysError::new("prctl", e))?;
    let leads = |pid| nix::unistd::setpgid(pid, pid);
    match fork()? {
        Fork::Parent(Child(pid)) => {
            // Both do it, so that it is done whoever comes first.
            leads(pid).ok();
            Ok(Some(Group(pid)))
        }
        Fork::Child => {
            leads(Pid::from_raw(0)).ok();
            Ok(None)
        }
    }
}

/// Ends the process as a signal would: nothing is dropped and no handler runs.
pub fn end_at_once() -> ! {
    // SAFETY: ends all threads; nothing of this process is used afterwards.
    unsafe { libc::_exit(0) }
}

/// Whether a process is there and has not ended.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name may have anything in it, the state behind it is one letter.
    let behind = line.rsplit(|b| *b == b')').next().unwrap_or_default();
    !matches!(behind.get(1), None | Some(b'Z' | b'X'))
}

/// Waits for the end of the parent process `parent`. For a process with one thread.
///
/// # Errors
/// Practically none.
pub fn wait_for_end_of(parent: i32) -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR2);
    set.thread_block()
        .map_err(|e| SysError::new("pthread_sigmask", e))?;
    tell_parents_end()?;
    // It may have ended before it could be told.
    while self::parent() == parent {
        set.wait().map_err(|e| SysError::new("sigwait", e))?;
    }
    Ok(())
}

/// On which side of a [`fork`] the caller is.
#[derive(Debug)]
pub enum Fork {
    /// The process that called, with a handle to the new one.
    Parent(Child),
    /// The new process.
    Child,
}

/// Splits the process in two.
///
/// # Errors
/// EBUSY when the process already has more than one thread: the others would be missing in the
/// child, with whatever locks they hold. Otherwise what `fork(2)` answers.
pub fn fork() -> Result<Fork> {
    if thread_count().is_some_and(|n| n > 1) {
        return Err(SysError::new("fork", Errno::EBUSY));
    }
    // SAFETY: no other thread exists, so no lock can be held by a thread that is not copied.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Parent { child }) => Ok(Fork::Parent(Child(child))),
        Ok(nix::unistd::ForkResult::Child) => Ok(Fork::Child),
        Err(e) => Err(SysError::new("fork", e)),
    }
}

pub(crate) fn thread_count() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// Leaves the terminal and the working directory, so that neither is held by a daemon.
///
/// # Errors
/// EPERM when the process leads a process group already.
pub fn leave_session() -> Result<()> {
    nix::unistd::setsid().map_err(|e| SysError::new("setsid", e))?;
    nix::unistd::chdir("/").map_err(|e| SysError::on("chdir", b"/", e))
}

/// /dev/null, for [`release_stdio`] when there are no paths any more.
///
/// # Errors
/// What opening it answers.
pub fn open_null() -> Result<fs::File> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null");
    null.map_err(|e| {
        let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        SysError::on("open", b"/dev/null", errno)
    })
}

/// Points descriptors 0, 1 and 2 to /dev/null: whoever reads a pipe that was our stderr sees its
/// end.
///
/// # Errors
/// Practically none.
pub fn release_stdio(null: &fs::File) -> Result<()> {
    for fd in 0..=2 {
        // SAFETY: replaces a standard descriptor, which no owned descriptor of ours is: the Rust
        // runtime has filled 0 to 2 before main, so later opens got larger numbers.
        check("dup2", b"", unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    }
    Ok(())
}

/// Ignores the signals of [`StopSignals`] and the one that asks how a daemon is: for a process that
/// ends with another, which heeds them.
///
/// # Errors
/// Practically none.
pub fn ignore_signals() -> Result<()> {
    let signals = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
    ];
    for signal in signals {
        // SAFETY: no handler of ours is installed or replaced.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }
            .map_err(|e| SysError::new("signal", e))?;
    }
    Ok(())
}

/// Has the end of the parent process told by the signal [`PARENT_ENDED_SIGNAL`].
///
/// # Errors
/// Practically none.
pub fn tell_parents_end() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGUSR2).map_err(|e| SysError::new("prctl", e))
}

/// Gives the calling thread, and so a process with one thread, the name that `ps` shows.
///
/// # Errors
/// Practically none.
pub fn set_name(name: &std::ffi::CStr) -> Result<()> {
    nix::sys::prctl::set_name(name).map_err(|e| SysError::new("prctl", e))
}

/// Process id of this process.
#[must_use]
pub fn id() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// Process id of the parent.
#[must_use]
pub fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Name of the signal of [`tell_parents_end`].
pub const PARENT_ENDED_SIGNAL: &str = "SIGUSR2";
/// Name of the signal that tells of the end of a child.
pub const CHILD_ENDED_SIGNAL: &str = "SIGCHLD";
/// Name of the signal of [`StopSignals::and_report`].
pub const REPORT_SIGNAL: &str = "SIGUSR1";

/// The signals that ask a daemon to stop, blocked so that one thread can wait for them.
#[derive(Debug, Clone, Copy)]
pub struct StopSignals(SigSet);

impl StopSignals {
    /// Blocks SIGTERM, SIGINT and SIGHUP in this thread and in all it starts from now on.
    ///
    /// # Errors
    /// What `pthread_sigmask` answers.
    pub fn block() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()
            .map_err(|e| SysError::new("pthread_sigmask", e))?;
        Ok(Self(set))
    }

    /// The same, and SIGUSR1, which asks a daemon how it is, and [`PARENT_ENDED_SIGNAL`].
    ///
    /// # Errors
    /// What `pthread_sigmask` answers.
    pub fn and_report(mut self) -> Result<Self> {
        self.0.add(Signal::SIGUSR1);
        self.0.add(Signal::SIGUSR2);
        self.0.add(Signal::SIGCHLD);
        self.0
            .thread_block()
            .map_err(|e| SysError::new("pthread_sigmask", e))?;
        Ok(self)
    }

    /// Waits for the next of the signals and answers its name.
    ///
    /// # Errors
    /// What `sigwait` answers.
    pub fn wait(&self) -> Result<&'static str> {
        self.0
            .wait()
            .map(Signal::as_str)
            .map_err(|e| SysError::new("sigwait", e))
    }
}

/// Lets the threads of this process share the allocator's memory. glibc gives each thread of a
/// daemon an arena of its own, and what one frees no other uses again. Very large blocks are
/// mapped for themselves: in an arena glibc would clear them, and so fill them with memory.
pub fn share_heap() {
    /// More than any block but the buffers for requests.
    #[cfg(target_env = "gnu")]
    const VERY_LARGE: libc::c_int = 8 << 20;
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes how the allocator behaves and touches no memory of ours.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, VERY_LARGE);
    }
}

/// Gives memory that was freed back to the system.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives back what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Processor time that all threads of this process have used.
///
/// # Errors
/// Practically none.
pub fn cpu_time() -> Result<std::time::Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: time is valid for writes of one timespec.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr()) };
    check("clock_gettime", b"", rc)?;
    // SAFETY: clock_gettime succeeded, so it filled the buffer.
    let time = unsafe { time.assume_init() };
    Ok(std::time::Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nofile_limit_is_raised_to_the_hard_limit() {
        let first = raise_nofile_limit().unwrap();
        assert!(first > 0);
        assert_eq!(raise_nofile_limit().unwrap(), first);
    }

    #[test]
    fn fork_refuses_a_process_with_threads() {
        // The test harness runs this in a thread beside its main thread.
        assert_eq!(fork().unwrap_err().errno(), Errno::EBUSY);
    }
}
