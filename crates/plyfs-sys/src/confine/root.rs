//! A root directory with next to nothing in it, in a mount namespace of its own.
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::call::{check, check_long, with_cstr};
use crate::detach;
use crate::error::{Errno, Result, SysError};

/// Leaves the mount namespace and root directory of the process for one of its own: a file system
/// without files, and the directories `kept` read-only in it, if they are there. What is open stays
/// open. A directory that was opened
/// through a mount of its own (`detach::private_clone`) then has no `..` that leads out of it.
///
/// Where it fails the process is where it was, but for its working directory.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the mount namespace, EINVAL where the root directory is no
/// mount that could be left (chroot, initramfs), ENOSYS before Linux 5.12.
pub fn leave_for_empty(kept: &[&Path]) -> Result<()> {
    // The way back leads to the root of the namespace.
    if !is_mount("/")? {
        return Err(SysError::new("pivot_root", Errno::EINVAL));
    }
    let before = File::open("/proc/self/ns/mnt").map_err(|e| failed("open mnt", &e))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| SysError::new("unshare(CLONE_NEWNS)", e))?;
    become_empty(kept).inspect_err(|_| {
        // It was just left, and whoever may leave one may enter it.
        nix::sched::setns(before, CloneFlags::CLONE_NEWNS).ok();
    })
}

fn is_mount(path: &str) -> Result<bool> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    with_cstr("statx", path.as_bytes(), |path| {
        // SAFETY: the path is a C string, `found` has room for the answer.
        let rc = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, 0, found.as_mut_ptr()) };
        check("statx", path.to_bytes(), rc)
    })?;
    // SAFETY: all bits zero are a valid statx, and the kernel has filled it.
    let found = unsafe { found.assume_init() };
    let is_root = u64::from_ne_bytes(i64::from(libc::STATX_ATTR_MOUNT_ROOT).to_ne_bytes());
    Ok(found.stx_attributes & is_root != 0)
}

fn become_empty(kept: &[&Path]) -> Result<()> {
    let none: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, private, none)
        .map_err(|e| SysError::new("mount(MS_PRIVATE)", e))?;
    let kept: Vec<(&Path, OwnedFd)> = kept
        .iter()
        .filter_map(|path| match detach::read_only_clone(path) {
            Err(e) if e.errno() == Errno::ENOENT => None,
            clone => Some(clone.map(|clone| (*path, clone))),
        })
        .collect::<Result<_>>()?;
    let room = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let size = Some("mode=555,size=4k");
    // The new root is mounted on a directory that is certainly there and of no use any more.
    nix::mount::mount(Some("none"), "/proc", Some("tmpfs"), room, size)
        .map_err(|e| SysError::new("mount(tmpfs)", e))?;
    nix::unistd::chdir("/proc").map_err(|e| SysError::new("chdir", e))?;
    for (path, clone) in kept {
        attach(&clone, path.strip_prefix("/").unwrap_or(path))?;
    }
    nix::unistd::pivot_root(".", ".").map_err(|e| SysError::new("pivot_root", e))?;
    // The old root lies on the new one.
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| SysError::new("umount2", e))?;
    nix::unistd::chdir("/").map_err(|e| SysError::new("chdir", e))?;
    let frozen = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | room;
    nix::mount::mount(none, "/", none, frozen, none)
        .map_err(|e| SysError::new("mount(MS_REMOUNT)", e))
}

/// Mounts the detached clone on a new directory beneath the working directory.
fn attach(clone: &OwnedFd, on: &Path) -> Result<()> {
    std::fs::create_dir_all(on).map_err(|e| failed("mkdir", &e))?;
    with_cstr("move_mount", on.as_os_str().as_bytes(), |on| {
        // SAFETY: both paths are C strings; the call writes no memory.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                clone.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                on.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
        check_long("move_mount", on.to_bytes(), rc).map(drop)
    })
}

fn failed(call: &'static str, e: &std::io::Error) -> SysError {
    SysError::new(call, Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
}

/// Points every descriptor above the standard ones but `kept` to `/dev/null`: for a copy of a
/// process whose values own them and may close them, but which is to hold nothing open.
///
/// # Errors
/// ENOENT without /proc or /dev/null, EMFILE.
pub fn hold_nothing_but(kept: RawFd) -> Result<()> {
    // SAFETY: the path is a C string; the descriptor is new and ours.
    let null = unsafe {
        let fd = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        OwnedFd::from_raw_fd(Errno::result(fd).map_err(|e| SysError::new("open /dev/null", e))?)
    };
    for fd in crate::takeover::open_now()? {
        if fd > 2 && fd != kept && fd != null.as_raw_fd() {
            // SAFETY: the number stays open and its owner may close it.
            let rc = unsafe { libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC) };
            Errno::result(rc).map_err(|e| SysError::new("dup3", e))?;
        }
    }
    Ok(())
}
