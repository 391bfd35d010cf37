//! Mounting and unmounting FUSE file systems, and what is mounted where.
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bitflags::bitflags;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::sys::stat::Mode;

use crate::error::{Errno, Result, SysError};
use crate::stat::{LayerIno, stat_fd};

/// The device every FUSE connection starts from.
pub const DEV_FUSE: &str = "/dev/fuse";
/// Device number of /dev/fuse: misc major, FUSE_MINOR.
const DEV_FUSE_NUMBER: (u32, u32) = (10, 229);

bitflags! {
    /// Flags of a mount, independent of its file system.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct MountFlags: libc::c_ulong {
        /// Read-only.
        const RDONLY = libc::MS_RDONLY;
        /// suid and sgid bits and file capabilities have no effect.
        const NOSUID = libc::MS_NOSUID;
        /// Device nodes cannot be opened.
        const NODEV = libc::MS_NODEV;
        /// Nothing can be executed.
        const NOEXEC = libc::MS_NOEXEC;
        /// Writes are synchronous.
        const SYNCHRONOUS = libc::MS_SYNCHRONOUS;
        /// Directory changes are synchronous.
        const DIRSYNC = libc::MS_DIRSYNC;
        /// Access times are not updated.
        const NOATIME = libc::MS_NOATIME;
        /// Access times of directories are not updated.
        const NODIRATIME = libc::MS_NODIRATIME;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 256;
    }
}

/// Opens a new, not yet mounted FUSE connection.
///
/// # Errors
/// ENOENT or ENODEV without FUSE, EACCES and EPERM where the process may not.
pub fn open_dev_fuse() -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    nix::fcntl::open(DEV_FUSE, flags, Mode::empty())
        .map_err(|e| SysError::on("open", DEV_FUSE.as_bytes(), e))
}

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct FuseMount<'a> {
    /// `x` in the type `fuse.x`.
    pub subtype: &'a str,
    /// What `mount` and `df` show as the source.
    pub source: &'a OsStr,
    /// Directory to mount on.
    pub target: &'a Path,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Whether other users than the one who mounts may enter.
    pub allow_other: bool,
    /// Largest READ request in bytes; None leaves it to the kernel.
    pub max_read: Option<u32>,
}

/// Mounts a connection opened by [`open_dev_fuse`]; needs CAP_SYS_ADMIN over the mount namespace.
///
/// A kernel without subtypes answers ENODEV to `fuse.x`; then the type is `fuse` and the source
/// `x#source`, as libfuse does.
///
/// # Errors
/// EPERM without the capability, and whatever else `mount(2)` answers.
pub fn mount_fuse(dev: BorrowedFd<'_>, what: &FuseMount<'_>) -> Result<()> {
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        dev.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid()
    );
    if what.allow_other {
        data.push_str(",allow_other");
    }
    if let Some(max) = what.max_read {
        data.push_str(&format!(",max_read={max}"));
    }
    let flags = MsFlags::from_bits_retain(what.flags.bits());
    let try_as = |source: &OsStr, fstype: &str| {
        nix::mount::mount(
            Some(source),
            what.target,
            Some(fstype),
            flags,
            Some(data.as_str()),
        )
    };
    let mut done = try_as(what.source, &format!("fuse.{}", what.subtype));
    if done == Err(Errno::ENODEV) {
        let mut source = OsString::from(format!("{}#", what.subtype));
        source.push(what.source);
        done = try_as(&source, "fuse");
    }
    done.map_err(|e| SysError::on("mount", what.target.as_os_str().as_bytes(), e))
}

/// Changes the flags of the mount on `target`; FUSE takes no other change of a live mount.
///
/// # Errors
/// EINVAL where nothing is mounted, EPERM, EBUSY for read-only while files are open for writing.
pub fn remount(target: &Path, flags: MountFlags) -> Result<()> {
    let flags = MsFlags::from_bits_retain(flags.bits()) | MsFlags::MS_REMOUNT;
    let none: Option<&str> = None;
    nix::mount::mount(none, target, none, flags, none)
        .map_err(|e| SysError::on("mount(MS_REMOUNT)", target.as_os_str().as_bytes(), e))
}

/// The descriptor behind `/dev/fd/N` when that is an open /dev/fuse: a connection that somebody
/// with more privileges has mounted for us (mount.fuse3 with drop_privileges).
///
/// Takes ownership of descriptor N, so it must be asked once per path.
#[must_use]
pub fn inherited_connection(target: &Path) -> Option<OwnedFd> {
    let number = target.to_str()?.strip_prefix("/dev/fd/")?;
    let fd: RawFd = number.parse().ok().filter(|fd| *fd > 2)?;
    let meta = fs::metadata(format!("/proc/self/fd/{fd}")).ok()?;
    let rdev = meta.rdev();
    let is_fuse = meta.file_type().is_char_device()
        && (libc::major(rdev), libc::minor(rdev)) == DEV_FUSE_NUMBER;
    // SAFETY: the descriptor is open (it has metadata) and came through exec, so no other part of
    // this process owns it.
    is_fuse.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Why the setuid helper did not mount or unmount.
#[derive(Debug)]
pub enum HelperError {
    /// Neither fusermount3 nor fusermount is installed.
    Missing,
    /// It refused; its own words.
    Refused(String),
    /// A system call failed around it.
    Sys(SysError),
}

impl From<SysError> for HelperError {
    fn from(e: SysError) -> Self {
        Self::Sys(e)
    }
}

/// Path of the setuid helper that mounts FUSE for ordinary users.
#[must_use]
pub fn helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(usual).collect();
    ["fusermount3", "fusermount"]
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|file| file.is_absolute() && file.is_file())
}

