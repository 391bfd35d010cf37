//! Writing a tar stream: the same objects give the same bytes, everywhere and always.
use std::io::{self, Write};

use plyfs_sys::stat::Time;

use super::header::{self, Field, checksums};
use super::{BLOCK, Kind};

/// What the next entry is.
#[derive(Debug, Clone)]
pub struct Meta<'a> {
    /// Path from the root of the archive, without a leading slash.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of a regular file.
    pub size: u64,
    /// Last modification.
    pub mtime: Time,
    /// Target of a link.
    pub link: &'a [u8],
    /// Device number.
    pub rdev: (u32, u32),
    /// Extended attributes; written sorted by name.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes entries to a stream.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Data that the current entry still lacks, and the padding behind it.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            left: 0,
            padding: 0,
        }
    }

    /// Starts an entry; a regular file's data follows by [`Self::data`].
    ///
    /// # Errors
    /// When the data of the entry before is not complete, or `out` fails.
    pub fn entry(&mut self, meta: &Meta<'_>) -> io::Result<()> {
        self.check_complete()?;
        let mut block = [0u8; BLOCK];
        let mut pax = Vec::new();
        let mut path = meta.path.to_vec();
        if meta.kind == Kind::Dir && !path.ends_with(b"/") {
            path.push(b'/');
        }
        if !put_path(&mut block, &path) {
            record(&mut pax, b"path", &path);
            put(&mut block, header::NAME, &path);
        }
        if !put(&mut block, header::LINK, meta.link) {
            record(&mut pax, b"linkpath", meta.link);
        }
        let size = if meta.kind == Kind::File {
            meta.size
        } else {
            0
        };
        put_number(&mut block, header::MODE, u64::from(meta.mode & 0o7777));
        for (field, key, value) in [
            (header::UID, &b"uid"[..], u64::from(meta.uid)),
            (header::GID, b"gid", u64::from(meta.gid)),
            (header::SIZE, b"size", size),
        ] {
            if !put_number(&mut block, field, value) {
                record(&mut pax, key, value.to_string().as_bytes());
            }
        }
        let whole = u64::try_from(meta.mtime.sec).ok();
        let fits = whole.is_some_and(|sec| put_number(&mut block, header::MTIME, sec));
        if !fits || meta.mtime.nsec != 0 {
            record(&mut pax, b"mtime", time(meta.mtime).as_bytes());
        }
        put_number(&mut block, header::MAJOR, u64::from(meta.rdev.0));
        put_number(&mut block, header::MINOR, u64::from(meta.rdev.1));
        let mut xattrs: Vec<_> = meta.xattrs.iter().collect();
        xattrs.sort();
        for (name, value) in xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !pax.is_empty() {
            self.pax(&path, &pax)?;
        }
        self.header(&mut block, type_flag(meta.kind))?;
        self.left = size;
        self.padding = padding(size);
        Ok(())
    }

    /// Writes data of the current entry.
    ///
    /// # Errors
    /// When it is more than was announced, or `out` fails.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| io::Error::other("more data than the tar header announced"))?;
        self.out.write_all(data)?;
        if self.left == 0 {
            self.pad()?;
        }
        Ok(())
    }

    /// Ends the archive and returns the stream.
    ///
    /// # Errors
    /// When the data of the last entry is not complete, or `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.check_complete()?;
        self.out.write_all(&[0u8; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn check_complete(&self) -> io::Result<()> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(io::Error::other("less data than the tar header announced"))
        }
    }

    fn pad(&mut self) -> io::Result<()> {
        let n = std::mem::take(&mut self.padding);
        self.out.write_all(&[0u8; BLOCK][..n])
    }

    fn header(&mut self, block: &mut [u8; BLOCK], flag: u8) -> io::Result<()> {
        block[header::TYPE] = flag;
        put(block, header::MAGIC, b"ustar\x0000");
        let sum = checksums(block).0;
        let text = format!("{sum:06o}\0 ");
        put(block, header::CHECKSUM, text.as_bytes());
        self.out.write_all(block)
    }

    fn pax(&mut self, path: &[u8], records: &[u8]) -> io::Result<()> {
        let mut block = [0u8; BLOCK];
        // The name is for readers that do not know PAX; all others ignore it.
        let base = path.strip_suffix(b"/").unwrap_or(path);
        let base = base.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let name = [b"PaxHeaders.0/", base].concat();
        put(&mut block, header::NAME, &name);
        put_number(&mut block, header::MODE, 0o644);
        put_number(&mut block, header::UID, 0);
        put_number(&mut block, header::GID, 0);
        put_number(&mut block, header::SIZE, records.len() as u64);
        put_number(&mut block, header::MTIME, 0);
        self.header(&mut block, b'x')?;
        self.out.write_all(records)?;
        self.padding = padding(records.len() as u64);
        self.pad()
    }
}

fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - rest) % BLOCK
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    }
}

/// Puts as much of `bytes` as fits; whether that was all, in plain ASCII.
fn put(block: &mut [u8; BLOCK], f: Field, bytes: &[u8]) -> bool {
    let n = bytes.len().min(f.len);
    block[f.at..f.at + n].copy_from_slice(&bytes[..n]);
    n == bytes.len() && bytes.is_ascii()
}

