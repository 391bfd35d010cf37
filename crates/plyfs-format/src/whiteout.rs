//! Whiteouts: the two kinds of object that say "this name does not exist" to the layers below.

use crate::mode::{S_IFCHR, S_IFMT, S_IFREG};

/// The `mode` that `mknod` takes for a whiteout: a character device without permissions; its device number is 0:0.
pub const WHITEOUT_MODE: u32 = S_IFCHR;

/// Whether these attributes are those of a whiteout device. Permissions, owner and times do not matter.
pub const fn is_whiteout_dev(mode: u32, rdev_major: u32, rdev_minor: u32) -> bool {
    mode & S_IFMT == S_IFCHR && rdev_major == 0 && rdev_minor == 0
}

/// Whether an object with these attributes is worth asking for the whiteout xattr: an empty regular file.
///
/// The kernel asks only in directories that say opaque `x` (`ovl_path_check_xwhiteout_xattr()`).
pub const fn may_be_xattr_whiteout(mode: u32, size: u64) -> bool {
    mode & S_IFMT == S_IFREG && size == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        for (mode, major, minor, whiteout) in [
            (WHITEOUT_MODE, 0, 0, true),
            (0o020_666, 0, 0, true),
            (0o020_666, 1, 3, false),
            (0o020_666, 0, 1, false),
            (0o060_666, 0, 0, false),
            (0o100_644, 0, 0, false),
            (0o120_777, 0, 0, false),
        ] {
            assert_eq!(
                is_whiteout_dev(mode, major, minor),
                whiteout,
                "{mode:o} {major}:{minor}"
            );
        }
    }

    #[test]
    fn xattr_whiteouts_are_empty_regular_files() {
        assert!(may_be_xattr_whiteout(0o100_644, 0));
        assert!(!may_be_xattr_whiteout(0o100_644, 1));
        assert!(!may_be_xattr_whiteout(0o040_755, 0));
    }
}