fn refused(out: &Output) -> HelperError {
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text.trim().replace('\n', "; ");
    HelperError::Refused(if line.is_empty() {
        out.status.to_string()
    } else {
        line
    })
}

/// Mounts through the setuid helper and answers the connection it sends back.
///
/// # Errors
/// See [`HelperError`].
pub fn mount_by_helper(what: &FuseMount<'_>) -> std::result::Result<OwnedFd, HelperError> {
    let helper = helper().ok_or(HelperError::Missing)?;
    let (theirs, ours) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::empty(),
    )
    .map_err(|e| SysError::new("socketpair", e))?;
    let child = Command::new(helper)
        .arg("-o")
        .arg(helper_options(what))
        .arg("--")
        .arg(what.target)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| SysError::new("fusermount3", io_errno(&e)))?;
    drop(theirs);
    let fd = receive_fd(ours.as_fd());
    drop(ours);
    let out = child
        .wait_with_output()
        .map_err(|e| SysError::new("fusermount3", io_errno(&e)))?;
    match fd {
        Ok(Some(fd)) => Ok(fd),
        Ok(None) => Err(refused(&out)),
        Err(e) => Err(e.into()),
    }
}

fn io_errno(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}

fn helper_options(what: &FuseMount<'_>) -> OsString {
    let mut text = OsString::from("default_permissions,subtype=");
    text.push(what.subtype);
    text.push(",fsname=");
    let escaped = what.source.as_bytes().iter().flat_map(|b| match b {
        b',' | b'\\' => vec![b'\\', *b],
        other => vec![*other],
    });
    text.push(OsString::from_vec(escaped.collect()));
    let named = [
        (MountFlags::RDONLY, ",ro"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::SYNCHRONOUS, ",sync"),
        (MountFlags::DIRSYNC, ",dirsync"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
    ];
    for (flag, name) in named {
        if what.flags.contains(flag) {
            text.push(name);
        }
    }
    if what.allow_other {
        text.push(",allow_other");
    }
    if let Some(max) = what.max_read {
        text.push(format!(",max_read={max}"));
    }
    text
}

/// Receives one descriptor; None when the other side closes without sending one.
fn receive_fd(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let msg = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(SysError::new("recvmsg", e)),
            Ok(msg) => break msg,
        }
    };
    let cmsgs = msg.cmsgs().map_err(|e| SysError::new("recvmsg", e))?;
    for cmsg in cmsgs {
        if let ControlMessageOwned::ScmRights(fds) = cmsg
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel installed this descriptor for us with the message.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

/// How a mount is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Only when nobody uses it.
    Idle,
    /// From the tree now, from its users when they are done (MNT_DETACH).
    Lazy,
}

/// Unmounts what is mounted on `target` itself; a symbolic link is not followed.
///
/// # Errors
/// EBUSY while it is in use, EINVAL when nothing is mounted there, EPERM and the like.
pub fn unmount(target: &Path, how: Unmount) -> Result<()> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    if how == Unmount::Lazy {
        flags |= MntFlags::MNT_DETACH;
    }
    umount2(target, flags).map_err(|e| SysError::on("umount2", target.as_os_str().as_bytes(), e))
}

/// Unmounts through the setuid helper.
///
/// # Errors
/// See [`HelperError`].
pub fn unmount_by_helper(target: &Path, how: Unmount) -> std::result::Result<(), HelperError> {
    let mut command = Command::new(helper().ok_or(HelperError::Missing)?);
    command.arg("-u");
    if how == Unmount::Lazy {
        command.arg("-z");
    }
    let out = command
        .arg("--")
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| SysError::new("fusermount3", io_errno(&e)))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(refused(&out))
    }
}

/// One mount of this mount namespace, a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Unique number of the mount.
    pub id: u64,
    /// Device number of the mounted file system (major, minor).
    pub dev: (u32, u32),
    /// Where it is mounted, as seen from this process's root.
    pub target: PathBuf,
    /// Type, `fuse.plyfs` for example.
    pub fstype: String,
    /// Source, as given to `mount(2)`.
    pub source: OsString,
    /// Options of the file system (the kernel's own words).
    pub super_options: OsString,
    /// Whether the mount itself shows other owners than are on disk (mount_setattr(2)).
    pub is_idmapped: bool,
}

/// All mounts of this mount namespace, in the order they were made on a path: the last entry of a
/// path is the one that is seen.
///
/// # Errors
/// When /proc cannot be read.
pub fn mounts() -> Result<Vec<MountEntry>> {
    let path = "/proc/self/mountinfo";
    let text = fs::read(path).map_err(|e| SysError::on("read", path.as_bytes(), io_errno(&e)))?;
    Ok(parse_mountinfo(&text))
}

