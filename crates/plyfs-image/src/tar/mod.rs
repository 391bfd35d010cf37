//! The tar format as image layers use it, read from strangers and written reproducibly.
//!
//! Read: ustar, the old V7 and GNU forms, PAX records, sparse files of GNU tar. Written: ustar,
//! with a PAX header where ustar cannot say it.
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Entry, Limits, Reader};
pub use sparse::Extent;
pub use writer::{Meta, Writer};

use std::io;

/// Size of a tar block.
pub const BLOCK: usize = 512;

/// What kind of object an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// A further name of an object that came before.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
}

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The stream is not what a tar is, or exceeds a limit.
    #[error("at byte {at} of the tar: {why}")]
    Malformed {
        /// Offset of the header that is wrong.
        at: u64,
        /// What is wrong.
        why: String,
    },
}
