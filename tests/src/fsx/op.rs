//! The steps of a run and how they are drawn.

use std::fmt;

use rustix::fs::FallocateFlags;

use super::rng::Rng;

/// Blocks of the backing file systems: collapsing and inserting works on whole ones, direct I/O too.
pub(crate) const BLOCK: u64 = 4096;

/// A range of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) off: u64,
    pub(crate) len: u64,
}

impl Range {
    pub(crate) fn end(self) -> u64 {
        self.off + self.len
    }

    /// The smallest range of whole blocks that holds this one.
    fn blocks(self) -> Self {
        let off = self.off / BLOCK * BLOCK;
        let end = self.end().max(off + 1).div_ceil(BLOCK) * BLOCK;
        Self {
            off,
            len: end - off,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x} ({} bytes)", self.off, self.end(), self.len)
    }
}

/// By what bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// pread(2), pwrite(2).
    Call,
    /// The same on a descriptor with O_DIRECT.
    Direct,
    /// The same on a descriptor opened for this step alone.
    Fresh,
    /// A mapping that stays from step to step.
    Map,
}

/// What fallocate(2) is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Reserve,
    ReserveBeyond,
    Punch,
    Zero,
    ZeroInside,
    Collapse,
    Insert,
}

impl Space {
    pub(crate) const ALL: [Self; 7] = [
        Self::Reserve,
        Self::ReserveBeyond,
        Self::Punch,
        Self::Zero,
        Self::ZeroInside,
        Self::Collapse,
        Self::Insert,
    ];

    pub(crate) fn flags(self) -> FallocateFlags {
        let keep = FallocateFlags::KEEP_SIZE;
        match self {
            Self::Reserve => FallocateFlags::empty(),
            Self::ReserveBeyond => keep,
            Self::Punch => FallocateFlags::PUNCH_HOLE | keep,
            Self::Zero => FallocateFlags::ZERO_RANGE,
            Self::ZeroInside => FallocateFlags::ZERO_RANGE | keep,
            Self::Collapse => FallocateFlags::COLLAPSE_RANGE,
            Self::Insert => FallocateFlags::INSERT_RANGE,
        }
    }
}

/// How a file is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reopen {
    Plain,
    Truncate,
}

/// One step on one file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Read(Way, Range),
    Write(Way, Range),
    Append(u64),
    Truncate {
        to: u64,
        by_path: bool,
    },
    Allocate(Space, Range),
    /// copy_file_range(2) into the file with this index, which may be the same.
    Copy {
        to: usize,
        from: Range,
        into: u64,
    },
    Reopen(Reopen),
    Map,
    Sync,
    /// Throws the cached pages away, so that the next read asks.
    Forget,
    /// SEEK_HOLE and SEEK_DATA from here on: a hole reads as zeros.
    Holes(u64),
    /// Reads all of it.
    Check,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(way, range) => write!(f, "read {way:?} {range}"),
            Self::Write(way, range) => write!(f, "write {way:?} {range}"),
            Self::Append(len) => write!(f, "append {len} bytes"),
            Self::Truncate { to, by_path: false } => write!(f, "ftruncate to {to:#x}"),
            Self::Truncate { to, by_path: true } => write!(f, "truncate to {to:#x}"),
            Self::Allocate(space, range) => write!(f, "fallocate {space:?} {range}"),
            Self::Copy { to, from, into } => write!(f, "copy {from} to {into:#x} of file {to}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What the generator knows.
#[derive(Debug)]
pub(crate) struct Draw<'a> {
    /// The sizes of the files at work.
    pub(crate) sizes: &'a [u64],
    /// No file becomes larger.
    pub(crate) max_len: u64,
    /// What fallocate can do here.
    pub(crate) spaces: &'a [Space],
}

