//! The opaque mark: does a directory hide what the layers below have at its place?

/// What the opaque mark of a directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Opaque {
    /// No mark, or a value without meaning: the directory merges with those below.
    #[default]
    No,
    /// `y`: nothing below is visible.
    Opaque,
    /// `x`: merges, but regular files in it may be xattr whiteouts (Linux 6.8).
    XWhiteouts,
}

/// The value that makes a directory opaque.
pub const OPAQUE_VALUE: &[u8] = b"y";
/// The value that announces xattr whiteouts.
pub const XWHITEOUTS_VALUE: &[u8] = b"x";

/// Reads the value of the mark. Only exactly one byte counts, as in `ovl_get_dir_xattr_val()`.
pub fn parse(value: &[u8]) -> Opaque {
    match value {
        b"y" => Opaque::Opaque,
        b"x" => Opaque::XWhiteouts,
        _ => Opaque::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_exact_byte_counts() {
        for (value, meaning) in [
            (OPAQUE_VALUE, Opaque::Opaque),
            (XWHITEOUTS_VALUE, Opaque::XWhiteouts),
            (b"", Opaque::No),
            (b"n", Opaque::No),
            (b"yy", Opaque::No),
            (b"y\0", Opaque::No),
            (b"Y", Opaque::No),
        ] {
            assert_eq!(parse(value), meaning, "{value:?}");
        }
    }
}
