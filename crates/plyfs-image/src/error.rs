//! Why something with an image or the store did not work, and what to do about it.
use std::io;
use std::path::{Path, PathBuf};

use plyfs_sys::SysError;

use crate::digest::Digest;
use crate::tar::TarError;

/// Result of working with images.
pub type Result<T> = std::result::Result<T, ImageError>;

/// Why it did not work. The text says all; no cause is told apart from it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the store or of an exchange format failed.
    #[error("{doing} {path:?}: {cause}")]
    File {
        /// What was being done, as a verb with -ing.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The failure.
        cause: io::Error,
    },
    /// A system call on a layer failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// A stream failed.
    #[error("{doing}: {cause}")]
    Stream {
        /// What was being read or written.
        doing: &'static str,
        /// The failure.
        cause: io::Error,
    },
    /// An entry of a layer cannot be taken.
    #[error("entry {entry:?}: {why}")]
    Entry {
        /// Its path in the archive.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The layer as a whole cannot be taken.
    #[error("{0}")]
    BadLayer(String),
    /// Which layer it was about.
    #[error("layer {layer}: {cause}")]
    Layer {
        /// Digest of the blob or of its content.
        layer: Digest,
        /// What happened.
        cause: Box<ImageError>,
    },
    /// Content is not what its name says.
    #[error(
        "{what} is {actual} and should be {expected}: it was changed or cut off on its way, \
         get it again"
    )]
    WrongDigest {
        /// What was checked.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("{what} has {actual} bytes and should have {expected}")]
    WrongSize {
        /// What was checked.
        what: String,
        /// What it should be.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// An algorithm that is not spoken here.
    #[error("digest {0}: only sha256 and sha512 are known")]
    Algorithm(Digest),
    /// A document has the wrong form.
    #[error("{what}: {why}")]
    Malformed {
        /// Which document.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Nothing has that name or digest.
    #[error("{what} {name:?} is not in the store{hint}")]
    NotFound {
        /// "image", "container", "blob" or "layer".
        what: &'static str,
        /// As it was asked for.
        name: String,
        /// What to do, from a colon or semicolon on; may be empty.
        hint: String,
    },
    /// Something else is in the way.
    #[error("{0}")]
    Refused(String),
    /// The store was written by a later plyfs.
    #[error("the store {path:?} has format {found}, this plyfs knows {known}: use a newer plyfs")]
    NewerFormat {
        /// Where.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we know.
        known: u64,
    },
}

impl ImageError {
    /// An I/O failure on a path.
    pub fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            doing,
            path: path.to_owned(),
            cause: source,
        }
    }

    /// An I/O failure of a stream.
    pub fn stream(doing: &'static str, source: io::Error) -> Self {
        // An error of ours that travelled through `io::Error` comes out as it was.
        match source.downcast::<ImageError>() {
            Ok(own) => own,
            Err(cause) => Self::Stream { doing, cause },
        }
    }

    /// A document of the wrong form.
    pub fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Malformed {
            what: what.into(),
            why: why.to_string(),
        }
    }

    /// A refused entry.
    pub fn entry(path: &[u8], why: impl Into<String>) -> Self {
        Self::Entry {
            entry: path.escape_ascii().to_string(),
            why: why.into(),
        }
    }

    /// Says which layer it was.
    #[must_use]
    pub fn in_layer(self, layer: &Digest) -> Self {
        Self::Layer {
            layer: layer.clone(),
            cause: Box::new(self),
        }
    }
}

impl From<TarError> for ImageError {
    fn from(e: TarError) -> Self {
        match e {
            TarError::Io(e) => Self::stream("reading the layer", e),
            malformed @ TarError::Malformed { .. } => Self::BadLayer(malformed.to_string()),
        }
    }
}
