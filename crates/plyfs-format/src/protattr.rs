//! The protattr mark: append-only and immutable, kept beside an upper object that must stay changeable for us.

use crate::Malformed;

const WHAT: &str = "protattr";
/// `OVL_PROTATTR_MAX`.
const MAX_LEN: usize = 32;

/// The protection flags of an object, as `chattr` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Protection {
    /// `a`: data may only be appended.
    pub append_only: bool,
    /// `i`: nothing may change.
    pub immutable: bool,
}

/// Reads the letters `a` and `i` (`ovl_check_protattr()`).
pub fn parse(value: &[u8]) -> Result<Protection, Malformed> {
    if value.is_empty() || value.len() > MAX_LEN {
        return Err(Malformed::new(WHAT, "the value must be 1 to 32 letters"));
    }
    let mut protection = Protection::default();
    for letter in value {
        match letter {
            b'a' => protection.append_only = true,
            b'i' => protection.immutable = true,
            _ => return Err(Malformed::new(WHAT, "a letter is neither `a` nor `i`")),
        }
    }
    Ok(protection)
}

/// The value of the mark, `None` if nothing is protected and the mark has to go.
pub const fn encode(protection: Protection) -> Option<&'static [u8]> {
    match (protection.append_only, protection.immutable) {
        (false, false) => None,
        (true, false) => Some(b"a"),
        (false, true) => Some(b"i"),
        (true, true) => Some(b"ai"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (append_only, immutable) in [(true, false), (false, true), (true, true)] {
            let protection = Protection {
                append_only,
                immutable,
            };
            let value = encode(protection).unwrap();
            assert_eq!(parse(value), Ok(protection));
        }
        assert_eq!(encode(Protection::default()), None);
        assert_eq!(parse(b"ia"), parse(b"ai"));
    }

    #[test]
    fn refused() {
        for bad in [&b""[..], b"x", b"a\0", &[b'a'; 33]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
