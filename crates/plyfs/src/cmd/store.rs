//! What all commands on the store share: opening it, sizes and ids for people.
use std::path::{Path, PathBuf};

use plyfs_image::{Digest, Store};

/// Opens the store at `root`, or where it usually is.
pub(crate) fn open(root: Option<&Path>) -> anyhow::Result<Store> {
    let root = root.map_or_else(Store::default_root, PathBuf::from);
    Ok(Store::open(&root)?)
}

/// The beginning of a digest, long enough to be one of its kind.
pub(crate) fn short(digest: &Digest) -> &str {
    digest.digest().get(..12).unwrap_or(digest.digest())
}

/// A size as people read it.
pub(crate) fn human(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut size, mut divided) = (bytes, 0);
    while size >= 1_000_000 && divided + 1 < units.len() {
        size /= 1000;
        divided += 1;
    }
    let tenths = size / 100;
    format!(
        "{}.{} {}",
        tenths / 10,
        tenths % 10,
        units.get(divided).unwrap_or(&"EB")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (8_589_934_592, "8.5 GB"),
        ] {
            assert_eq!(human(bytes), want);
        }
    }
}
