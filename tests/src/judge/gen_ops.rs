//! Random operations that follow what the stack holds, so that most of them mean something.

use super::case::{Case, Kind};
pub(crate) use super::gen_paths::Generator;
use super::gen_paths::Slot;
use super::gen_stack::{mode, owner, symlink_target, time, xattr};
use super::ops::{How, Node, Op, Stamp, Step, Who};
use super::rng::Rng;
use super::side::{HANDLES, MAPS};
use super::text::{Bytes, Mode};

/// Attributes that the union keeps to itself, or escapes.
const OVERLAY_NAMES: &[&str] = &[
    "trusted.overlay.judge",
    "trusted.overlay.opaque",
    "trusted.overlay.overlay.opaque",
    "user.overlay.judge",
];

/// fallocate modes: 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, and one that is always wrong.
const FALLOCATE: &[u32] = &[0, 0, 1, 3, 3, 2];

/// On disk file systems also ZERO_RANGE, with and without KEEP_SIZE. (FUSE knows no COLLAPSE or INSERT.)
const DISK_FALLOCATE: &[u32] = &[0, 1, 3, 16, 17];

impl Generator {
    /// A generator for a case's stack.
    pub(crate) fn new(rng: Rng, case: &Case, remounts: bool) -> Self {
        let mut generator = Self {
            rng,
            known: vec![(Bytes::default(), true)],
            dressed: Vec::new(),
            slots: [Slot::Empty; HANDLES],
            maps: [false; MAPS],
            remounts,
            disk: false,
            locks: false,
            focus: None,
            pending: Default::default(),
        };
        for entry in case.layers.iter().flatten().chain(&case.upper) {
            generator.learn_path(&entry.path, entry.kind == Kind::Dir);
            for (name, _) in &entry.xattrs {
                generator.dressed.push((entry.path.clone(), name.clone()));
            }
        }
        generator
    }

    /// Also tries what only disk file systems can do.
    pub(crate) fn on_disk(mut self, disk: bool) -> Self {
        self.disk = disk;
        self
    }

    /// Also makes files append-only and immutable.
    pub(crate) fn with_immutable(mut self, locks: bool) -> Self {
        self.locks = locks;
        self
    }

    /// The next step.
    pub(crate) fn next(&mut self) -> Step {
        if let Some(step) = self.pending.pop_front() {
            return step;
        }
        let who = self
            .rng
            .weighted(&[(75, Who::Root), (15, Who::Alice), (10, Who::Bob)]);
        let op = match self.rng.below(100) {
            0..=13 => self.open(),
            14..=36 => self.on_handle(),
            37..=62 => self.name_op(),
            63..=77 => self.attribute_op(),
            78..=89 => self.look(),
            90 => self.replace_dir(),
            91..=95 => self.together(),
            96 => Op::Umask {
                mask: *self.rng.pick(&[0, 0o022, 0o027, 0o077]),
            },
            97 => Op::Check,
            98 if self.remounts && self.rng.chance(60) => Op::Remount,
            99 if self.remounts && self.rng.chance(40) => Op::Swap,
            _ => self.name_op(),
        };
        let whole = matches!(
            op,
            Op::Check | Op::Remount | Op::Swap | Op::Umask { .. } | Op::Together { .. }
        );
        Step {
            who: if whole { Who::Root } else { who },
            op,
        }
    }

    /// Removes a directory with all that is in it and makes it again: what lies below in the lowers
    /// must not come back.
    fn replace_dir(&mut self) -> Op {
        let dir = self.known_where(Some(true));
        let inside = [dir.0.as_slice(), b"/"].concat();
        let mut below: Vec<_> = self
            .known
            .iter()
            .filter(|(path, _)| path.0.starts_with(&inside))
            .cloned()
            .collect();
        if dir.0.is_empty() || below.len() > 10 {
            return self.name_op();
        }
        below.sort_by(|a, b| b.cmp(a));
        let removals = below.into_iter().map(|(path, is_dir)| match is_dir {
            true => Op::Rmdir { path },
            false => Op::Unlink { path },
        });
        let last = [
            Op::Rmdir { path: dir.clone() },
            Op::Mkdir {
                path: dir,
                mode: mode(&mut self.rng, true),
            },
        ];
        let steps = removals.chain(last).map(Step::whole);
        self.pending.extend(steps);
        self.pending
            .pop_front()
            .map_or_else(|| self.name_op(), |step| step.op)
    }

