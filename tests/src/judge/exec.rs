//! Running one step on one side.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Stat,
    Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::build::dev;
use super::exec_data as data;
use super::exec_xattr::xattr;
use super::ops::{How, Node, Op, Stamp};
use super::outcome::{Outcome, digest};
use super::side::{Handle, Place, Side};
use super::stream::{Stream, drop_ghosts, read_all, show};
use super::text::Bytes;
use super::view::read_to_end;

type Io<T> = rustix::io::Result<T>;

/// Names of the open flags in the text form.
pub(crate) const OPEN_FLAGS: &[(&str, OFlags)] = &[
    ("RDONLY", OFlags::RDONLY),
    ("WRONLY", OFlags::WRONLY),
    ("RDWR", OFlags::RDWR),
    ("CREAT", OFlags::CREATE),
    ("EXCL", OFlags::EXCL),
    ("TRUNC", OFlags::TRUNC),
    ("APPEND", OFlags::APPEND),
    ("DIRECTORY", OFlags::DIRECTORY),
    ("NOFOLLOW", OFlags::NOFOLLOW),
    ("PATH", OFlags::PATH),
    ("SYNC", OFlags::SYNC),
    ("DIRECT", OFlags::DIRECT),
    ("NOATIME", OFlags::NOATIME),
    ("TMPFILE", OFlags::TMPFILE),
];

/// Runs a step (not the tree-wide ones) as whoever the thread acts as.
pub(crate) fn run(side: &mut Side, op: &Op) -> Outcome {
    let ghosts = !side.is_kernel;
    match op {
        Op::Open {
            h,
            path,
            flags,
            mode,
        } => open(side, *h, path, flags, mode.0),
        Op::Close { h } => match side.handles.get_mut(usize::from(*h)).and_then(Option::take) {
            Some(_) => Outcome::done(),
            None => Outcome::skipped(),
        },
        Op::Stat { path, nofollow } => stat(side, path, *nofollow),
        Op::DirRead { h, .. } | Op::DirSeek { h, .. } | Op::DirRewind { h } | Op::DirEnd { h } => {
            side.handle(*h)
                .map_or_else(Outcome::skipped, |handle| stream(handle, op, ghosts))
        }
        Op::Umask { mask } => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Outcome::done()
        }
        Op::Check | Op::Remount | Op::Swap | Op::Together { .. } => Outcome::skipped(),
        Op::Map { h, m } => data::map(side, *h, *m),
        Op::Unmap { m } => match side.maps.get_mut(usize::from(*m)).and_then(Option::take) {
            Some(_) => Outcome::done(),
            None => Outcome::skipped(),
        },
        _ => run_beside(side, op),
    }
}

/// Runs a step that leaves the side's own state alone, perhaps beside others.
pub(crate) fn run_beside(side: &Side, op: &Op) -> Outcome {
    match op {
        Op::Mkdir { .. }
        | Op::Rmdir { .. }
        | Op::Unlink { .. }
        | Op::Rename { .. }
        | Op::Link { .. }
        | Op::Symlink { .. }
        | Op::Mknod { .. } => names(side, op),
        Op::Truncate { .. } | Op::Chmod { .. } | Op::Chown { .. } | Op::Utimens { .. } => {
            attributes(side, op)
        }
        Op::Setxattr { .. }
        | Op::Getxattr { .. }
        | Op::Listxattr { .. }
        | Op::Removexattr { .. } => xattr(side, op),
        Op::Stat { path, nofollow } => match stat_at(side, path, *nofollow) {
            Some(Ok(stat)) => Outcome::done().stat(&stat),
            Some(Err(errno)) => Outcome::error(errno),
            None => Outcome::skipped(),
        },
        Op::Readlink { path } => readlink(side, path),
        Op::Access { path, mode } => access(side, path, *mode),
        Op::Readdir { path } => readdir(side, path),
        Op::Cat { path } => cat(side, path),
        _ => data::run(side, op),
    }
}

