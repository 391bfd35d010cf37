//! PAX records: what a header block cannot say of the next object.
use plyfs_sys::stat::Time;

use super::sparse::Extent;

/// Most xattrs of one entry; no file system holds nearly as many.
const MAX_XATTRS: usize = 1000;

/// What PAX records say; None where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub atime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparsePax,
}

/// The records of GNU tar's three PAX forms of sparse files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparsePax {
    /// Form 1.0: the map is at the start of the data.
    pub map_in_data: bool,
    /// Forms 0.0 and 0.1.
    pub map: Vec<Extent>,
    pub is_sparse: bool,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Form 0.0 tells offset and length one after the other.
    pending: Option<u64>,
    major: Option<u64>,
}

impl Pax {
    /// Reads all records.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or("a PAX record is malformed")?;
            pax.take(key, value)?;
            data = rest;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.xattr(name.to_vec(), value.to_vec());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            // The SCHILY form, where both are written, is the plainer one and wins.
            let name = percent_decoded(name).ok_or("a PAX xattr name is malformed")?;
            if self.xattrs.iter().any(|(n, _)| *n == name) {
                return Ok(());
            }
            let value = base64_decoded(value).ok_or("a PAX xattr value is malformed")?;
            return self.xattr(name, value);
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.take(key, value);
        }
        let empty = value.is_empty();
        match key {
            b"path" => self.path = (!empty).then(|| value.to_vec()),
            b"linkpath" => self.link = (!empty).then(|| value.to_vec()),
            b"size" => self.size = optional(value, "size", decimal)?,
            b"uid" => self.uid = optional(value, "uid", decimal)?,
            b"gid" => self.gid = optional(value, "gid", decimal)?,
            b"mtime" => self.mtime = optional(value, "mtime", time)?,
            b"atime" => self.atime = optional(value, "atime", time)?,
            _ => {}
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
        if name.is_empty() || name.contains(&0) {
            return Err("the name of an xattr is empty or holds a NUL".to_owned());
        }
        if self.xattrs.len() >= MAX_XATTRS {
            return Err(format!("an entry has more than {MAX_XATTRS} xattrs"));
        }
        self.xattrs.retain(|(n, _)| *n != name);
        self.xattrs.push((name, value));
        Ok(())
    }
}

impl SparsePax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.is_sparse = true;
        let number = || decimal(value).ok_or("a PAX record of a sparse file is no number");
        match key {
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"realsize" | b"size" => self.real_size = Some(number()?),
            b"major" => self.major = Some(number()?),
            b"minor" => self.map_in_data = self.major == Some(1),
            b"offset" => self.pending = Some(number()?),
            b"numbytes" => {
                let at = self.pending.take().ok_or("a sparse map lacks an offset")?;
                self.map.push(Extent { at, len: number()? });
            }
            b"map" => self.map = comma_map(value).ok_or("a sparse map is malformed")?,
            _ => {}
        }
        Ok(())
    }
}

fn comma_map(value: &[u8]) -> Option<Vec<Extent>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
    let numbers = numbers?;
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return None;
    };
    Some(
        pairs
            .iter()
            .map(|[at, len]| Extent { at: *at, len: *len })
            .collect(),
    )
}

/// `LENGTH KEY=VALUE\n`, the length counting all of it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let len = usize::try_from(decimal(data.get(..space)?)?).ok()?;
    let line = data.get(space + 1..len)?;
    let line = line.strip_suffix(b"\n")?;
    let equals = line.iter().position(|b| *b == b'=')?;
    let key = line.get(..equals)?;
    if key.is_empty() {
        return None;
    }
    Some((key, line.get(equals + 1..)?, data.get(len..)?))
}

fn optional<T>(
    value: &[u8],
    name: &str,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    match read(value) {
        Some(v) => Ok(Some(v)),
        None => Err(format!("the PAX record {name} is malformed")),
    }
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional sign and fraction; more than nine digits of it are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nsec = 0;
    if let Some(fraction) = parts.next().filter(|f| !f.is_empty()) {
        decimal(fraction.get(..fraction.len().min(18))?)?;
        let nine = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
        nsec = nine.fold(0, |n, b| n * 10 + u32::from(b.wrapping_sub(b'0')));
    }
    Some(match (negative, nsec) {
        (false, nsec) => Time { sec: whole, nsec },
        (true, 0) => Time { sec: -whole, nsec },
        (true, nsec) => Time {
            sec: -whole - 1,
            nsec: 1_000_000_000 - nsec,
        },
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for b in text.iter().filter(|b| !matches!(b, b'=' | b'\n')) {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let text = b"11 path=a\xff\n30 mtime=1350244992.023960108\n22 SCHILY.xattr.a=\0\n=\n";
        let pax = Pax::parse(text).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\xff"[..]));
        let mtime = pax.mtime.unwrap();
        assert_eq!((mtime.sec, mtime.nsec), (1_350_244_992, 23_960_108));
        assert_eq!(pax.xattrs, [(b"a".to_vec(), b"\0\n=".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 a=b",
            b"99999999999999999999 a=b\n",
            b"6 ab=\n\0",
            b"0 a=b\n",
            b"5 =b\n",
            b"9 size=x\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_before_1970() {
        let t = time(b"-1.25").unwrap();
        assert_eq!((t.sec, t.nsec), (-2, 750_000_000));
        assert_eq!(time(b"1.").unwrap().nsec, 0);
        assert!(time(b"1.x").is_none());
        assert!(time(b"").is_none());
    }

    #[test]
    fn libarchive_xattrs() {
        assert_eq!(percent_decoded(b"user.a%3d").unwrap(), b"user.a=");
        assert_eq!(base64_decoded(b"aGVsbG8=").unwrap(), b"hello");
        assert!(base64_decoded(b"a*b").is_none());
    }
}