    /// Lists of steps for several threads, mostly near each other.
    fn together(&mut self) -> Op {
        self.focus = Some(self.known_where(Some(true)));
        let mut lanes = Vec::new();
        for _ in 0..self.rng.range(2, 4) {
            let mut lane = Vec::new();
            for _ in 0..self.rng.range(1, 4) {
                let op = match self.rng.below(10) {
                    0..=3 => self.name_op(),
                    4..=6 => self.attribute_op(),
                    7 | 8 => self.on_handle(),
                    _ => self.look(),
                };
                let who = self.rng.weighted(&[(85, Who::Root), (15, Who::Alice)]);
                lane.push(Step { who, op });
            }
            lanes.push(lane);
        }
        self.focus = None;
        Op::Together { lanes }
    }

    fn open(&mut self) -> Op {
        let h = self.rng.below(HANDLES as u64) as u8;
        let mut words = vec![
            self.rng
                .weighted(&[(35, "RDONLY"), (40, "RDWR"), (25, "WRONLY")]),
        ];
        let path = match self.rng.below(100) {
            0..=24 => {
                words = vec!["RDONLY"];
                if self.rng.chance(70) {
                    words.push("DIRECTORY");
                }
                self.directory()
            }
            25..=44 => {
                words.push("CREAT");
                if self.rng.chance(30) {
                    words.push("EXCL");
                }
                self.fresh()
            }
            _ => self.file(),
        };
        for (percent, word) in [
            (12, "TRUNC"),
            (12, "APPEND"),
            (5, "CREAT"),
            (5, "NOFOLLOW"),
            (3, "SYNC"),
            (2, "EXCL"),
        ] {
            if self.rng.chance(percent) && !words.contains(&word) {
                words.push(word);
            }
        }
        if self.rng.chance(4) {
            words = vec!["PATH"];
        }
        Op::Open {
            h,
            path,
            flags: words.join("|"),
            mode: mode(&mut self.rng, false),
        }
    }

    fn offset(&mut self) -> u64 {
        match self.rng.below(10) {
            0..=3 => 0,
            4..=6 => self.rng.range(1, 300),
            7 => self.rng.below(5) * 4096,
            _ => self.rng.range(0, 210_000),
        }
    }

    fn len(&mut self) -> u32 {
        match self.rng.below(10) {
            0 => 0,
            1..=5 => self.rng.range(1, 300) as u32,
            6 | 7 => 4096,
            8 => self.rng.range(1, 20_000) as u32,
            _ => self.rng.range(1, 200_000) as u32,
        }
    }

    fn seed(&mut self) -> u32 {
        self.rng.below(10_000) as u32
    }

