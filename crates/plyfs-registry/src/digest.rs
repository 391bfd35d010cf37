//! Hashing content as it passes, and comparing with the digest that names it.
use oci_spec::image::Digest;
use plyfs_image::digest::Hasher;

use crate::error::{RegistryError, Result};

/// A hasher of the kind that `digest` was made with.
pub(crate) fn hasher_like(digest: &Digest) -> Result<Hasher> {
    // The algorithm is all it can refuse.
    Hasher::like(digest).map_err(|_| RegistryError::UnknownAlgorithm {
        digest: digest.clone(),
    })
}

/// The digest of bytes at hand, as text, of the kind `like` is.
pub(crate) fn of(bytes: &[u8], like: &Digest) -> Result<String> {
    Ok(of_all(hasher_like(like)?, bytes))
}

/// The sha256 digest of bytes at hand, as text.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    of_all(Hasher::default(), bytes)
}

fn of_all(mut hasher: Hasher, bytes: &[u8]) -> String {
    hasher.update(bytes);
    hasher.finish_text()
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
