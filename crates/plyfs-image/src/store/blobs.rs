//! Blobs: content under its digest, as it came.
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

use super::Store;
use crate::digest::{self, Digest, Hasher};
use crate::error::{ImageError, Result};

/// A blob that is being read.
pub enum Blob {
    /// As it is on disk.
    Plain(File),
    /// Packed at rest.
    Packed(Box<zstd::stream::read::Decoder<'static, io::BufReader<File>>>),
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Blob::Plain",
            Self::Packed(_) => "Blob::Packed",
        })
    }
}

impl Read for Blob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buf),
            Self::Packed(decoder) => decoder.read(buf),
        }
    }
}

impl Store {
    /// Where a blob lies, and whether it is packed; None where it does not.
    pub(super) fn blob_path(&self, digest: &Digest) -> Result<Option<(PathBuf, bool)>> {
        let plain = self.place("blobs", digest)?;
        let packed = plain.with_extension("zst");
        for (path, is_packed) in [(plain, false), (packed, true)] {
            match path.try_exists() {
                Ok(true) => return Ok(Some((path, is_packed))),
                Ok(false) => {}
                Err(e) => return Err(ImageError::file("looking for", &path, e)),
            }
        }
        Ok(None)
    }

    /// Whether a blob is here.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_path(digest)?.is_some())
    }

    /// Opens a blob; what is read is exactly what came under this digest.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob> {
        let Some((path, packed)) = self.blob_path(digest)? else {
            return Err(ImageError::NotFound {
                what: "blob",
                name: digest.to_string(),
                hint: "; 'plyfs image verify' tells what else is missing".to_owned(),
            });
        };
        let file = File::open(&path).map_err(|e| ImageError::file("opening", &path, e))?;
        if !packed {
            return Ok(Blob::Plain(file));
        }
        let decoder = zstd::stream::read::Decoder::new(file)
            .map_err(|e| ImageError::file("opening", &path, e))?;
        Ok(Blob::Packed(Box::new(decoder)))
    }

    /// Reads a document (a manifest, an index or a config) whole and checks it.
    ///
    /// # Errors
    /// When it is not here, larger than documents are, or not what its digest says.
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let text = read_bounded(
            self.open_blob(digest)?,
            self.limits.document,
            digest.as_ref(),
        )?;
        let mut hasher = Hasher::like(digest)?;
        hasher.update(&text);
        digest::check(&format!("blob {digest}"), digest, &hasher.finish()?)?;
        Ok(text)
    }

    /// Keeps a document and returns its sha256 digest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_document(&self, content: &[u8]) -> Result<Digest> {
        let digest = digest::of_bytes(content)?;
        if !self.has_blob(&digest)? {
            self.write_file(&self.place("blobs", &digest)?, content)?;
        }
        Ok(digest)
    }

    /// Keeps a document that must have the digest `expected`.
    ///
    /// # Errors
    /// When it has not, or cannot be written.
    pub fn put_document_as(&self, content: &[u8], expected: &Digest) -> Result<()> {
        let mut hasher = Hasher::like(expected)?;
        hasher.update(content);
        digest::check("the document", expected, &hasher.finish()?)?;
        self.write_file(&self.place("blobs", expected)?, content)
    }

    /// Gives a finished blob in staging its name.
    pub(super) fn publish_blob(
        &self,
        from: &std::path::Path,
        digest: &Digest,
        packed: bool,
    ) -> Result<()> {
        let mut to = self.place("blobs", digest)?;
        if packed {
            to.set_extension("zst");
        }
        let dir = super::files::parent(&to)?;
        match std::fs::rename(from, &to) {
            Ok(()) => super::files::sync_dir(dir),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(ImageError::file("publishing", from, e))
            }
            Err(e) => Err(ImageError::file("publishing", &to, e)),
        }
    }
}

/// Reads to the end, but no more than a document may have.
pub(crate) fn read_bounded(source: impl Read, max: u64, what: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    source
        .take(max + 1)
        .read_to_end(&mut text)
        .map_err(|e| ImageError::stream("reading a document", e))?;
    if text.len() as u64 > max {
        return Err(ImageError::malformed(
            what,
            format!("it is larger than {max} bytes"),
        ));
    }
    Ok(text)
}
