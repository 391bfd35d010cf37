//! The metacopy mark: an upper file that has its own metadata while its data is still in a lower.

use crate::Malformed;

const WHAT: &str = "metacopy";
/// `struct ovl_metacopy` without digest.
const HEADER_LEN: usize = 4;
/// `FS_VERITY_MAX_DIGEST_SIZE`.
const MAX_DIGEST_LEN: usize = 64;
const VERSION: u8 = 0;

/// What the metacopy mark of a regular file says. That it is there makes the file a metacopy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metacopy {
    /// Flags; the kernel defines none so far and ignores them when it reads.
    pub flags: u8,
    /// The fs-verity digest that the data must have, if one is recorded.
    pub verity: Option<VerityDigest>,
}

/// An fs-verity digest of the file that holds the data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerityDigest {
    /// `FS_VERITY_HASH_ALG_*`, never 0.
    pub algorithm: u8,
    /// The digest, at most 64 bytes.
    pub digest: Vec<u8>,
}

/// Reads the value: empty, or version, length of the whole, flags, algorithm and digest
/// (`ovl_check_metacopy_xattr()`).
pub fn parse(value: &[u8]) -> Result<Metacopy, Malformed> {
    if value.is_empty() {
        return Ok(Metacopy::default());
    }
    let Some(([version, len, flags, algorithm], digest)) = value.split_first_chunk::<HEADER_LEN>()
    else {
        return Err(Malformed::new(
            WHAT,
            "the value is shorter than its 4-byte header",
        ));
    };
    if *version != VERSION {
        return Err(Malformed::new(
            WHAT,
            "the version is newer than 0, the only one known",
        ));
    }
    if digest.len() > MAX_DIGEST_LEN {
        return Err(Malformed::new(WHAT, "the digest is longer than 64 bytes"));
    }
    if usize::from(*len) != value.len() {
        return Err(Malformed::new(
            WHAT,
            "the length field differs from the size of the value",
        ));
    }
    let verity = (*algorithm != 0).then(|| VerityDigest {
        algorithm: *algorithm,
        digest: digest.to_vec(),
    });
    Ok(Metacopy {
        flags: *flags,
        verity,
    })
}

/// The value of a plain metacopy mark, without digest: empty, as the kernel writes it.
pub const fn encode() -> &'static [u8] {
    b""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_digest(len: u8, digest: &[u8]) -> Vec<u8> {
        [&[0, len, 0, 1][..], digest].concat()
    }

    #[test]
    fn accepted() {
        assert_eq!(parse(encode()), Ok(Metacopy::default()));
        assert_eq!(parse(&[0, 4, 0, 0]), Ok(Metacopy::default()));
        let sha256 = parse(&with_digest(36, &[7; 32])).unwrap().verity.unwrap();
        assert_eq!((sha256.algorithm, sha256.digest), (1, vec![7; 32]));
        assert!(parse(&with_digest(68, &[7; 64])).is_ok());
    }

    #[test]
    fn refused() {
        for (bytes, why) in [
            (vec![0, 3, 0], "shorter"),
            (vec![1, 4, 0, 0], "version"),
            (vec![0, 5, 0, 0], "length field"),
            (with_digest(36, &[7; 31]), "length field"),
            (with_digest(69, &[7; 65]), "64"),
        ] {
            let e = parse(&bytes).unwrap_err();
            assert!(e.why.contains(why), "{bytes:?}: {e}");
        }
    }
}
