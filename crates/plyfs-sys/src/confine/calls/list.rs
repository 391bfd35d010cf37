//! The list: what a daemon that serves a mount asks of the kernel, by what needs it.
use libc::c_long;

use super::Condition;
use crate::io::FileIoctl;
use crate::xattr::{SYS_GETXATTRAT, SYS_LISTXATTRAT, SYS_REMOVEXATTRAT, SYS_SETXATTRAT};

/// Calls that are allowed whatever their arguments are.
pub(super) const ALWAYS: &[c_long] = &[
    // Reading and writing what is open; the connection, the journal, files of layers.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    // Objects of layers.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SYS_SETXATTRAT,
    SYS_GETXATTRAT,
    SYS_LISTXATTRAT,
    SYS_REMOVEXATTRAT,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Descriptors.
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ppoll,
    libc::SYS_memfd_create,
    // Acting as the caller.
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_umask,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    // Letting go of the terminal.
    libc::SYS_setsid,
    libc::SYS_chdir,
    // The control socket, which is bound and listens already, and the journal's.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    // Waiting for the process outside.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads, time, chance, signals, the end.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Older names, which C libraries use where there are any.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getdents,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// Calls that are answered as by a kernel that has none, whatever becomes of other denied ones.
pub(super) const ABSENT: &[c_long] = &[libc::SYS_clone3];

/// The flags of clone(2) that make namespaces.
const NAMESPACES: u32 = 0x7E02_0000;
const THREAD: u32 = libc::CLONE_THREAD.cast_unsigned();
const EXECUTABLE: u32 = libc::PROT_EXEC.cast_unsigned();

/// PR_SET_VMA of linux/prctl.h: glibc names its mappings.
const PR_SET_VMA: u32 = 0x5356_4D41;
/// FICLONE and FS_IOC_GETFSUUID of linux/fs.h; FUSE_DEV_IOC_BACKING_OPEN and _CLOSE of linux/fuse.h.
const OTHER_IOCTLS: [u32; 4] = [0x4004_9409, 0x8011_1500, 0x4010_E501, 0x4004_E502];

/// Calls that are allowed where one argument is as it should be.
pub(super) fn conditional() -> Vec<(c_long, Condition)> {
    let own = std::process::id();
    let is = |argument, values: &[u32]| Condition {
        argument,
        mask: u32::MAX,
        values: values.to_vec(),
    };
    let masked = |argument, mask, value| Condition {
        argument,
        mask,
        values: vec![value],
    };
    let mut ioctls: Vec<u32> = FileIoctl::ALL.map(|op| op.request() as u32).to_vec();
    ioctls.extend(OTHER_IOCTLS);
    // std asks for these: is it a terminal, non-blocking, close on exec.
    ioctls.extend([
        libc::TCGETS as u32,
        libc::FIONBIO as u32,
        libc::FIOCLEX as u32,
    ]);
    vec![
        (libc::SYS_ioctl, is(1, &ioctls)),
        // New threads, and no new processes.
        (libc::SYS_clone, masked(0, NAMESPACES | THREAD, THREAD)),
        // A umask of its own for each thread.
        (libc::SYS_unshare, is(0, &[libc::CLONE_FS.cast_unsigned()])),
        // No new code.
        (libc::SYS_mmap, masked(2, EXECUTABLE, 0)),
        (libc::SYS_mprotect, masked(2, EXECUTABLE, 0)),
        // Ending itself, and nobody else.
        (libc::SYS_kill, is(0, &[own])),
        (libc::SYS_tgkill, is(0, &[own])),
        // Asking for its own limits.
        (libc::SYS_prlimit64, is(0, &[0])),
        (
            libc::SYS_prctl,
            is(
                0,
                &[
                    libc::PR_SET_NAME.cast_unsigned(),
                    libc::PR_GET_NAME.cast_unsigned(),
                    libc::PR_SET_PDEATHSIG.cast_unsigned(),
                    PR_SET_VMA,
                ],
            ),
        ),
    ]
}
