//! Sparse files of GNU tar: which stretches of a file the data in the archive belongs to.
use super::header::{GNU_EXTENDED, Header, number};
use super::{BLOCK, pax};

/// A stretch of data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub at: u64,
    /// How many bytes.
    pub len: u64,
}

/// Most extents of one file: 16 MiB of memory.
pub(super) const MAX_EXTENTS: usize = 1 << 20;
const TOO_MANY: &str = "a sparse file has more than 1048576 extents";
const EXTENT: usize = 24;

/// The extents in the header of the old GNU form.
pub(super) fn gnu_header(header: &Header<'_>, into: &mut Vec<Extent>) -> Result<bool, String> {
    gnu_extents(&header.0[386..386 + 4 * EXTENT], into)?;
    Ok(header.0[GNU_EXTENDED] != 0)
}

/// The extents in a block that continues such a header; whether another one follows.
pub(super) fn gnu_extension(block: &[u8; BLOCK], into: &mut Vec<Extent>) -> Result<bool, String> {
    gnu_extents(&block[..21 * EXTENT], into)?;
    Ok(block[504] != 0)
}

fn gnu_extents(bytes: &[u8], into: &mut Vec<Extent>) -> Result<(), String> {
    for raw in bytes.as_chunks::<EXTENT>().0 {
        if raw[0] == 0 {
            return Ok(());
        }
        let field = |bytes| number(bytes).and_then(|n| u64::try_from(n).ok());
        let (Some(at), Some(len)) = (field(&raw[..12]), field(&raw[12..])) else {
            return Err("an extent of a sparse file is no number".to_owned());
        };
        push(into, Extent { at, len })?;
    }
    Ok(())
}

fn push(into: &mut Vec<Extent>, extent: Extent) -> Result<(), String> {
    if into.len() >= MAX_EXTENTS {
        return Err(TOO_MANY.to_owned());
    }
    into.push(extent);
    Ok(())
}

/// Reads the map of form 1.0, decimal numbers on lines, block by block.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    /// How many numbers are to come; None until the first line has told.
    left: Option<u64>,
    line: Vec<u8>,
    at: Option<u64>,
    map: Vec<Extent>,
}

impl MapReader {
    /// Takes one block; the map once it is complete, the rest of the block being padding.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Option<Vec<Extent>>, String> {
        for b in block {
            if *b != b'\n' {
                if self.line.len() > 20 {
                    return Err("a number of a sparse map is too long".to_owned());
                }
                self.line.push(*b);
                continue;
            }
            let n = pax::decimal(&self.line).ok_or("a sparse map holds no number")?;
            self.line.clear();
            self.number(n)?;
            if self.left == Some(0) {
                return Ok(Some(std::mem::take(&mut self.map)));
            }
        }
        Ok(None)
    }

    fn number(&mut self, n: u64) -> Result<(), String> {
        let Some(left) = self.left else {
            if n > MAX_EXTENTS as u64 {
                return Err(TOO_MANY.to_owned());
            }
            self.left = Some(2 * n);
            return Ok(());
        };
        self.left = Some(left.saturating_sub(1));
        match self.at.take() {
            None => self.at = Some(n),
            Some(at) => push(&mut self.map, Extent { at, len: n })?,
        }
        Ok(())
    }
}

/// Checks that the extents are in order, inside the file, and as long together as the data.
pub(super) fn check(map: &[Extent], real_size: u64, stored: u64) -> Result<(), String> {
    let (mut end, mut sum) = (0u64, 0u64);
    for e in map {
        let next = e.at.checked_add(e.len).filter(|n| *n <= real_size);
        let (true, Some(next)) = (e.at >= end, next) else {
            return Err("the extents of a sparse file overlap or exceed its size".to_owned());
        };
        end = next;
        sum = sum.saturating_add(e.len);
    }
    if sum == stored {
        Ok(())
    } else {
        Err("the extents of a sparse file are not as long as its data".to_owned())
    }
}
