//! Names in the index directory: the origin of an indexed object, spelt in hex.

use crate::origin::{self, Origin};
use crate::{Malformed, hex};

const WHAT: &str = "index name";
/// The longest file name the kernel takes.
const NAME_MAX: usize = 255;

/// The name under which the object copied up from `origin` is indexed. `None` if the handle is too long to be a name;
/// such an object cannot be indexed.
pub fn index_name(origin: &Origin) -> Option<Vec<u8>> {
    let name = hex::encode(&origin.encode());
    (1..=NAME_MAX).contains(&name.len()).then_some(name)
}

/// Reads an entry's name back. `None` means what it means for [`origin::parse`].
pub fn parse_index_name(name: &[u8]) -> Result<Option<Origin>, Malformed> {
    if name.is_empty() {
        return Err(Malformed::new(WHAT, "it is empty"));
    }
    let value = hex::decode(name).ok_or(Malformed::new(WHAT, "it is not pairs of hex digits"))?;
    origin::parse(&value).map_err(|e| Malformed::new(WHAT, e.why))
}

/// Whether an entry is a leftover of staging (`#` and a number), to be removed at the next mount.
pub fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b"#")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names Linux 6.18 gave to a hard-linked file (ext4) and, with NFS export, to a directory (xfs).
    #[cfg(target_endian = "little")]
    #[test]
    fn what_the_kernel_wrote_round_trips() {
        for name in [
            "00fb1d000100000000000000000000000000000000dac09800a851de8c",
            "00fb210081b0875240d56d49929dfb8ea096b7c53f800004000000000077fc36ae",
        ] {
            let origin = parse_index_name(name.as_bytes()).unwrap().unwrap();
            assert!(!origin.is_upper);
            assert_eq!(index_name(&origin).unwrap(), name.as_bytes());
        }
    }

    #[test]
    fn refused() {
        for name in ["", "#3", "00fb1", "zz", "00fb1d00", "work"] {
            let e = parse_index_name(name.as_bytes()).unwrap_err();
            assert_eq!(e.what, "index name", "{name}");
        }
        assert!(is_temporary(b"#3"));
        assert!(!is_temporary(b"00fb"));
    }

    #[test]
    fn a_handle_too_long_for_a_name_is_not_indexed() {
        let origin = |n| Origin {
            handle_type: 1,
            uuid: [0; 16],
            fid: vec![0; n],
            is_upper: false,
        };
        assert!(index_name(&origin(104)).is_some());
        assert_eq!(index_name(&origin(108)), None);
        assert_eq!(index_name(&origin(200)), None);
    }
}
