//! Hashing content as it passes, and comparing with the digest that names it.
use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{RegistryError, Result};

/// The running hash of content that a digest names.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher of the kind that `digest` was made with.
    pub(crate) fn like(digest: &Digest) -> Result<Self> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::Sha256(Sha256::new())),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(Sha512::new())),
            _ => Err(RegistryError::UnknownAlgorithm {
                digest: digest.clone(),
            }),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest as text, `sha256:…`.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(h) => format!("sha256:{}", hex(&h.finalize())),
            Self::Sha512(h) => format!("sha512:{}", hex(&h.finalize())),
        }
    }
}

/// The digest of bytes at hand, as text, of the kind `like` is.
pub(crate) fn of(bytes: &[u8], like: &Digest) -> Result<String> {
    let mut hasher = Hasher::like(like)?;
    hasher.update(bytes);
    Ok(hasher.finish())
}

/// The sha256 digest of bytes at hand, as text.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::Sha256(Sha256::new());
    hasher.update(bytes);
    hasher.finish()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_known_and_no_other() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        let abc = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        let digest: Digest = abc.parse().unwrap();
        assert_eq!(of(b"abc", &digest).unwrap(), abc);
        let other: Digest = format!("sha384:{}", "0".repeat(96)).parse().unwrap();
        assert!(of(b"", &other).is_err());
    }
}