/// Reads the text of a mountinfo file; lines it cannot make sense of are left out.
#[must_use]
pub fn parse_mountinfo(text: &[u8]) -> Vec<MountEntry> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().skip(6).position(|f| *f == b"-")? + 6;
    let text = |i: usize| std::str::from_utf8(fields.get(i)?).ok();
    let (major, minor) = text(2)?.split_once(':')?;
    Some(MountEntry {
        id: text(0)?.parse().ok()?,
        dev: (major.parse().ok()?, minor.parse().ok()?),
        target: OsString::from_vec(unescape(fields.get(4)?)).into(),
        fstype: text(dash + 1)?.to_owned(),
        source: OsString::from_vec(unescape(fields.get(dash + 2)?)),
        super_options: OsString::from_vec(unescape(fields.get(dash + 3)?)),
        is_idmapped: text(5)?.split(',').any(|option| option == "idmapped"),
    })
}

/// Undoes the octal escapes (`\040` for a blank) the kernel writes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |b: u8| (b'0'..=b'7').contains(&b).then(|| u32::from(b - b'0'));
        let code = match (first, tail) {
            (b'\\', [a, b, c, ..]) => octal(*a)
                .zip(octal(*b))
                .zip(octal(*c))
                .and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok()),
            _ => None,
        };
        match code {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The mount that is seen at `target`, if something is mounted on exactly that path.
///
/// # Errors
/// When /proc cannot be read.
pub fn mount_at(target: &Path) -> Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|m| m.target == target))
}

/// Raises the readahead of the file system with device number `dev` to `kib`; false where the
/// process may not or it is larger already. FUSE starts at 128 KiB, which makes first reads of
/// large files slow.
#[must_use]
pub fn raise_readahead(dev: (u32, u32), kib: u32) -> bool {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", dev.0, dev.1);
    let now = fs::read_to_string(&path)
        .ok()
        .and_then(|t| t.trim().parse::<u32>().ok());
    now.is_some_and(|now| now < kib) && fs::write(&path, kib.to_string()).is_ok()
}

/// Ends a FUSE connection from the outside: every request answers an error from now on. False
/// where fusectl is not mounted or the process may not.
#[must_use]
pub fn abort_connection(dev: (u32, u32)) -> bool {
    fs::write(format!("/sys/fs/fuse/connections/{}/abort", dev.1), "1").is_ok()
}

/// Identities of the directory and of every directory above it, up to the root, mounts crossed.
///
/// # Errors
/// What opening `..` answers, except that a parent which may not be searched ends the list.
pub fn ancestry(dir: BorrowedFd<'_>) -> Result<Vec<LayerIno>> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut last = stat_fd(dir)?;
    let mut ids = vec![last.id()];
    let mut at: Option<OwnedFd> = None;
    loop {
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        let parent = match openat(from, "..", flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::EACCES) => return Ok(ids),
            Err(e) => return Err(SysError::on("openat", b"..", e)),
        };
        let stat = stat_fd(parent.as_fd())?;
        // The mount counts too: a directory mounted on its own child has the same identity twice.
        if (stat.id(), stat.mnt_id) == (last.id(), last.mnt_id) {
            return Ok(ids);
        }
        ids.push(stat.id());
        last = stat;
        at = Some(parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_understood() {
        let text = b"36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=x\n\
            40 35 0:55 / /m rw,idmapped - fuse.plyfs a\\134b rw,user_id=0\n\
            broken line\n\
            41 35 0:5x / /m rw - tmpfs x rw\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, Path::new("/a b"));
        assert_eq!((mounts[0].id, mounts[0].dev), (36, (98, 0)));
        assert_eq!(mounts[0].fstype, "ext3");
        assert_eq!(mounts[1].source, "a\\b");
        assert_eq!(
            [mounts[0].is_idmapped, mounts[1].is_idmapped],
            [false, true]
        );
        assert_eq!(mounts[1].super_options, "rw,user_id=0");
    }

    #[test]
    fn escapes_at_the_end_are_literal() {
        for (text, want) in [
            (&b"a\\04"[..], &b"a\\04"[..]),
            (b"\\", b"\\"),
            (b"\\777", b"\\777"),
        ] {
            assert_eq!(unescape(text), want);
        }
    }

    #[test]
    fn ancestry_leads_to_the_root() {
        let dir = crate::open::open_dir_path(Path::new("/proc/self")).unwrap();
        let root = crate::open::open_dir_path(Path::new("/")).unwrap();
        let ids = ancestry(dir.as_fd()).unwrap();
        assert!(ids.len() >= 3);
        assert_eq!(ids.last(), Some(&stat_fd(root.as_fd()).unwrap().id()));
    }

    #[test]
    fn only_dev_fuse_counts_as_an_inherited_connection() {
        for path in ["/dev/fd/0", "/dev/fd/x", "/dev/fd/99999", "/mnt"] {
            assert!(inherited_connection(Path::new(path)).is_none(), "{path}");
        }
    }
}
