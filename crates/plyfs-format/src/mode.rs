//! The bits of `st_mode` that the formats speak of, as Linux defines them on every architecture.

/// Mask of the file type bits.
pub(crate) const S_IFMT: u32 = 0o170_000;
/// Character device.
pub(crate) const S_IFCHR: u32 = 0o020_000;
/// Regular file.
pub(crate) const S_IFREG: u32 = 0o100_000;
/// Directory.
pub(crate) const S_IFDIR: u32 = 0o040_000;
/// Symbolic link.
pub(crate) const S_IFLNK: u32 = 0o120_000;
/// FIFO.
pub(crate) const S_IFIFO: u32 = 0o010_000;
/// Socket.
pub(crate) const S_IFSOCK: u32 = 0o140_000;
/// Block device.
pub(crate) const S_IFBLK: u32 = 0o060_000;
/// Permission bits with setuid, setgid and sticky.
pub(crate) const PERM_MASK: u32 = 0o7_777;
/// The nine permission bits.
pub(crate) const RWX_ALL: u32 = 0o777;
