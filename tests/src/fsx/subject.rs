//! One file under test beside its copy in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, SeekFrom};

use super::mapping::Mapping;
use super::op::{BLOCK, Op, Range, Reopen, Space, Way};
use super::rng::pattern;

/// An open file and what it must hold.
#[derive(Debug)]
pub(crate) struct Subject {
    path: PathBuf,
    file: File,
    map: Option<Mapping>,
    copy: Vec<u8>,
    max_len: u64,
}

impl Subject {
    /// Takes over a file that holds `copy`; a file that is not there is made, and empty then.
    pub(crate) fn open(path: &Path, copy: Vec<u8>, max_len: u64) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(copy.is_empty())
            .open(path)?;
        let path = path.to_owned();
        Ok(Self {
            path,
            file,
            map: None,
            copy,
            max_len,
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.copy.len() as u64
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Lets go of the file; what it must hold.
    pub(crate) fn into_copy(self) -> Vec<u8> {
        self.copy
    }

    /// Does a step on the file and on the copy. `mark` tells the written bytes of this step apart.
    pub(crate) fn apply(&mut self, op: &Op, mark: u64) -> Result<()> {
        match *op {
            Op::Read(way, range) => self.read(way, range),
            Op::Write(way, range) => self.write(way, range, mark),
            Op::Append(len) => self.append(&pattern(mark, self.size(), len as usize)),
            Op::Truncate { to, by_path } => self.truncate(to, by_path),
            Op::Allocate(space, range) => self.allocate(space, range),
            Op::Copy { .. } => bail!("a copy takes two files"),
            Op::Reopen(how) => self.reopen(how),
            Op::Map => {
                self.map = None;
                self.mapped().map(drop)
            }
            Op::Sync => Ok(self.file.sync_data()?),
            Op::Forget => {
                self.file.sync_data()?;
                Ok(rustix::fs::fadvise(
                    &self.file,
                    0,
                    None::<NonZeroU64>,
                    Advice::DontNeed,
                )?)
            }
            Op::Holes(from) => self.holes(from),
            Op::Check => self.check(),
        }
    }

    /// Changes the copy as writing `bytes` at `off` does.
    pub(crate) fn write_copy(&mut self, off: u64, bytes: &[u8]) {
        let (off, end) = (off as usize, off as usize + bytes.len());
        if bytes.is_empty() {
            return;
        }
        if self.copy.len() < end {
            self.copy.resize(end, 0);
        }
        self.copy[off..end].copy_from_slice(bytes);
    }

    /// What the copy holds in a range, as far as it reaches.
    pub(crate) fn expected(&self, range: Range) -> &[u8] {
        let size = self.copy.len();
        &self.copy[(range.off as usize).min(size)..(range.end() as usize).min(size)]
    }

    fn direct(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&self.path)
            .context("opening with O_DIRECT")
    }

    fn mapped(&mut self) -> Result<&Mapping> {
        if self.map.is_none() {
            let map = Mapping::writable(&self.file, self.max_len as usize);
            self.map = Some(map.context("mapping")?);
        }
        self.map.as_ref().context("just mapped")
    }

    fn read(&mut self, way: Way, range: Range) -> Result<()> {
        let got = match way {
            Way::Call => read_up_to(&self.file, range)?,
            Way::Fresh => read_up_to(&File::open(&self.path)?, range)?,
            Way::Direct => {
                let off = range.off / BLOCK * BLOCK;
                let len = (range.end().max(off + 1)).div_ceil(BLOCK) * BLOCK - off;
                return self.read_direct(Range { off, len });
            }
            Way::Map => {
                let len = self.expected(range).len();
                self.mapped()?.read(range.off as usize, len)?
            }
        };
        same(self.expected(range), &got, range.off)
    }

    fn read_direct(&self, range: Range) -> Result<()> {
        let file = self.direct()?;
        let mut room = vec![0; (range.len + BLOCK) as usize];
        let buffer = aligned(&mut room, range.len as usize);
        let mut got = 0;
        while got < buffer.len() {
            let count = file.read_at(&mut buffer[got..], range.off + got as u64)?;
            got += count;
            if count == 0 || !(count as u64).is_multiple_of(BLOCK) {
                break;
            }
        }
        same(self.expected(range), &buffer[..got], range.off)
    }

    fn write(&mut self, way: Way, range: Range, mark: u64) -> Result<()> {
        let bytes = pattern(mark, range.off, range.len as usize);
        match way {
            Way::Call => self.file.write_all_at(&bytes, range.off)?,
            Way::Fresh => {
                let file = OpenOptions::new().write(true).open(&self.path)?;
                file.write_all_at(&bytes, range.off)?;
            }
            Way::Direct => {
                let mut room = vec![0; bytes.len() + BLOCK as usize];
                let buffer = aligned(&mut room, bytes.len());
                buffer.copy_from_slice(&bytes);
                self.direct()?.write_all_at(buffer, range.off)?;
            }
            Way::Map => {
                // Past the end there is no page to write to.
                let len = self.expected(range).len();
                self.mapped()?.write(range.off as usize, &bytes[..len])?;
                self.write_copy(range.off, &bytes[..len]);
                return Ok(());
            }
        }
        self.write_copy(range.off, &bytes);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        use std::io::Write as _;
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(bytes)?;
        self.write_copy(self.size(), bytes);
        Ok(())
    }

    fn truncate(&mut self, to: u64, by_path: bool) -> Result<()> {
        if by_path {
            nix::unistd::truncate(&self.path, to.cast_signed())?;
        } else {
            self.file.set_len(to)?;
        }
        self.copy.resize(to as usize, 0);
        Ok(())
    }

    fn allocate(&mut self, space: Space, range: Range) -> Result<()> {
        rustix::fs::fallocate(&self.file, space.flags(), range.off, range.len)?;
        let (off, end) = (range.off as usize, range.end() as usize);
        if matches!(space, Space::Reserve | Space::Zero) && self.copy.len() < end {
            self.copy.resize(end, 0);
        }
        let size = self.copy.len();
        match space {
            Space::Reserve | Space::ReserveBeyond => {}
            Space::Punch | Space::Zero | Space::ZeroInside => {
                self.copy[off.min(size)..end.min(size)].fill(0);
            }
            Space::Collapse => drop(self.copy.drain(off..end)),
            Space::Insert => {
                self.copy
                    .splice(off..off, std::iter::repeat_n(0, end - off));
            }
        }
        Ok(())
    }

    fn reopen(&mut self, how: Reopen) -> Result<()> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .truncate(how == Reopen::Truncate);
        // The old descriptor goes first; a mapping of it stays.
        self.file = File::open("/dev/null")?;
        self.file = options.open(&self.path)?;
        if how == Reopen::Truncate {
            self.copy.clear();
        }
        Ok(())
    }

