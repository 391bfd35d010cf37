//! Digests: the names of content, and computing them.
use std::io::{self, Read, Write};
use std::str::FromStr;

pub use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::Digest as _;
use sha2::{Sha256, Sha512};

use crate::error::{ImageError, Result};

/// Computes a digest.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Default for Hasher {
    /// The algorithm that everything is named by unless a document says otherwise.
    fn default() -> Self {
        Self(State::Sha256(Sha256::new()))
    }
}

impl Hasher {
    /// The algorithm by which `digest` was made.
    ///
    /// # Errors
    /// When it is neither sha256 nor sha512.
    pub fn like(digest: &Digest) -> Result<Self> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::default()),
            DigestAlgorithm::Sha512 => Ok(Self(State::Sha512(Sha512::new()))),
            _ => Err(ImageError::Algorithm(digest.clone())),
        }
    }

    /// Whether both compute by the same algorithm.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        matches!(
            (&self.0, &other.0),
            (State::Sha256(_), State::Sha256(_)) | (State::Sha512(_), State::Sha512(_))
        )
    }

    /// Takes more content.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(data),
            State::Sha512(h) => h.update(data),
        }
    }

    /// The digest of all that was taken, as text: `sha256:…`.
    #[must_use]
    pub fn finish_text(self) -> String {
        match self.0 {
            State::Sha256(h) => format!("sha256:{}", hex(&h.finalize())),
            State::Sha512(h) => format!("sha512:{}", hex(&h.finalize())),
        }
    }

    /// The digest of all that was taken.
    ///
    /// # Errors
    /// Never in practice: what is put together here is a digest.
    pub fn finish(self) -> Result<Digest> {
        let text = self.finish_text();
        Digest::from_str(&text).map_err(|e| ImageError::malformed(text, e))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The sha256 digest of `content`.
///
/// # Errors
/// Never in practice.
pub fn of_bytes(content: &[u8]) -> Result<Digest> {
    let mut hasher = Hasher::default();
    hasher.update(content);
    hasher.finish()
}

/// Fails unless `actual` is `expected`.
///
/// # Errors
/// [`ImageError::WrongDigest`].
pub fn check(what: &str, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::WrongDigest {
        what: what.to_owned(),
        expected: expected.clone(),
        actual: actual.clone(),
    })
}

/// The ChainID of a stack: what its layers, base first, are together.
///
/// # Errors
/// Never in practice.
pub fn chain_id(diff_ids: &[Digest]) -> Result<Option<Digest>> {
    let Some((first, rest)) = diff_ids.split_first() else {
        return Ok(None);
    };
    let mut chain = first.clone();
    for diff_id in rest {
        chain = of_bytes(format!("{chain} {diff_id}").as_bytes())?;
    }
    Ok(Some(chain))
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> HashingReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R, hasher: Hasher) -> Self {
        Self {
            inner,
            hasher,
            size: 0,
        }
    }

    /// Reads what is left and returns the digest and size of all.
    ///
    /// # Errors
    /// When `inner` fails.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())
            .map_err(|e| ImageError::stream("reading to the end", e))?;
        Ok((self.hasher.finish()?, self.size))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

/// Hashes and counts what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
            size: 0,
        }
    }

    /// The stream, and digest and size of what went through.
    ///
    /// # Errors
    /// Never in practice.
    pub fn finish(self) -> Result<(W, Digest, u64)> {
        Ok((self.inner, self.hasher.finish()?, self.size))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_specification() {
        let digest =
            |c: char| Digest::from_str(&format!("sha256:{}", c.to_string().repeat(64))).unwrap();
        let (a, b) = (digest('a'), digest('b'));
        assert_eq!(chain_id(&[]).unwrap(), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)).unwrap(), Some(a.clone()));
        let want = of_bytes(format!("{a} {b}").as_bytes()).unwrap();
        assert_eq!(chain_id(&[a, b]).unwrap(), Some(want));
    }
}
