//! Which steps may run at once: those whose results and joint effect do not depend on their order.
//!
//! What a step reaches is found out on the oracle before any of them is run, in paths without
//! symlinks and in inode numbers. Where that is not plain, the step is left out: the rest must be
//! beyond doubt, since whatever differs afterwards counts as a failure of the subject.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use super::ops::{Op, Step, Who};
use super::side::{Place, Side};
use super::text::Bytes;

/// What a step does to a path.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    /// Asks, or reads.
    Looks,
    /// Changes what is there.
    Alters,
    /// Adds or removes the name.
    Names,
}

/// What a step does to a file, in the respects in which two steps on one file can still commute.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Read,
    /// Writes these bytes, wherever the file ends.
    Bytes(u64, u64),
    Append,
    /// Sets permissions without suid, sgid or sticky bit.
    Mode,
    Times,
    Xattr(Bytes),
    /// Removes or moves the only name.
    Name,
    /// Anything that may depend on everything else.
    Whole,
}

/// A file that a step reaches.
#[derive(Debug, Clone, PartialEq)]
struct Object {
    ino: u64,
    /// A lower file with several names is one file or several, by what was copied up.
    linked: bool,
    part: Part,
}

/// All that a step reaches.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    places: Vec<(Vec<u8>, Use)>,
    objects: Vec<Object>,
}

/// Of several lists of steps, each to be run by one thread, what may run at once.
pub(crate) fn commuting(oracle: &Side, lanes: &[Vec<Step>]) -> Vec<Vec<Step>> {
    let mut kept: Vec<Vec<Step>> = vec![Vec::new(); lanes.len()];
    let mut reached: Vec<Vec<Reach>> = lanes.iter().map(|_| Vec::new()).collect();
    let longest = lanes.iter().map(Vec::len).max().unwrap_or(0);
    for turn in 0..longest {
        for (at, lane) in lanes.iter().enumerate() {
            // What comes after a new symlink could follow it anywhere.
            let led = kept[at].iter().any(|s| matches!(s.op, Op::Symlink { .. }));
            let Some(step) = lane.get(turn).filter(|_| !led) else {
                continue;
            };
            let Some(reach) = Reach::of(oracle, step) else {
                continue;
            };
            // What a lane does to a file that it took the name of has rules of its own.
            if reach.holds() && reached[at].iter().any(|own| own.took(&reach)) {
                continue;
            }
            let others = reached.iter().enumerate().filter(|(other, _)| *other != at);
            if others
                .flat_map(|(_, all)| all)
                .all(|other| reach.commutes(other))
            {
                reached[at].push(reach);
                kept[at].push(step.clone());
            }
        }
    }
    kept
}

impl Reach {
    /// What a step reaches, if that is plain.
    fn of(side: &Side, step: &Step) -> Option<Self> {
        let mut reach = Self::default();
        match &step.op {
            Op::Mkdir { path, .. } | Op::Mknod { path, .. } | Op::Symlink { path, .. } => {
                reach.path(side, path, Use::Names, Part::Whole)?;
            }
            Op::Unlink { path } | Op::Rmdir { path } => {
                reach.path(side, path, Use::Names, Part::Name)?;
            }
            Op::Rename { from, to, .. } => {
                reach.path(side, from, Use::Names, Part::Name)?;
                reach.path(side, to, Use::Names, Part::Name)?;
            }
            Op::Link { from, to, .. } => {
                reach.path(side, from, Use::Alters, Part::Whole)?;
                reach.path(side, to, Use::Names, Part::Whole)?;
            }
            Op::Truncate { path, .. } | Op::Chown { path, .. } => {
                reach.path(side, path, Use::Alters, Part::Whole)?;
            }
            Op::Chmod { path, .. }
            | Op::Utimens { path, .. }
            | Op::Setxattr { path, .. }
            | Op::Removexattr { path, .. } => {
                reach.path(side, path, Use::Alters, attribute(step))?;
            }
            Op::Getxattr { path, .. }
            | Op::Listxattr { path, .. }
            | Op::Stat { path, .. }
            | Op::Cat { path }
            | Op::Access { path, .. }
            | Op::Readlink { path }
            | Op::Readdir { path } => reach.path(side, path, Use::Looks, Part::Read)?,
            Op::Pread { h, .. }
            | Op::Pwrite { h, .. }
            | Op::Write { h, .. }
            | Op::Fallocate { h, .. } => {
                let handle = side.handles.get(usize::from(*h))?.as_ref()?;
                let part = data(&handle.fd, &step.op)?;
                reach.open(&handle.fd, part)?;
            }
            Op::MapPut { m, .. } | Op::MapGet { m, .. } => {
                let map = side.maps.get(usize::from(*m))?.as_ref()?;
                reach.open(&map.fd, Part::Whole)?;
            }
            Op::Fsync { .. } => {}
            _ => return None,
        }
        Some(reach)
    }

    fn open(&mut self, fd: &OwnedFd, part: Part) -> Option<()> {
        let stat = rustix::fs::fstat(fd).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // A directory's path would be needed, and an unlinked file has rules of its own.
        (regular && stat.st_nlink > 0).then(|| self.object(&stat, part))
    }

