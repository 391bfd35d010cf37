//! One validated path component, the only kind of name that reaches a system call.
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Errno, Result, SysError};

/// Longest component Linux accepts, in bytes.
pub const NAME_MAX: usize = 255;

/// One path component: bytes, not empty, no `/`, no NUL, not `.` or `..`, at most 255 bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Name([u8]);

impl Name {
    /// Checks that `bytes` is one component.
    ///
    /// # Errors
    /// ENAMETOOLONG over 255 bytes; EINVAL for anything that is not one component.
    pub fn new(bytes: &[u8]) -> Result<&Self> {
        if bytes.len() > NAME_MAX {
            return Err(SysError::on("name", bytes, Errno::ENAMETOOLONG));
        }
        let special = matches!(bytes, b"" | b"." | b"..");
        if special || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(SysError::on("name", bytes, Errno::EINVAL));
        }
        Ok(Self::wrap(bytes))
    }

    fn wrap(bytes: &[u8]) -> &Self {
        // SAFETY: Name is repr(transparent) over [u8], so the references have the same layout.
        unsafe { &*(std::ptr::from_ref(bytes) as *const Self) }
    }

    /// The bytes of the component.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl ToOwned for Name {
    type Owned = NameBuf;
    fn to_owned(&self) -> NameBuf {
        NameBuf(self.0.into())
    }
}

/// An owned [`Name`]; clones share the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameBuf(Arc<[u8]>);

impl Deref for NameBuf {
    type Target = Name;
    fn deref(&self) -> &Name {
        Name::wrap(&self.0)
    }
}

impl Borrow<Name> for NameBuf {
    fn borrow(&self) -> &Name {
        self
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_are_names() {
        for good in [&b"a"[..], b"...", b".x", b"\xff\xfe", &[b'x'; 255]] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert_eq!(
                Name::new(bad).unwrap_err().errno(),
                Errno::EINVAL,
                "{bad:?}"
            );
        }
        assert_eq!(
            Name::new(&[b'x'; 256]).unwrap_err().errno(),
            Errno::ENAMETOOLONG
        );
    }
}
