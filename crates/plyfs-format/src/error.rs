//! The one error of the mark parsers: which mark is malformed, and what is wrong with it.

use thiserror::Error;

/// Bytes on disk that do not follow the format of the mark they claim to be.
///
/// The layer knows the object and adds where it was; it answers EIO to the user and logs this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// The mark, in the words of the format document ("redirect", "origin", ...).
    pub what: &'static str,
    /// The rule that the bytes break.
    pub why: &'static str,
}

impl Malformed {
    /// Builds the error for mark `what` that breaks rule `why`.
    pub const fn new(what: &'static str, why: &'static str) -> Self {
        Self { what, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_mark_and_which_rule() {
        let e = Malformed::new("redirect", "the value is empty");
        assert_eq!(e.to_string(), "malformed redirect: the value is empty");
    }
}