    fn path(&mut self, side: &Side, path: &Bytes, how: Use, part: Part) -> Option<()> {
        let (dir, path) = match side.place(path) {
            Place::Open(fd) => return self.open(fd, part),
            Place::Path(dir, path) => (dir, path),
            Place::Nowhere => return None,
        };
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&b"."[..], path.as_slice()),
        };
        // A way through other directories depends on them, too.
        if path.split(|b| *b == b'/').any(|part| part == b"..") {
            return None;
        }
        let way = parent;
        let parent = canonical(dir, parent)?;
        if way != b"." && !parent.ends_with(way) {
            return None;
        }
        if name.is_empty() && path.len() == side.root().as_os_str().len() + 1 {
            let stat = rustix::fs::statat(dir, path, AtFlags::empty()).ok()?;
            self.object(&stat, part);
            self.places.push((parent, how));
            return Some(());
        }
        if matches!(name, b"" | b"." | b"..") || name.len() > 255 {
            return None;
        }
        let full = [parent.as_slice(), b"/", name].concat();
        match rustix::fs::statat(CWD, full.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                // Whether it is followed or not, and by this step or a later one.
                let target = canonical(CWD.as_fd(), &full)?;
                let beside = target.strip_prefix(parent.as_slice())?;
                if beside.iter().filter(|b| **b == b'/').count() != 1 {
                    return None;
                }
                let there = rustix::fs::statat(CWD, target.as_slice(), AtFlags::empty()).ok()?;
                self.object(&there, Part::Whole);
                self.places.push((target, Use::Alters));
                self.object(&stat, Part::Whole);
            }
            Ok(stat) => self.object(&stat, part),
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => return None,
        }
        self.places.push((full, how));
        Some(())
    }

    fn object(&mut self, stat: &Stat, part: Part) {
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let part = match part {
            Part::Read => Part::Read,
            part if regular && stat.st_nlink == 1 => part,
            _ => Part::Whole,
        };
        self.objects.push(Object {
            ino: stat.st_ino,
            linked: !dir && stat.st_nlink > 1,
            part,
        });
    }

    /// Whether the step acts on open files alone.
    fn holds(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the step takes a name away from a file that the other acts on.
    fn took(&self, other: &Self) -> bool {
        let names = self.places.iter().any(|(_, how)| *how == Use::Names);
        let theirs = |ino| other.objects.iter().any(|object| object.ino == ino);
        names && self.objects.iter().any(|object| theirs(object.ino))
    }

    /// Whether it makes no difference which of the two comes first.
    fn commutes(&self, other: &Self) -> bool {
        let clash = |(mine, how): &(Vec<u8>, Use), (theirs, what): &(Vec<u8>, Use)| {
            let looks = *how == Use::Looks && *what == Use::Looks;
            let names = *how == Use::Names || *what == Use::Names;
            if mine == theirs {
                return names;
            }
            !looks && (above(mine, theirs) || above(theirs, mine))
        };
        let places = self
            .places
            .iter()
            .any(|mine| other.places.iter().any(|theirs| clash(mine, theirs)));
        let objects = self.objects.iter().any(|mine| {
            let theirs = other.objects.iter();
            theirs
                .filter(|theirs| mine.ino == theirs.ino || (mine.linked && theirs.linked))
                .any(|theirs| !mine.part.commutes(&theirs.part))
        });
        !places && !objects
    }
}

impl Part {
    fn commutes(&self, other: &Self) -> bool {
        self.before(other) || other.before(self)
    }

    fn before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Read, Self::Read)
            | (Self::Bytes(..) | Self::Append, Self::Mode | Self::Xattr(_) | Self::Name)
            | (Self::Mode, Self::Xattr(_) | Self::Times)
            | (Self::Times, Self::Xattr(_)) => true,
            (Self::Xattr(mine), Self::Xattr(theirs)) => mine != theirs,
            (Self::Bytes(a, a_len), Self::Bytes(b, b_len)) => a + a_len <= *b || b + b_len <= *a,
            _ => false,
        }
    }
}

/// Which part of a file a change of attributes touches; others than root may be refused because of
/// another part.
fn attribute(step: &Step) -> Part {
    let plain = |name: &Bytes| {
        let spaces: [&[u8]; 2] = [b"user.", b"trusted."];
        let known = spaces.iter().any(|space| name.0.starts_with(space));
        known && !name.0.windows(7).any(|word| word == b"overlay")
    };
    match &step.op {
        _ if step.who != Who::Root => Part::Whole,
        Op::Chmod { mode, .. } if mode.0 & 0o7000 == 0 => Part::Mode,
        Op::Utimens { .. } => Part::Times,
        Op::Setxattr { name, .. } | Op::Removexattr { name, .. } if plain(name) => {
            Part::Xattr(name.clone())
        }
        _ => Part::Whole,
    }
}

/// Which part of an open file a step on its data touches; `None` if the descriptor cannot write, as
/// such a one may still belong to the lower file on the kernel's side.
fn data(fd: &OwnedFd, op: &Op) -> Option<Part> {
    let flags = rustix::fs::fcntl_getfl(fd).ok()?;
    if let Op::Pread { .. } = op {
        return Some(Part::Read);
    }
    if (flags & OFlags::RWMODE) == OFlags::RDONLY {
        return None;
    }
    Some(match op {
        Op::Pwrite { .. } | Op::Write { .. } if flags.contains(OFlags::APPEND) => Part::Append,
        Op::Pwrite { off, len, .. } => Part::Bytes(*off, u64::from(*len)),
        _ => Part::Whole,
    })
}

/// The path of what a path leads to, without symlinks.
fn canonical(dir: BorrowedFd<'_>, path: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, path, flags, Mode::empty()).ok()?;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?;
    let path = path.into_bytes();
    (!path.ends_with(b" (deleted)")).then_some(path)
}

/// Whether `path` lies below the directory `dir`.
fn above(dir: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with(b"/"))
}
