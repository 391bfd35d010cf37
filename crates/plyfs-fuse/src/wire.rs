//! The parts of the FUSE protocol that fuser 0.18 cannot say (see [`crate::raw_reply`]).
use std::time::Duration;

use plyfs_sys::stat::Kind;
use plyfs_union::{Attr, ListEntry};

use crate::backings::OpenOut;
use crate::convert::rdev_to_wire;

/// Size of struct fuse_entry_out.
pub(crate) const ENTRY_OUT: usize = 128;
/// Size of struct fuse_open_out.
pub(crate) const OPEN_OUT: usize = 16;
/// Size of struct fuse_out_header.
pub(crate) const OUT_HEADER: usize = 16;
/// The kernel's arithmetic on timeouts is in jiffies; 31 years is as good as for ever.
pub(crate) const FOREVER: Duration = Duration::from_secs(1_000_000_000);

/// How long the kernel may keep what an entry says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttl {
    /// That the name means the inode.
    pub(crate) entry: Duration,
    /// The attributes of the inode.
    pub(crate) attr: Duration,
}

/// Appends fields in the byte order of this machine, as the protocol wants.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_ne_bytes());
    }

    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_ne_bytes());
    }

    /// struct fuse_entry_out. `attr` None is the negative entry: nothing has the name, and the
    /// kernel may remember that.
    pub(crate) fn entry(&mut self, node: u64, attr: Option<&Attr>, ttl: Ttl) {
        let (entry, attributes) = (ttl.entry.min(FOREVER), ttl.attr.min(FOREVER));
        self.u64(node);
        self.u64(0);
        self.u64(entry.as_secs());
        self.u64(attributes.as_secs());
        self.u32(entry.subsec_nanos());
        self.u32(attributes.subsec_nanos());
        match attr {
            Some(attr) => self.attr(attr),
            None => self.0.extend_from_slice(&[0; 88]),
        }
    }

    /// struct fuse_attr.
    fn attr(&mut self, a: &Attr) {
        for v in [a.ino, a.size, a.blocks] {
            self.u64(v);
        }
        for t in [a.atime, a.mtime, a.ctime] {
            self.u64(t.sec.cast_unsigned());
        }
        for t in [a.atime, a.mtime, a.ctime] {
            self.u32(t.nsec);
        }
        for v in [
            a.mode,
            a.nlink,
            a.uid,
            a.gid,
            rdev_to_wire(a.rdev),
            a.blksize,
            0,
        ] {
            self.u32(v);
        }
    }

    /// struct fuse_open_out.
    pub(crate) fn open(&mut self, out: OpenOut) {
        self.u64(out.handle);
        self.u32(out.flags);
        self.u32(out.backing);
    }

    /// struct fuse_direntplus: an entry and what looking it up gives. Without a looked-up inode
    /// (`.`, `..`) the node is 0, which tells the kernel that only the name is meant.
    pub(crate) fn dirent_plus(&mut self, entry: &ListEntry<'_>, found: Option<(u64, &Attr, Ttl)>) {
        match found {
            Some((node, attr, ttl)) => self.entry(node, Some(attr), ttl),
            None => self.0.extend_from_slice(&[0; ENTRY_OUT]),
        }
        self.u64(entry.ino);
        self.u64(entry.next.0);
        self.u32(u32::try_from(entry.name.len()).unwrap_or(0));
        self.u32(dtype(entry.kind));
        self.0.extend_from_slice(entry.name);
        let padded = self.0.len().next_multiple_of(8);
        self.0.resize(padded, 0);
    }
}

/// Bytes a struct fuse_direntplus with this name takes.
pub(crate) fn dirent_plus_len(name: &[u8]) -> usize {
    (ENTRY_OUT + 24 + name.len()).next_multiple_of(8)
}

fn dtype(kind: Kind) -> u32 {
    kind.mode_bits() >> 12
}

#[cfg(test)]
mod tests {
    use super::*;
    use plyfs_sys::stat::Time;
    use plyfs_union::{Cookie, How, Way};

    #[test]
    fn structures_have_the_sizes_of_the_protocol() {
        let t = Time { sec: -1, nsec: 5 };
        let attr = Attr {
            ino: 7,
            mode: 0o100_644,
            nlink: 1,
            uid: 1,
            gid: 2,
            rdev: (0, 0),
            size: 3,
            blocks: 8,
            blksize: 4096,
            atime: t,
            mtime: t,
            ctime: t,
        };
        let mut w = Writer::default();
        let ttl = Ttl {
            entry: Duration::MAX,
            attr: Duration::ZERO,
        };
        w.entry(9, Some(&attr), ttl);
        assert_eq!(w.0.len(), ENTRY_OUT);
        assert_eq!(w.0[..8], 9u64.to_ne_bytes());
        assert_eq!(w.0[16..24], FOREVER.as_secs().to_ne_bytes());
        assert_eq!(w.0[24..32], [0; 8]);
        assert_eq!(w.0[40..48], 7u64.to_ne_bytes());
        w.open(OpenOut::new(How::default(), Way::Passed(3)));
        assert_eq!(w.0.len(), ENTRY_OUT + OPEN_OUT);
        for name in [&b"a"[..], b"12345678", &[b'x'; 255]] {
            let mut w = Writer::default();
            let entry = ListEntry {
                name,
                ino: 1,
                kind: Kind::File,
                next: Cookie(300),
            };
            w.dirent_plus(&entry, None);
            assert_eq!(w.0.len(), dirent_plus_len(name));
        }
    }
}