/// The flags of an open; opens never block on a fifo.
fn open_flags(text: &str) -> OFlags {
    let named = text
        .split('|')
        .filter_map(|word| OPEN_FLAGS.iter().find(|(name, _)| *name == word));
    let wanted = named.fold(OFlags::empty(), |all, (_, flag)| all | *flag);
    wanted | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

fn open(side: &mut Side, slot: u8, path: &Bytes, flags: &str, mode: u32) -> Outcome {
    let opened = match side.place(path) {
        Place::Path(dir, path) => {
            rustix::fs::openat(dir, path, open_flags(flags), Mode::from_raw_mode(mode))
        }
        _ => return Outcome::skipped(),
    };
    let fd = match opened {
        Ok(fd) => fd,
        Err(errno) => return Outcome::error(errno),
    };
    let stat = match rustix::fs::fstat(&fd) {
        Ok(stat) => stat,
        Err(errno) => return Outcome::error(errno).fact("call", "fstat after open"),
    };
    // Whether opening for writing already cuts a file off from its other names is left open.
    let outcome = Outcome::done().stat(&stat).without("nlink");
    if let Some(place) = side.handles.get_mut(usize::from(slot)) {
        *place = Some(Handle {
            fd,
            ino: stat.st_ino,
            stream: Stream::default(),
        });
    }
    outcome
}

fn names(side: &Side, op: &Op) -> Outcome {
    let on = |path: &Bytes, call: &dyn Fn(rustix::fd::BorrowedFd<'_>, &[u8]) -> Io<()>| match side
        .place(path)
    {
        Place::Path(dir, path) => Outcome::from(call(dir, &path)),
        _ => Outcome::skipped(),
    };
    match op {
        Op::Mkdir { path, mode } => on(path, &|dir, name| {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode.0))
        }),
        Op::Rmdir { path } => on(path, &|dir, name| {
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
        }),
        Op::Unlink { path } => on(path, &|dir, name| {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())
        }),
        Op::Symlink { target, path } => on(path, &|dir, name| {
            rustix::fs::symlinkat(target.0.as_slice(), dir, name)
        }),
        Op::Mknod { path, node, mode } => on(path, &|dir, name| {
            let (kind, device) = match node {
                Node::File => (FileType::RegularFile, 0),
                Node::Fifo => (FileType::Fifo, 0),
                Node::Socket => (FileType::Socket, 0),
                Node::Char(major, minor) => (FileType::CharacterDevice, dev(*major, *minor)),
                Node::Block(major, minor) => (FileType::BlockDevice, dev(*major, *minor)),
            };
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode.0), device)
        }),
        Op::Rename { from, to, how } => {
            let flags = match how {
                How::Plain => RenameFlags::empty(),
                How::Noreplace => RenameFlags::NOREPLACE,
                How::Exchange => RenameFlags::EXCHANGE,
                How::Whiteout => RenameFlags::WHITEOUT,
            };
            on(from, &|old_dir, old| match side.place(to) {
                Place::Path(new_dir, new) => {
                    rustix::fs::renameat_with(old_dir, old, new_dir, new, flags)
                }
                _ => Err(Errno::BADF),
            })
        }
        Op::Link { from, to, follow } => link(side, from, to, *follow),
        _ => Outcome::skipped(),
    }
}

fn link(side: &Side, from: &Bytes, to: &Bytes, follow: bool) -> Outcome {
    let Place::Path(new_dir, new) = side.place(to) else {
        return Outcome::skipped();
    };
    let result = match side.place(from) {
        Place::Open(fd) => rustix::fs::linkat(fd, c"", new_dir, new, AtFlags::EMPTY_PATH),
        Place::Path(old_dir, old) => {
            let flags = if follow {
                AtFlags::SYMLINK_FOLLOW
            } else {
                AtFlags::empty()
            };
            rustix::fs::linkat(old_dir, old, new_dir, new, flags)
        }
        Place::Nowhere => return Outcome::skipped(),
    };
    result.into()
}

fn stamps(atime: Stamp, mtime: Stamp) -> Timestamps {
    let spec = |stamp| match stamp {
        Stamp::Now => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        Stamp::Omit => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        Stamp::At(sec, nsec) => Timespec {
            tv_sec: sec,
            tv_nsec: i64::from(nsec),
        },
    };
    Timestamps {
        last_access: spec(atime),
        last_modification: spec(mtime),
    }
}

