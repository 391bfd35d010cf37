//! The origin mark: the file handle of the lower object that was copied up, which keeps its inode number alive.

use crate::Malformed;

const WHAT: &str = "origin";
/// `struct ovl_fb` without `fid`: version, magic, length, flags, type, uuid.
const HEADER_LEN: usize = 21;
const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
/// `MAX_HANDLE_SZ`, the longest file handle there is.
const MAX_FID_LEN: usize = 128;

const FLAG_BIG_ENDIAN: u8 = 1 << 0;
const FLAG_ANY_ENDIAN: u8 = 1 << 1;
const FLAG_PATH_UPPER: u8 = 1 << 2;
const FLAGS_KNOWN: u8 = FLAG_BIG_ENDIAN | FLAG_ANY_ENDIAN | FLAG_PATH_UPPER;
const FLAG_CPU_ENDIAN: u8 = if cfg!(target_endian = "big") {
    FLAG_BIG_ENDIAN
} else {
    0
};

/// A file handle with the filesystem it is valid in: what the `origin` and `upper` marks and index names hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The `handle_type` of `name_to_handle_at(2)`.
    pub handle_type: u8,
    /// UUID of the filesystem; zeros if it has none, or if the mount says `uuid=off` or `null`.
    pub uuid: [u8; 16],
    /// The `f_handle` bytes, at most 128.
    pub fid: Vec<u8>,
    /// Whether the handle is of an upper object (the `upper` mark) and not of a lower one.
    pub is_upper: bool,
}

/// Reads the value of an `origin` or `upper` mark, as `ovl_get_fh()` does. `None` means "copied up from somewhere
/// unknown": an empty value, a newer version, unknown flags, or a handle from a machine of the other byte order.
pub fn parse(value: &[u8]) -> Result<Option<Origin>, Malformed> {
    if value.is_empty() {
        return Ok(None);
    }
    let Some((header, rest)) = value.split_first_chunk::<HEADER_LEN>() else {
        return Err(Malformed::new(
            WHAT,
            "the value is shorter than its 21-byte header",
        ));
    };
    let [version, magic, len, flags, handle_type, uuid @ ..] = *header;
    let Some(fid) = usize::from(len)
        .checked_sub(HEADER_LEN)
        .and_then(|n| rest.get(..n))
    else {
        return Err(Malformed::new(
            WHAT,
            "the length field does not fit the size of the value",
        ));
    };
    if magic != MAGIC {
        return Err(Malformed::new(WHAT, "the magic byte is not 0xfb"));
    }
    if version > VERSION || flags & !FLAGS_KNOWN != 0 || is_foreign_endian(flags) {
        return Ok(None);
    }
    if fid.len() > MAX_FID_LEN {
        return Err(Malformed::new(
            WHAT,
            "the file handle is longer than 128 bytes",
        ));
    }
    let is_upper = flags & FLAG_PATH_UPPER != 0;
    Ok(Some(Origin {
        handle_type,
        uuid,
        fid: fid.to_vec(),
        is_upper,
    }))
}

const fn is_foreign_endian(flags: u8) -> bool {
    flags & FLAG_ANY_ENDIAN == 0 && flags & FLAG_BIG_ENDIAN != FLAG_CPU_ENDIAN
}

impl Origin {
    /// The value as kernel overlayfs writes it on this machine. A handle longer than any kernel makes gives the empty
    /// value, which means "origin unknown".
    pub fn encode(&self) -> Vec<u8> {
        if self.fid.len() > MAX_FID_LEN {
            return Vec::new();
        }
        let Ok(len) = u8::try_from(HEADER_LEN + self.fid.len()) else {
            return Vec::new();
        };
        let flags = FLAG_CPU_ENDIAN | if self.is_upper { FLAG_PATH_UPPER } else { 0 };
        let mut value = Vec::with_capacity(usize::from(len));
        value.extend_from_slice(&[VERSION, MAGIC, len, flags, self.handle_type]);
        value.extend_from_slice(&self.uuid);
        value.extend_from_slice(&self.fid);
        value
    }
}

#[cfg(test)]
mod tests;