    fn on_handle(&mut self) -> Op {
        if self.rng.chance(20)
            && let Some(h) = self.slot(Slot::Dir)
        {
            return self.on_stream(h);
        }
        if self.rng.chance(25) && self.maps.iter().any(|used| *used) {
            return self.on_map();
        }
        let Some(h) = self.slot(Slot::File) else {
            return self.open();
        };
        let (off, len) = (self.offset(), self.len());
        match self.rng.below(100) {
            0..=9 => Op::Read { h, len },
            10..=24 => Op::Write {
                h,
                len,
                seed: self.seed(),
            },
            25..=34 => Op::Pread { h, off, len },
            35..=49 => Op::Pwrite {
                h,
                off,
                len,
                seed: self.seed(),
            },
            50..=55 => Op::Truncate {
                path: Bytes::from(format!("@{h}").as_str()),
                len: off,
            },
            56..=58 => Op::Fsync {
                h,
                data: self.rng.chance(50),
            },
            59..=65 => {
                let mode = *self
                    .rng
                    .pick(if self.disk { DISK_FALLOCATE } else { FALLOCATE });
                Op::Fallocate {
                    h,
                    mode,
                    off,
                    len: u64::from(len),
                }
            }
            66..=72 => {
                let whence = *self.rng.pick(&["set", "cur", "end", "data", "hole"]);
                let off = if self.rng.chance(10) { -5 } else { off as i64 };
                Op::Lseek {
                    h,
                    whence: whence.to_owned(),
                    off,
                }
            }
            73..=78 => {
                let to = self.slot(Slot::File).unwrap_or(h);
                // Overlapping ranges are refused, sooner or later than immutable files.
                let off_out = self.offset() + if to == h { off + u64::from(len) } else { 0 };
                Op::CopyRange {
                    from: h,
                    to,
                    off_in: off,
                    off_out,
                    len: u64::from(len),
                }
            }
            79..=83 => Op::MapRead { h, off, len },
            84..=89 => Op::Map {
                h,
                m: self.rng.below(MAPS as u64) as u8,
            },
            90..=94 => Op::Stat {
                path: Bytes::from(format!("@{h}").as_str()),
                nofollow: false,
            },
            95 => Op::Getflags { h },
            96 => {
                // NODUMP and NOATIME; APPEND and IMMUTABLE only if asked for.
                let flags = if self.locks {
                    [0, 0x20, 0x10]
                } else {
                    [0, 0x40, 0x80]
                };
                let flags = *self.rng.pick(&flags);
                Op::Setflags { h, flags }
            }
            97 => {
                let how = *self.rng.pick(&["sh", "ex", "un"]);
                Op::Flock {
                    h,
                    how: how.to_owned(),
                }
            }
            _ => Op::Close { h },
        }
    }

    fn on_stream(&mut self, h: u8) -> Op {
        match self.rng.below(10) {
            0..=3 => {
                let n = self.rng.range(1, 6) as u8;
                Op::DirRead {
                    h,
                    n,
                    buf: *self.rng.pick(&[300, 300, 512, 4096]),
                }
            }
            4 | 5 => Op::DirSeek {
                h,
                n: self.rng.below(12) as u8,
            },
            6 => Op::DirRewind { h },
            7 | 8 => Op::DirEnd { h },
            _ => Op::Close { h },
        }
    }

    fn on_map(&mut self) -> Op {
        let used: Vec<_> = (0..MAPS).filter(|at| self.maps[*at]).collect();
        let m = *self.rng.pick(&used) as u8;
        let (off, len) = (self.offset() % 5000, self.len());
        match self.rng.below(10) {
            0..=4 => Op::MapPut {
                m,
                off,
                len,
                seed: self.seed(),
            },
            5..=7 => Op::MapGet { m, off, len },
            _ => Op::Unmap { m },
        }
    }

    fn name_op(&mut self) -> Op {
        match self.rng.below(100) {
            0..=14 => Op::Mkdir {
                path: self.fresh(),
                mode: mode(&mut self.rng, true),
            },
            15..=24 => Op::Rmdir {
                path: self.directory(),
            },
            25..=44 => Op::Unlink { path: self.file() },
            45..=74 => self.rename(),
            75..=84 => {
                let from = match self.rng.below(10) {
                    0..=7 => self.file(),
                    _ => self.path_or_handle(),
                };
                Op::Link {
                    from,
                    to: self.fresh(),
                    follow: self.rng.chance(20),
                }
            }
            85..=91 => {
                let path = self.fresh();
                Op::Symlink {
                    target: symlink_target(&mut self.rng, path.last_name()),
                    path,
                }
            }
            _ => {
                let node = *self.rng.pick(&[
                    Node::File,
                    Node::File,
                    Node::Fifo,
                    Node::Socket,
                    Node::Char(1, 3),
                    Node::Char(0, 0),
                    Node::Block(200, 7),
                ]);
                Op::Mknod {
                    path: self.fresh(),
                    node,
                    mode: mode(&mut self.rng, false),
                }
            }
        }
    }

    fn rename(&mut self) -> Op {
        let how = self.rng.weighted(&[
            (65, How::Plain),
            (12, How::Noreplace),
            (20, How::Exchange),
            (3, How::Whiteout),
        ]);
        let dirs = self.rng.chance(40);
        let from = if dirs { self.directory() } else { self.file() };
        let to = match self.rng.below(10) {
            _ if how == How::Exchange => self.existing(),
            0..=4 => self.fresh(),
            5 => self.existing(),
            _ if dirs => self.directory(),
            _ => self.file(),
        };
        Op::Rename { from, to, how }
    }