impl Draw<'_> {
    /// The next step: on which file, and what.
    pub(crate) fn step(&self, rng: &mut Rng) -> (usize, Op) {
        let on = rng.below(self.sizes.len() as u64) as usize;
        let size = self.sizes[on];
        let op = match rng.below(100) {
            0..22 => Op::Read(way(rng), self.inside(rng, size)),
            22..50 => self.write(rng, size),
            50..53 => Op::Append(rng.below(self.max_len.saturating_sub(size).min(0x3000))),
            53..62 => {
                let to = if rng.chance(50) {
                    rng.below(size + 1)
                } else {
                    rng.below(self.max_len)
                };
                Op::Truncate {
                    to,
                    by_path: rng.chance(30),
                }
            }
            62..77 => self.allocate(rng, size),
            77..84 => self.copy(rng, on),
            84..88 => Op::Reopen(if rng.chance(10) {
                Reopen::Truncate
            } else {
                Reopen::Plain
            }),
            88..91 => Op::Map,
            91..93 => Op::Sync,
            93..96 => Op::Forget,
            96..98 => Op::Holes(rng.below(size)),
            _ => Op::Check,
        };
        (on, op)
    }

    /// A range that begins in the file and may end behind it.
    fn inside(&self, rng: &mut Rng, size: u64) -> Range {
        let off = rng.below(size);
        Range {
            off,
            len: length(rng).min(self.max_len - off),
        }
    }

    /// A range anywhere below the greatest size.
    fn anywhere(&self, rng: &mut Rng, size: u64) -> Range {
        let bound = if rng.chance(80) { size } else { self.max_len };
        let off = rng.below(bound.min(self.max_len - 1));
        Range {
            off,
            len: length(rng).min(self.max_len - off),
        }
    }

    fn write(&self, rng: &mut Rng, size: u64) -> Op {
        match way(rng) {
            Way::Map if size > 0 => {
                let off = rng.below(size);
                Op::Write(
                    Way::Map,
                    Range {
                        off,
                        len: length(rng).min(size - off),
                    },
                )
            }
            Way::Direct => Op::Write(Way::Direct, self.anywhere(rng, size).blocks()),
            way => Op::Write(way, self.anywhere(rng, size)),
        }
    }

    fn allocate(&self, rng: &mut Rng, size: u64) -> Op {
        let space = self.spaces[rng.below(self.spaces.len() as u64) as usize];
        let range = self.anywhere(rng, size);
        let blocks = range.blocks();
        match space {
            Space::Collapse if blocks.end() < size => Op::Allocate(space, blocks),
            Space::Insert if blocks.off < size && size + blocks.len <= self.max_len => {
                Op::Allocate(space, blocks)
            }
            Space::Collapse | Space::Insert => Op::Check,
            _ => Op::Allocate(space, range),
        }
    }

    fn copy(&self, rng: &mut Rng, on: usize) -> Op {
        let to = rng.below(self.sizes.len() as u64) as usize;
        let from = self.inside(rng, self.sizes[on]);
        let mut into = self.anywhere(rng, self.sizes[to]).off;
        if rng.chance(40) {
            // Whole blocks are where a file system can share instead of copying.
            into = into / BLOCK * BLOCK;
        }
        // A file that grows while it is copied into itself would have no end.
        let len = from
            .len
            .min(self.max_len - into)
            .min(self.sizes[on].saturating_sub(from.off));
        let from = Range { len, ..from };
        let overlaps = to == on && from.off < into + len && into < from.end();
        if overlaps {
            Op::Check
        } else {
            Op::Copy { to, from, into }
        }
    }
}

fn way(rng: &mut Rng) -> Way {
    match rng.below(10) {
        0..5 => Way::Call,
        5..8 => Way::Map,
        8 => Way::Fresh,
        _ => Way::Direct,
    }
}

/// Mostly small, sometimes many pages; often just at the edge of a page.
fn length(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0..4 => 1 + rng.below(0x800),
        4..8 => 1 + rng.below(0x4000),
        8 => BLOCK * (1 + rng.below(4)),
        _ => 1 + rng.below(0x1_0000),
    }
}
