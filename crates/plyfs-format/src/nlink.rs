//! The nlink mark: the link count that the union shows for an indexed object, relative to a real one.

use crate::Malformed;

const WHAT: &str = "nlink";
/// The kernel's buffer has 13 bytes with the NUL.
const MAX_LEN: usize = 12;

/// Whose real link count the difference is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// `U`: the upper inode's, which includes the index entry.
    Upper,
    /// `L`: the lower inode's.
    Lower,
}

/// The link count of the union as a difference, so that it stays right if we die between two steps: `U+1`, `L-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nlink {
    /// Whose link count to start from.
    pub base: Base,
    /// What to add.
    pub diff: i32,
}

/// Reads the value: `U` or `L`, a sign that is always there, decimal digits.
pub fn parse(value: &[u8]) -> Result<Nlink, Malformed> {
    if value.len() > MAX_LEN {
        return Err(Malformed::new(WHAT, "the value is longer than 12 bytes"));
    }
    let base = match value {
        [b'U', b'+' | b'-', ..] => Base::Upper,
        [b'L', b'+' | b'-', ..] => Base::Lower,
        _ => {
            return Err(Malformed::new(
                WHAT,
                "the value begins with none of `U+` `U-` `L+` `L-`",
            ));
        }
    };
    let diff = value
        .get(1..)
        .and_then(|number| str::from_utf8(number).ok()?.parse().ok());
    match diff {
        Some(diff) => Ok(Nlink { base, diff }),
        None => Err(Malformed::new(
            WHAT,
            "the difference is not a 32-bit number",
        )),
    }
}

impl Nlink {
    /// The mark that makes the union show `union` links while the base has `real`; `None` if they are too far apart.
    pub fn relative(base: Base, union: u32, real: u32) -> Option<Self> {
        let diff = i32::try_from(i64::from(union) - i64::from(real)).ok()?;
        Some(Self { base, diff })
    }

    /// The value as the kernel writes it.
    pub fn encode(self) -> Vec<u8> {
        let base = match self.base {
            Base::Upper => 'U',
            Base::Lower => 'L',
        };
        format!("{base}{:+}", self.diff).into_bytes()
    }

    /// The link count to show. `None` if it would not be positive: then the mark is wrong, and the real count is shown.
    pub fn apply(self, upper_nlink: u32, lower_nlink: u32) -> Option<u32> {
        let real = match self.base {
            Base::Upper => upper_nlink,
            Base::Lower => lower_nlink,
        };
        real.checked_add_signed(self.diff).filter(|n| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (value, base, diff) in [
            ("U-1", Base::Upper, -1),
            ("U+1", Base::Upper, 1),
            ("L+0", Base::Lower, 0),
            ("L-2147483648", Base::Lower, i32::MIN),
            ("U+2147483647", Base::Upper, i32::MAX),
        ] {
            let nlink = Nlink { base, diff };
            assert_eq!(parse(value.as_bytes()), Ok(nlink), "{value}");
            assert_eq!(nlink.encode(), value.as_bytes());
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "U",
            "U1",
            "X+1",
            "U+",
            "U+-1",
            "U+ 1",
            "U+1 ",
            "u+1",
            "L+2147483648",
            "U+00000000001",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"U+\xff").is_err());
    }

    #[test]
    fn applied() {
        for (value, shown) in [
            ("U-1", Some(2)),
            ("L+1", Some(6)),
            ("U-3", None),
            ("U-4", None),
            ("U+2147483647", Some(2_147_483_650)),
        ] {
            assert_eq!(
                parse(value.as_bytes()).unwrap().apply(3, 5),
                shown,
                "{value}"
            );
        }
        assert_eq!(Nlink::relative(Base::Upper, 2, 3).unwrap().encode(), b"U-1");
        assert_eq!(Nlink::relative(Base::Upper, u32::MAX, 0), None);
    }
}
