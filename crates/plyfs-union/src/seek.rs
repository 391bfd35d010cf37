//! SEEK_DATA and SEEK_HOLE: what the layer says, once the kernel has stored what it had cached.
//!
//! The kernel asks without storing its pages first. What it holds back can only turn holes into
//! data, so no more than the holes of an answer need to be stored before it is given, and pages of
//! data, which are worth keeping, stay.
use plyfs_sys::{Errno, SysError, io};

use crate::inode::NodeId;
use crate::{Error, Result, Union};

/// How often an answer is checked before everything behind the place is stored at once.
const TRIES: usize = 16;

/// What a search for data or a hole has found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The answer.
    At(i64),
    /// The kernel has to store pages first: [`Union::seek`] waits for that, and must not run on
    /// a thread that serves the kernel.
    Unsure,
}

/// A hole of the layer's file that the kernel may have data for; `len` 0 reaches to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    off: u64,
    len: u64,
}

impl Union {
    /// `lseek(2)` for SEEK_DATA and SEEK_HOLE as far as it needs no stores of the kernel.
    ///
    /// # Errors
    /// EINVAL, ESTALE, EIO and the like.
    pub fn seek_now(&self, node: NodeId, off: i64, whence: i32) -> Result<Found> {
        match self.search(node, off, whence)? {
            (Ok(at), None) => Ok(Found::At(at)),
            (Err(e), None) => Err(e.into()),
            (_, Some(_)) => Ok(Found::Unsure),
        }
    }

    /// `lseek(2)` for SEEK_DATA and SEEK_HOLE. Waits until the kernel has stored pages, which
    /// takes requests of its own.
    ///
    /// # Errors
    /// ENXIO, EINVAL and the like.
    pub fn seek(&self, node: NodeId, off: i64, whence: i32) -> Result<i64> {
        let mut last = None;
        for _ in 0..TRIES {
            let (answer, hole) = self.search(node, off, whence)?;
            if hole.is_none() || hole == last {
                return Ok(answer?);
            }
            if let Some(hole) = hole {
                self.launder(node, hole.off, hole.len);
            }
            last = hole;
        }
        // Somebody keeps writing there.
        self.launder(node, off.max(0).cast_unsigned(), 0);
        Ok(self.search(node, off, whence)?.0?)
    }

    /// What the layer answers, and the hole on which the answer rests.
    fn search(&self, node: NodeId, off: i64, whence: i32) -> Result<(Answer, Option<Hole>)> {
        let inode = self.inode(node)?;
        let file = self.file_seen_by(node, &inode)?;
        let seek = |from, whence| match io::lseek(file.fd(), from, whence) {
            Err(e) if e.errno() == Errno::ENXIO => Ok(None),
            other => other.map(Some),
        };
        let at = seek(off, whence)?;
        let hole = match (whence, at) {
            (io::SEEK_DATA, Some(at)) if at == off => None,
            (io::SEEK_DATA, at) => Some(Hole::new(off, at)),
            (io::SEEK_HOLE, Some(at)) => Some(Hole::new(at, seek(at, io::SEEK_DATA)?)),
            (io::SEEK_HOLE, None) => Some(Hole::new(off, None)),
            _ => return Err(Error::Invalid("a search is for data or for a hole")),
        };
        Ok((at.ok_or(SysError::new("lseek", Errno::ENXIO)), hole))
    }
}

/// What the layer answers: a place, or that there is none.
type Answer = std::result::Result<i64, SysError>;

impl Hole {
    fn new(from: i64, to: Option<i64>) -> Self {
        let len = |to: i64| to.saturating_sub(from).max(0).cast_unsigned();
        Self {
            off: from.max(0).cast_unsigned(),
            len: to.map_or(0, len),
        }
    }
}
