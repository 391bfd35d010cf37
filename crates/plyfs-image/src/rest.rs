//! Blobs that came unpacked, packed at rest: as well as time allows, and never holding up anybody.
//!
//! Such a blob is a row of zstd frames, one for each piece of it. While the packer keeps up with
//! the others the frames are compressed; where it falls behind, a piece is stored as it is.
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::{ImageError, Result};

/// Level of the compressed frames: disk space is worth a little time, not much.
const LEVEL: i32 = 1;
/// So many pieces that wait mean that the packer is behind.
const BEHIND: usize = 4;
/// Start of a zstd frame (RFC 8878): magic number, then a descriptor that says: one segment, its
/// size in four bytes, no checksum.
const FRAME: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
/// Largest block of a frame.
const BLOCK: usize = 128 << 10;

type Piece = Arc<Vec<u8>>;

/// Where pieces are given to the packer.
pub(crate) struct Queue {
    to: SyncSender<Piece>,
    waiting: Arc<AtomicUsize>,
}

/// Pieces that wait for the packer.
pub(crate) struct Pieces {
    from: Receiver<Piece>,
    waiting: Arc<AtomicUsize>,
}

/// A queue of up to `len` pieces.
pub(crate) fn queue(len: usize) -> (Queue, Pieces) {
    let (to, from) = sync_channel(len);
    let waiting = Arc::new(AtomicUsize::new(0));
    let queue = Queue {
        to,
        waiting: Arc::clone(&waiting),
    };
    (queue, Pieces { from, waiting })
}

impl Queue {
    /// False where the packer has ended.
    pub(crate) fn send(&self, piece: Piece) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.to.send(piece).is_ok()
    }
}

impl Pieces {
    /// Packs all of them into `file`.
    pub(crate) fn pack(self, file: &File) -> Result<()> {
        self.frames(file)
            .map_err(|e| ImageError::stream("keeping the layer's archive", e))
    }

    fn frames(self, mut file: &File) -> io::Result<()> {
        let mut packer = zstd::bulk::Compressor::new(LEVEL)?;
        // A file without any frame would be none of zstd.
        file.write_all(&stored(&[])?)?;
        for piece in self.from {
            let is_behind = self.waiting.fetch_sub(1, Ordering::Relaxed) > BEHIND;
            let frame = if is_behind {
                stored(&piece)?
            } else {
                packer.compress(&piece)?
            };
            file.write_all(&frame)?;
        }
        Ok(())
    }
}

/// A frame whose blocks are what they stand for.
fn stored(piece: &[u8]) -> io::Result<Vec<u8>> {
    let size = u32::try_from(piece.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(piece.len() + 64);
    frame.extend_from_slice(&FRAME);
    frame.extend_from_slice(&size.to_le_bytes());
    let blocks = piece.len().div_ceil(BLOCK).max(1);
    for i in 0..blocks {
        let block = &piece[i * BLOCK..piece.len().min((i + 1) * BLOCK)];
        let is_last = u32::from(i + 1 == blocks);
        let len = u32::try_from(block.len()).map_err(io::Error::other)?;
        // Three bytes: the last one or not, two bits for "raw", the length.
        frame.extend_from_slice(&((len << 3) | is_last).to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    /// What comes out of frames.
    fn read(frames: impl Read) -> Vec<u8> {
        let mut out = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::new(frames).unwrap();
        decoder.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn stored_frames_are_zstd() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK] {
            let piece: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            assert_eq!(read(&stored(&piece).unwrap()[..]), piece, "{len}");
        }
    }

    #[test]
    fn what_waits_too_long_is_stored_and_comes_out_in_order() {
        let (queue, pieces) = queue(16);
        let text: Vec<Vec<u8>> = (0..12u8).map(|i| vec![i; 1000]).collect();
        for piece in &text {
            assert!(queue.send(Arc::new(piece.clone())));
        }
        drop(queue);
        let mut file = tempfile::tempfile().unwrap();
        pieces.pack(&file).unwrap();
        let size = file.metadata().unwrap().len();
        assert!(
            size > 8 * 1000 && size < 11 * 1000,
            "some are stored, some not: {size}"
        );
        file.rewind().unwrap();
        assert_eq!(read(file), text.concat());
    }

    #[test]
    fn nothing_is_nothing() {
        let (queue, pieces) = queue(1);
        drop(queue);
        let mut file = tempfile::tempfile().unwrap();
        pieces.pack(&file).unwrap();
        file.rewind().unwrap();
        assert!(read(file).is_empty());
    }
}
