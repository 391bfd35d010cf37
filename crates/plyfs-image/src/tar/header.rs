//! The fields of a tar header block.
use super::{BLOCK, Kind};

/// One header block.
pub(super) struct Header<'a>(pub &'a [u8; BLOCK]);

/// Where a field lies.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Offset in the block.
    pub at: usize,
    /// Length in bytes.
    pub len: usize,
    /// For messages.
    pub name: &'static str,
}

const fn field(at: usize, len: usize, name: &'static str) -> Field {
    Field { at, len, name }
}

pub(super) const NAME: Field = field(0, 100, "name");
pub(super) const MODE: Field = field(100, 8, "mode");
pub(super) const UID: Field = field(108, 8, "uid");
pub(super) const GID: Field = field(116, 8, "gid");
pub(super) const SIZE: Field = field(124, 12, "size");
pub(super) const MTIME: Field = field(136, 12, "mtime");
pub(super) const CHECKSUM: Field = field(148, 8, "checksum");
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Field = field(157, 100, "link name");
pub(super) const MAGIC: Field = field(257, 8, "magic");
pub(super) const MAJOR: Field = field(329, 8, "device major");
pub(super) const MINOR: Field = field(337, 8, "device minor");
pub(super) const PREFIX: Field = field(345, 155, "prefix");
/// Of old GNU sparse headers.
pub(super) const GNU_EXTENDED: usize = 482;
pub(super) const GNU_REAL_SIZE: Field = field(483, 12, "real size");

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// An object.
    Object(Kind),
    /// A regular file with holes, old GNU form.
    GnuSparse,
    /// PAX records for the next object.
    Pax,
    /// PAX records for all further objects.
    PaxGlobal,
    /// GNU: the name of the next object.
    LongName,
    /// GNU: the link name of the next object.
    LongLink,
    /// GNU: the label of the archive.
    Label,
    /// Something that cannot be unpacked.
    Unknown(u8),
}

impl Header<'_> {
    pub(super) fn bytes(&self, f: Field) -> &[u8] {
        &self.0[f.at..f.at + f.len]
    }

    /// A text field up to its NUL.
    pub(super) fn text(&self, f: Field) -> &[u8] {
        until_nul(self.bytes(f))
    }

    pub(super) fn number(&self, f: Field) -> Result<i64, String> {
        number(self.bytes(f)).ok_or_else(|| format!("the {} is no number", f.name))
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// Whether the checksum is right, with bytes taken as unsigned or, by old writers, as signed.
    pub(super) fn checksum_holds(&self) -> bool {
        let Some(stored) = number(self.bytes(CHECKSUM)) else {
            return false;
        };
        let (unsigned, signed) = checksums(self.0);
        stored == unsigned || stored == signed
    }

    pub(super) fn kind(&self) -> Type {
        match self.0[TYPE] {
            0 | b'0' | b'7' => Type::Object(Kind::File),
            b'1' => Type::Object(Kind::HardLink),
            b'2' => Type::Object(Kind::Symlink),
            b'3' => Type::Object(Kind::Char),
            b'4' => Type::Object(Kind::Block),
            b'5' => Type::Object(Kind::Dir),
            b'6' => Type::Object(Kind::Fifo),
            b'S' => Type::GnuSparse,
            b'x' | b'X' => Type::Pax,
            b'g' => Type::PaxGlobal,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            b'V' => Type::Label,
            other => Type::Unknown(other),
        }
    }

    /// Name with the ustar prefix; GNU headers use its place for something else.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(NAME);
        if self.bytes(MAGIC) != b"ustar\x0000" {
            return name.to_vec();
        }
        match self.text(PREFIX) {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Sums of the block, the checksum field counted as spaces: of unsigned and of signed bytes.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (i, b) in block.iter().enumerate() {
        let in_sum = (CHECKSUM.at..CHECKSUM.at + CHECKSUM.len).contains(&i);
        let b = if in_sum { b' ' } else { *b };
        unsigned += i64::from(b);
        signed += i64::from(b.cast_signed());
    }
    (unsigned, signed)
}

/// Octal digits between spaces or NULs, or base 256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        return base256(field);
    }
    let text = until_nul(field);
    let text = text.trim_ascii();
    let mut value: i64 = 0;
    for b in text {
        if !(b'0'..=b'7').contains(b) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(b - b'0'))?;
    }
    Some(value)
}

/// Two's complement, the highest bit being the sign that says base 256.
fn base256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let top = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    rest.iter().try_fold(top, |value, b| {
        value.checked_mul(256)?.checked_add(i64::from(*b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"0000648\0", None),
            (b"-1\0", None),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(number(field), want, "{}", field.escape_ascii());
        }
    }
}