fn attributes(side: &Side, op: &Op) -> Outcome {
    let (Op::Truncate { path, .. }
    | Op::Chmod { path, .. }
    | Op::Chown { path, .. }
    | Op::Utimens { path, .. }) = op
    else {
        return Outcome::skipped();
    };
    let place = side.place(path);
    let result = match (op, place) {
        (_, Place::Nowhere) => return Outcome::skipped(),
        (Op::Truncate { len, .. }, Place::Open(fd)) => rustix::fs::ftruncate(fd, *len),
        (Op::Truncate { len, .. }, Place::Path(dir, path)) => {
            let path = via_proc(dir, path);
            nix::unistd::truncate(path.as_slice(), *len as i64)
                .map_err(|errno| Errno::from_raw_os_error(errno as i32))
        }
        (Op::Chmod { mode, .. }, Place::Open(fd)) => {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode.0))
        }
        (Op::Chmod { mode, .. }, Place::Path(dir, path)) => {
            rustix::fs::chmodat(dir, path, Mode::from_raw_mode(mode.0), AtFlags::empty())
        }
        (
            Op::Chown {
                uid, gid, nofollow, ..
            },
            place,
        ) => {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            match place {
                Place::Open(fd) => rustix::fs::fchown(fd, uid, gid),
                Place::Path(dir, path) => rustix::fs::chownat(dir, path, uid, gid, at(*nofollow)),
                Place::Nowhere => return Outcome::skipped(),
            }
        }
        (
            Op::Utimens {
                atime,
                mtime,
                nofollow,
                ..
            },
            place,
        ) => {
            let times = stamps(*atime, *mtime);
            match place {
                Place::Open(fd) => rustix::fs::futimens(fd, &times),
                Place::Path(dir, path) => rustix::fs::utimensat(dir, path, &times, at(*nofollow)),
                Place::Nowhere => return Outcome::skipped(),
            }
        }
        _ => return Outcome::skipped(),
    };
    result.into()
}

fn at(nofollow: bool) -> AtFlags {
    if nofollow {
        AtFlags::SYMLINK_NOFOLLOW
    } else {
        AtFlags::empty()
    }
}

/// A path for calls that have no `at` form.
pub(crate) fn via_proc(dir: rustix::fd::BorrowedFd<'_>, path: Vec<u8>) -> Vec<u8> {
    if dir.as_raw_fd() == CWD.as_raw_fd() {
        return path;
    }
    [
        format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(),
        &path,
    ]
    .concat()
}

/// `None` for an empty handle slot.
fn stat_at(side: &Side, path: &Bytes, nofollow: bool) -> Option<Io<Stat>> {
    match side.place(path) {
        Place::Nowhere => None,
        Place::Open(fd) => Some(rustix::fs::fstat(fd)),
        Place::Path(dir, name) => Some(rustix::fs::statat(dir, name, at(nofollow))),
    }
}

fn stat(side: &mut Side, path: &Bytes, nofollow: bool) -> Outcome {
    let stat = match stat_at(side, path, nofollow) {
        None => return Outcome::skipped(),
        Some(Ok(stat)) => stat,
        Some(Err(errno)) => return Outcome::error(errno),
    };
    let before = if matches!(side.place(path), Place::Open(_)) {
        let slot = path.0.get(1).map_or(0, |digit| digit.wrapping_sub(b'0'));
        side.handle(slot).map(|handle| handle.ino)
    } else if nofollow {
        side.inos.insert(path.clone(), stat.st_ino)
    } else {
        None
    };
    Outcome::done()
        .stat(&stat)
        .kept("ino_kept", before == Some(stat.st_ino))
}

/// The size of the file at a path of a step; `None` for a handle or nothing.
pub(crate) fn size_at(side: &Side, path: &Bytes) -> Option<i64> {
    match side.place(path) {
        Place::Path(dir, name) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::empty());
            stat.ok().map(|stat| stat.st_size)
        }
        _ => None,
    }
}

/// Whether a step sets the time that a file with several names has.
pub(crate) fn keeps_time(side: &Side, op: &Op) -> bool {
    let Op::Utimens {
        path,
        mtime: Stamp::At(sec, nsec),
        nofollow,
        ..
    } = op
    else {
        return false;
    };
    let stat = stat_at(side, path, *nofollow).and_then(Result::ok);
    stat.is_some_and(|stat| {
        stat.st_nlink > 1 && (stat.st_mtime, stat.st_mtime_nsec as i64) == (*sec, i64::from(*nsec))
    })
}

