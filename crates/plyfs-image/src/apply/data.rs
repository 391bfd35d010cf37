//! Writing the data of a file; long stretches of zeros become holes.
use std::os::fd::BorrowedFd;

use plyfs_sys::{attr, io};

use super::tree::Step;

/// Only a whole aligned block of zeros is worth a hole.
const HOLE: u64 = 64 << 10;

/// Writes a file from its start to its end.
pub(super) struct DataWriter<'a> {
    fd: BorrowedFd<'a>,
    /// Where the next byte belongs.
    at: u64,
    /// Where the file ends as far as it was written.
    end: u64,
}

impl<'a> DataWriter<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        Self { fd, at: 0, end: 0 }
    }

    /// Goes on at `at`.
    pub(super) fn seek(&mut self, at: u64) {
        self.at = at;
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Step<()> {
        let mut run = 0;
        let mut done = 0;
        while done < data.len() {
            let to_edge = HOLE - (self.at + done as u64) % HOLE;
            let n = usize::try_from(to_edge)
                .unwrap_or(usize::MAX)
                .min(data.len() - done);
            let block = &data[done..done + n];
            if n as u64 == HOLE && is_zero(block) {
                self.put(&data[run..done], self.at + run as u64)?;
                run = done + n;
            }
            done += n;
        }
        self.put(&data[run..], self.at + run as u64)?;
        self.at += data.len() as u64;
        Ok(())
    }

    fn put(&mut self, mut data: &[u8], mut at: u64) -> Step<()> {
        while !data.is_empty() {
            let n = io::pwrite(self.fd, data, at)?;
            data = data.get(n..).unwrap_or_default();
            at += n as u64;
            self.end = self.end.max(at);
        }
        Ok(())
    }

    /// Gives the file its size.
    pub(super) fn finish(self, size: u64) -> Step<()> {
        if self.end != size {
            attr::truncate(self.fd, size)?;
        }
        Ok(())
    }
}

fn is_zero(block: &[u8]) -> bool {
    // The comparison with itself, shifted by one, is a memcmp: as fast as memory.
    block.first() == Some(&0) && block[1..] == block[..block.len() - 1]
}
