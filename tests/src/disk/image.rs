//! The contents of a disk: blocks that share their memory with every copy of the image.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const BLOCK: usize = 4096;

/// What a disk holds. A copy costs no more than its table; what was never written is zeros.
#[derive(Debug, Clone, Default)]
pub struct Image {
    size: u64,
    blocks: BTreeMap<u64, Arc<[u8; BLOCK]>>,
}

impl Image {
    /// The image that a file holds.
    ///
    /// # Errors
    /// Those of opening and reading it.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut image = Self {
            size,
            ..Self::default()
        };
        let mut piece = vec![0; 1 << 20];
        let mut offset = 0;
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok(image);
            }
            image.write(offset, &piece[..n]);
            offset += n as u64;
        }
    }

    /// How many bytes the disk has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `data` at `offset`.
    pub fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let within = offset as usize % BLOCK;
            let (piece, rest) = data.split_at(data.len().min(BLOCK - within));
            let number = offset / BLOCK as u64;
            if piece.iter().any(|b| *b != 0) || self.blocks.contains_key(&number) {
                let block = self
                    .blocks
                    .entry(number)
                    .or_insert_with(|| Arc::new([0; BLOCK]));
                Arc::make_mut(block)[within..within + piece.len()].copy_from_slice(piece);
            }
            offset += piece.len() as u64;
            data = rest;
        }
    }

    /// Reads `len` bytes at `offset`, fewer at the end of the disk.
    #[must_use]
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = len.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut out = vec![0; len];
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = at as usize % BLOCK;
            let n = (BLOCK - within).min(len - done);
            if let Some(block) = self.blocks.get(&(at / BLOCK as u64)) {
                out[done..done + n].copy_from_slice(&block[within..within + n]);
            }
            done += n;
        }
        out
    }

    /// Writes the image into a new sparse file.
    ///
    /// # Errors
    /// Those of making and writing it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.size)?;
        for (number, block) in &self.blocks {
            file.write_all_at(&block[..], number * BLOCK as u64)?;
        }
        Ok(())
    }

    /// The numbers of the blocks that have `bytes` in them.
    #[must_use]
    pub fn blocks_with(&self, bytes: &[u8]) -> Vec<u64> {
        let has = |block: &[u8; BLOCK]| block.windows(bytes.len()).any(|w| w == bytes);
        let found = self.blocks.iter().filter(|(_, block)| has(block));
        found.map(|(number, _)| *number).collect()
    }
}

/// The number of the block that has the byte at `offset`.
pub(crate) fn block_of(offset: u64) -> u64 {
    offset / BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut image = Image {
            size: 3 * BLOCK as u64,
            ..Image::default()
        };
        image.write(4090, b"across two");
        let before = image.clone();
        image.write(4094, &[0; 4]);
        assert_eq!(before.read(4089, 12), b"\0across two\0");
        assert_eq!(image.read(4089, 12), b"\0acro\0\0\0\0wo\0");
        assert_eq!(before.blocks_with(b" two"), [1]);
        assert_eq!(image.read(3 * 4096 - 2, 10), [0, 0]);
    }
}