/// Whether a path of a step is a directory's.
pub(crate) fn is_dir_at(side: &Side, path: &Bytes) -> bool {
    is_kind_at(side, path, FileType::Directory)
}

/// Whether a path of a step is a regular file's.
pub(crate) fn is_file_at(side: &Side, path: &Bytes) -> bool {
    is_kind_at(side, path, FileType::RegularFile)
}

fn is_kind_at(side: &Side, path: &Bytes, kind: FileType) -> bool {
    let stat = stat_at(side, path, true).and_then(Result::ok);
    stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}

fn readlink(side: &Side, path: &Bytes) -> Outcome {
    match side.place(path) {
        Place::Path(dir, name) => match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => Outcome::done().fact("target", Bytes::from(target.to_bytes())),
            Err(errno) => Outcome::error(errno),
        },
        _ => Outcome::skipped(),
    }
}

fn access(side: &Side, path: &Bytes, mode: u32) -> Outcome {
    match side.place(path) {
        Place::Path(dir, name) => {
            let mode = Access::from_bits_truncate(mode);
            rustix::fs::accessat(dir, name, mode, AtFlags::EACCESS).into()
        }
        _ => Outcome::skipped(),
    }
}

fn readdir(side: &Side, path: &Bytes) -> Outcome {
    let Place::Path(dir, name) = side.place(path) else {
        return Outcome::skipped();
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno) => return Outcome::error(errno).fact("call", "open"),
    };
    let mut entries = match read_all(&fd) {
        Ok(entries) => entries,
        Err(errno) => return Outcome::error(errno).fact("call", "getdents"),
    };
    if side.is_kernel {
        drop_ghosts(&fd, &mut entries);
    }
    let right = entries
        .iter()
        .filter(|entry| entry.name.0 != b"..")
        .all(|entry| {
            let name = entry.name.0.as_slice();
            rustix::fs::statat(fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(true, |stat| stat.st_ino == entry.ino)
        });
    Outcome::done()
        .fact("entries", show(&entries))
        .kept("d_ino", right)
}

fn cat(side: &Side, path: &Bytes) -> Outcome {
    let Place::Path(dir, name) = side.place(path) else {
        return Outcome::skipped();
    };
    let fd = match rustix::fs::openat(dir, name, open_flags("RDONLY"), Mode::empty()) {
        Ok(fd) => fd,
        Err(errno) => return Outcome::error(errno).fact("call", "open"),
    };
    let regular = rustix::fs::fstat(&fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if !regular {
        return Outcome::done().fact("content", "not a regular file");
    }
    match read_to_end(&fd) {
        Ok(content) => Outcome::done().fact("content", digest(&content)),
        Err(errno) => Outcome::error(errno).fact("call", "read"),
    }
}

fn stream(handle: &mut Handle, op: &Op, ghosts: bool) -> Outcome {
    let Handle { fd, stream, .. } = handle;
    match op {
        Op::DirRead { n, buf, .. } => stream
            .read(fd, usize::from(*n), *buf as usize, ghosts)
            .into(),
        // Which entries came so far is not comparable, so neither is where a seek lands.
        Op::DirSeek { n, .. } => stream.seek(fd, usize::from(*n)).into(),
        Op::DirRewind { .. } => stream.rewind(fd, true).into(),
        Op::DirEnd { .. } => match stream.read(fd, usize::MAX, 4096, ghosts) {
            Ok(()) => stream.listing(),
            Err(errno) => Outcome::error(errno),
        },
        _ => Outcome::skipped(),
    }
}

/// A lseek target from the text form.
pub(crate) fn seek_from(whence: &str, off: i64) -> SeekFrom {
    match whence {
        "cur" => SeekFrom::Current(off),
        "end" => SeekFrom::End(off),
        "data" => SeekFrom::Data(off as u64),
        "hole" => SeekFrom::Hole(off as u64),
        _ => SeekFrom::Start(off as u64),
    }
}

/// Fallocate flags from the text form's number.
pub(crate) fn fallocate_flags(mode: u32) -> FallocateFlags {
    FallocateFlags::from_bits_retain(mode)
}