    fn stamp(&mut self) -> Stamp {
        match self.rng.below(5) {
            0 => Stamp::Now,
            1 => Stamp::Omit,
            _ => {
                let (sec, nsec) = time(&mut self.rng);
                Stamp::At(sec, nsec)
            }
        }
    }

    /// A path and the name of an attribute, which it often has.
    fn path_and_xattr(&mut self) -> (Bytes, Bytes) {
        if self.rng.chance(60) && !self.dressed.is_empty() {
            return self.rng.pick(&self.dressed).clone();
        }
        let kind = *self.rng.pick(&['f', 'd']);
        let (name, _) = xattr(&mut self.rng, kind);
        (self.path_or_handle(), name)
    }

    fn attribute_op(&mut self) -> Op {
        let path = self.path_or_handle();
        let nofollow = self.rng.chance(30);
        let dir = self.known.iter().any(|(known, dir)| *known == path && *dir);
        match self.rng.below(100) {
            0..=21 => Op::Chmod {
                path,
                mode: mode(&mut self.rng, dir),
            },
            22..=39 => {
                let uid = self.rng.chance(70).then(|| owner(&mut self.rng));
                // Neither of them would be a question of permission that FUSE does not pass on.
                let gid = (uid.is_none() || self.rng.chance(60)).then(|| owner(&mut self.rng));
                Op::Chown {
                    path,
                    uid,
                    gid,
                    nofollow,
                }
            }
            40..=56 => Op::Utimens {
                path,
                atime: self.stamp(),
                mtime: self.stamp(),
                nofollow,
            },
            57..=81 => {
                let (mut name, value) = xattr(&mut self.rng, if dir { 'd' } else { 'f' });
                if self.rng.chance(6) {
                    name = Bytes::from(*self.rng.pick(OVERLAY_NAMES));
                }
                let flags = *self.rng.pick(&[0, 0, 0, 1, 2]);
                Op::Setxattr {
                    path,
                    name,
                    value,
                    flags,
                    nofollow,
                }
            }
            82..=89 => {
                let (path, name) = self.path_and_xattr();
                Op::Removexattr {
                    path,
                    name,
                    nofollow,
                }
            }
            _ => Op::Truncate {
                path: self.file(),
                len: self.offset(),
            },
        }
    }

    fn look(&mut self) -> Op {
        let nofollow = self.rng.chance(60);
        match self.rng.below(100) {
            0..=29 => Op::Stat {
                path: self.path_or_handle(),
                nofollow,
            },
            30..=49 => Op::Readdir {
                path: self.directory(),
            },
            50..=67 => Op::Cat { path: self.file() },
            68..=73 => Op::Readlink { path: self.file() },
            74..=81 => Op::Access {
                path: self.existing(),
                mode: self.rng.below(8) as u32,
            },
            82..=89 => Op::Listxattr {
                path: self.path_or_handle(),
                nofollow,
            },
            _ => {
                let (path, name) = self.path_and_xattr();
                Op::Getxattr {
                    path,
                    name,
                    nofollow,
                }
            }
        }
    }
}

/// Steps for making a layer: renames of directories and changes of metadata.
pub(crate) fn layer_steps(generator: &mut Generator, count: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..count {
        let mode = Mode(*generator.rng.pick(&[0o700, 0o640, 0o2755]));
        let op = match generator.rng.below(10) {
            0..=4 => {
                let (from, to) = (generator.known_where(Some(true)), generator.fresh());
                if from.0.is_empty() || to.0.contains(&b'@') {
                    continue;
                }
                Op::Rename {
                    from,
                    to,
                    how: How::Plain,
                }
            }
            5..=7 => Op::Chmod {
                path: generator.known_where(Some(false)),
                mode,
            },
            8 => Op::Unlink {
                path: generator.known_where(Some(false)),
            },
            _ => Op::Mkdir {
                path: generator.fresh(),
                mode,
            },
        };
        let step = Step { who: Who::Root, op };
        generator.learn(&step, true);
        steps.push(step);
    }
    steps
}