    /// A hole holds zeros, and everything between two holes is data.
    fn holes(&self, from: u64) -> Result<()> {
        let size = self.size();
        let mut at = from;
        while at < size {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => size,
                Err(e) => bail!("SEEK_DATA from {at:#x} of {size:#x}: {e}"),
            };
            ensure!(
                data >= at && data <= size,
                "SEEK_DATA from {at:#x} of {size:#x}: {data:#x}"
            );
            let hole = &self.copy[at as usize..data as usize];
            if let Some(place) = hole.iter().position(|byte| *byte != 0) {
                bail!(
                    "a hole at {at:#x}..{data:#x} has data at {:#x}",
                    at + place as u64
                );
            }
            if data == size {
                break;
            }
            at = rustix::fs::seek(&self.file, SeekFrom::Hole(data))
                .with_context(|| format!("SEEK_HOLE from {data:#x} of {size:#x}"))?;
            ensure!(
                at > data && at <= size,
                "SEEK_HOLE from {data:#x} of {size:#x}: {at:#x}"
            );
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let size = self.size();
        let (by_fd, by_path) = (self.file.metadata()?.len(), self.path.metadata()?.len());
        ensure!(by_fd == size, "fstat says {by_fd:#x} bytes, not {size:#x}");
        ensure!(
            by_path == size,
            "stat says {by_path:#x} bytes, not {size:#x}"
        );
        let all = Range {
            off: 0,
            len: size + 1,
        };
        same(&self.copy, &read_up_to(&self.file, all)?, 0).context("read(2)")?;
        if let Some(map) = &self.map {
            same(&self.copy, &map.read(0, size as usize)?, 0).context("the mapping")?;
            let page = size.div_ceil(BLOCK) * BLOCK;
            let rest = map.read(size as usize, (page - size) as usize)?;
            ensure!(
                rest.iter().all(|byte| *byte == 0),
                "bytes behind the end in the last page"
            );
        }
        Ok(())
    }
}

/// The part of `room` that direct I/O can use; `room` is a block larger than `len`.
fn aligned(room: &mut [u8], len: usize) -> &mut [u8] {
    let skip = room.as_ptr().align_offset(BLOCK as usize);
    &mut room[skip..skip + len]
}

fn read_up_to(file: &File, range: Range) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; range.len as usize];
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], range.off + got as u64)? {
            0 => break,
            count => got += count,
        }
    }
    bytes.truncate(got);
    Ok(bytes)
}

/// Fails with the first and last difference.
fn same(expected: &[u8], got: &[u8], off: u64) -> Result<()> {
    let differs = |(a, b): (&u8, &u8)| a != b;
    if let Some(first) = expected.iter().zip(got).position(differs) {
        let count = expected.iter().zip(got).filter(|(a, b)| a != b).count();
        let show = |bytes: &[u8]| format!("{:02x?}", &bytes[first..bytes.len().min(first + 16)]);
        bail!(
            "{count} bytes differ, first at {:#x}: expected {}, got {}",
            off + first as u64,
            show(expected),
            show(got)
        );
    }
    ensure!(
        expected.len() == got.len(),
        "read {:#x} bytes at {off:#x}, not {:#x}",
        got.len(),
        expected.len()
    );
    Ok(())
}
