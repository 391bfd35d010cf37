//! A directory handle that is read piece by piece while the directory changes.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, RawDir, SeekFrom};
use rustix::io::{Errno, Result};

use super::outcome::{Outcome, type_letter};
use super::text::Bytes;

/// An entry as getdents gave it.
#[derive(Debug, Clone)]
pub(crate) struct Dirent {
    pub(crate) name: Bytes,
    pub(crate) letter: char,
    pub(crate) ino: u64,
    cookie: u64,
}

/// What a directory handle gave so far.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    entries: Vec<Dirent>,
    /// Names that changed since the stream began: whether they show up is left open by POSIX.
    touched: BTreeSet<Bytes>,
    ended: bool,
}

impl Stream {
    /// Somebody may have added or removed `name`.
    pub(crate) fn touch(&mut self, name: &[u8]) {
        self.touched.insert(Bytes::from(name));
    }

    /// Reads until `count` more entries came or the end is reached, without `ghosts` if asked.
    pub(crate) fn read(
        &mut self,
        fd: &OwnedFd,
        count: usize,
        buf: usize,
        ghosts: bool,
    ) -> Result<()> {
        let goal = self.entries.len().saturating_add(count);
        let mut space = vec![MaybeUninit::uninit(); buf.clamp(300, 1 << 16)];
        while !self.ended && self.entries.len() < goal {
            let mut got = batch(fd, &mut space)?;
            self.ended = got.is_empty();
            if !ghosts {
                drop_ghosts(fd, &mut got);
            }
            self.entries.extend(got);
        }
        Ok(())
    }

    /// Goes back to the position after the `n`th entry read so far.
    pub(crate) fn seek(&mut self, fd: &OwnedFd, n: usize) -> Result<()> {
        let n = n % (self.entries.len() + 1);
        if n == 0 {
            return self.rewind(fd, false);
        }
        rustix::fs::seek(fd, SeekFrom::Start(self.entries[n - 1].cookie))?;
        self.entries.truncate(n);
        self.ended = false;
        Ok(())
    }

    /// Starts over. A true rewind also forgets what was touched: it must show the present state.
    pub(crate) fn rewind(&mut self, fd: &OwnedFd, forget: bool) -> Result<()> {
        rustix::fs::seek(fd, SeekFrom::Start(0))?;
        self.entries.clear();
        self.ended = false;
        if forget {
            self.touched.clear();
        }
        Ok(())
    }

    /// Every name that did not change meanwhile, as often as it came.
    pub(crate) fn listing(&self) -> Outcome {
        let untouched = self
            .entries
            .iter()
            .filter(|entry| !self.touched.contains(&entry.name));
        Outcome::done().fact("entries", listing(untouched))
    }
}

fn listing<'a>(entries: impl Iterator<Item = &'a Dirent>) -> String {
    let mut lines: Vec<_> = entries
        .map(|entry| format!("{}({})", entry.name, entry.letter))
        .collect();
    lines.sort();
    lines.join(" ")
}

fn batch(fd: impl AsFd, space: &mut [MaybeUninit<u8>]) -> Result<Vec<Dirent>> {
    let mut got = Vec::new();
    let mut dir = RawDir::new(fd.as_fd(), space);
    while let Some(entry) = dir.next() {
        let entry = entry?;
        got.push(Dirent {
            name: Bytes::from(entry.file_name().to_bytes()),
            letter: type_letter(entry.file_type()),
            ino: entry.ino(),
            cookie: entry.next_entry_cookie(),
        });
        if dir.is_buffer_empty() {
            break;
        }
    }
    Ok(got)
}

/// Removes whiteouts that the kernel lists though they cannot be looked up.
pub(crate) fn drop_ghosts(dir: impl AsFd, entries: &mut Vec<Dirent>) {
    entries.retain(|entry| {
        let name = entry.name.0.as_slice();
        entry.letter != 'c'
            || rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).err()
                != Some(Errno::NOENT)
    });
}

/// Everything a directory lists, `.` and `..` included.
pub(crate) fn read_all(fd: impl AsFd) -> Result<Vec<Dirent>> {
    let mut space = vec![MaybeUninit::uninit(); 1 << 15];
    let mut all = Vec::new();
    loop {
        let got = batch(&fd, &mut space)?;
        if got.is_empty() {
            return Ok(all);
        }
        all.extend(got);
    }
}

/// The text form of a whole listing.
pub(crate) fn show(entries: &[Dirent]) -> String {
    listing(entries.iter())
}