/// Splits a path over name and prefix as ustar has it; false where it does not fit.
fn put_path(block: &mut [u8; BLOCK], path: &[u8]) -> bool {
    if path.len() <= header::NAME.len {
        return put(block, header::NAME, path);
    }
    if !path.is_ascii() {
        return false;
    }
    // The first slash from which on the rest fits into the name; the prefix must fit too.
    let from = path.len().saturating_sub(header::NAME.len + 1);
    let within = path
        .get(from..path.len().saturating_sub(1))
        .unwrap_or_default();
    let Some(slash) = within.iter().position(|b| *b == b'/').map(|i| from + i) else {
        return false;
    };
    if slash == 0 || slash > header::PREFIX.len {
        return false;
    }
    put(block, header::PREFIX, &path[..slash]) && put(block, header::NAME, &path[slash + 1..])
}

/// Octal digits and a NUL; false where there are too many, and the field then says 0.
fn put_number(block: &mut [u8; BLOCK], f: Field, value: u64) -> bool {
    let digits = f.len - 1;
    let fits = value < 1 << (3 * digits);
    let text = format!("{:0digits$o}\0", if fits { value } else { 0 });
    put(block, f, text.as_bytes());
    fits
}

/// `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() > len {
        len = rest + len.to_string().len();
    }
    pax.extend_from_slice(len.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn time(t: Time) -> String {
    let (sign, sec, nsec) = match (t.sec < 0, t.nsec) {
        (false, nsec) => ("", t.sec, nsec),
        (true, 0) => ("-", -t.sec, 0),
        (true, nsec) => ("-", -(t.sec + 1), 1_000_000_000 - nsec),
    };
    if nsec == 0 {
        return format!("{sign}{sec}");
    }
    let fraction = format!("{nsec:09}");
    format!("{sign}{sec}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Entry, Limits, Reader, TarError};
    use super::*;

    fn written(meta: &Meta<'_>, data: &[u8]) -> Vec<u8> {
        let mut w = Writer::new(Vec::new());
        w.entry(meta).unwrap();
        if !data.is_empty() {
            w.data(data).unwrap();
        }
        w.finish().unwrap()
    }

    fn read(tar: &[u8]) -> (Entry, Vec<u8>) {
        let mut reader = Reader::new(tar, Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        let mut data = Vec::new();
        reader
            .data(|piece| {
                data.extend_from_slice(piece);
                Ok::<(), TarError>(())
            })
            .unwrap();
        assert!(reader.next_entry().unwrap().is_none());
        (entry, data)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            path in "[a-z\u{e4}/]{1,300}[a-z]",
            link in "[a-z/]{0,200}",
            uid: u32, gid: u32, mode in 0u32..0o10000,
            sec in -9_000_000_000i64..20_000_000_000, nsec in 0u32..1_000_000_000,
            data: Vec<u8>,
            xattrs in proptest::collection::btree_map("[a-z.=]{1,20}", any::<Vec<u8>>(), 0..3),
        ) {
            let xattrs: Vec<_> = xattrs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            prop_assume!(xattrs.iter().all(|(k, _)| !k.contains(&b'=')));
            let meta = Meta {
                path: path.as_bytes(), kind: Kind::File, mode, uid, gid, size: data.len() as u64,
                mtime: Time { sec, nsec }, link: link.as_bytes(), rdev: (0, 0), xattrs: &xattrs,
            };
            let (entry, got) = read(&written(&meta, &data));
            prop_assert_eq!(&entry.path, path.as_bytes());
            prop_assert_eq!(&entry.link, link.as_bytes());
            prop_assert_eq!((entry.uid, entry.gid, entry.mode), (uid.into(), gid.into(), mode));
            prop_assert_eq!(entry.mtime, meta.mtime);
            prop_assert_eq!(entry.xattrs, xattrs);
            prop_assert_eq!(got, data);
        }

        #[test]
        fn noise_is_never_more_than_an_error(mut noise: Vec<u8>, flips: Vec<(u16, u8)>) {
            drop(Reader::new(&noise[..], Limits::default()).next_entry());
            let meta = Meta {
                path: b"dir/a-file", kind: Kind::File, mode: 0o644, uid: 1, gid: 1, size: 3,
                mtime: Time { sec: 1, nsec: 5 }, link: b"", rdev: (0, 0),
                xattrs: &[(b"user.x".to_vec(), b"y".to_vec())],
            };
            noise = written(&meta, b"abc");
            for (at, with) in flips {
                let len = noise.len();
                noise[usize::from(at) % len] ^= with;
            }
            // A header that was changed has a right checksum again, so that it is read.
            for start in (0..noise.len()).step_by(BLOCK) {
                let mut block: [u8; BLOCK] = noise[start..start + BLOCK].try_into().unwrap();
                let sum = format!("{:06o}\0 ", checksums(&block).0);
                put(&mut block, header::CHECKSUM, sum.as_bytes());
                if start != BLOCK {
                    noise[start..start + BLOCK].copy_from_slice(&block);
                }
            }
            let mut reader = Reader::new(&noise[..], Limits::default());
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
