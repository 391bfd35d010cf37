//! Byte strings (names, targets, attribute values) and octal modes in the text form of a case.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that read as text where they are text: anything else, and `%`, is written `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// The last path component, without trailing slashes.
    pub(crate) fn last_name(&self) -> &[u8] {
        let end = self
            .0
            .iter()
            .rposition(|b| *b != b'/')
            .map_or(0, |at| at + 1);
        let body = &self.0[..end];
        body.rsplit(|b| *b == b'/').next().unwrap_or(body)
    }

    /// Everything before the last component; empty at the top.
    pub(crate) fn parent(&self) -> Bytes {
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Bytes(self.0[..cut].to_vec())
    }

    /// `self/name`, or `name` alone when `self` is empty.
    pub(crate) fn join(&self, name: &[u8]) -> Bytes {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Bytes(path)
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(bytes.to_vec())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            if (0x21..0x7f).contains(byte) && !matches!(byte, b'%' | b'"' | b'\\') {
                write!(f, "{}", char::from(*byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let hex = tail
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(byte.ok_or_else(|| format!("{text:?}: a % needs two hex digits"))?);
        rest = &tail[2..];
    }
    Ok(out)
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        unescape(&text).map(Bytes).map_err(de::Error::custom)
    }
}

/// A file mode (permission bits only), written in octal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode(pub(crate) u32);

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        u32::from_str_radix(&text, 8)
            .map(Mode)
            .map_err(de::Error::custom)
    }
}

/// The bytes that seed `seed` puts at file offset `offset`: misplaced data never looks right.
pub(crate) fn pattern(seed: u32, offset: u64, len: usize) -> Vec<u8> {
    let base = u64::from(seed).wrapping_mul(0x9E37_79B9);
    let byte = |at: u64| {
        let mixed = (base ^ at).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        (mixed >> 56) as u8 | 1
    };
    (offset..offset + len as u64).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_text_form() {
        let all = Bytes((0..=255).collect());
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), all);
    }

    #[test]
    fn path_pieces() {
        assert_eq!(Bytes::from("a/b//").last_name(), b"b");
        assert_eq!(Bytes::from("a/b").parent(), Bytes::from("a"));
        assert_eq!(Bytes::from("a").parent(), Bytes::from(""));
    }
}
