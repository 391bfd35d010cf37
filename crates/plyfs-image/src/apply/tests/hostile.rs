//! Archives made to hurt: lies about sizes, endless rows of entries, names that are no text.
use std::os::unix::ffi::OsStrExt;

use super::*;

/// Applies `tar` to a directory that is dropped again.
fn outcome(tar: &[u8]) -> Result<Applied> {
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), tar, &Limits::default())
}

fn refusal(tar: &[u8]) -> String {
    outcome(tar).unwrap_err().to_string()
}

/// A header of 512 bytes with a right checksum.
fn header(name: &str, kind: u8, size: &str) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An entry of PAX records before the file `f`.
fn with_pax(records: &[u8]) -> Vec<u8> {
    let mut tar = header("x", b'x', &format!("{:011o}", records.len()));
    tar.extend_from_slice(records);
    tar.resize(tar.len().next_multiple_of(512), 0);
    tar.extend(header("f", b'0', "0"));
    tar.extend([0; 1024]);
    tar
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len() + 1;
    while format!("{len}{rest}").len() != len {
        len = format!("{len}{rest}").len();
    }
    format!("{len}{rest}").into_bytes()
}

#[test]
fn a_file_longer_than_the_archive_is_refused() {
    need_root!();
    for size in ["00000002000", "77777777777"] {
        let mut tar = header("liar", b'0', size);
        tar.extend([1; 512]);
        let said = refusal(&tar);
        assert!(
            said.contains("liar") && said.contains("breaks off"),
            "{said}"
        );
    }
    let huge = [&b"\x80\0\0\0"[..], &[0xff; 8]].concat();
    let mut tar = header("liar", b'0', "0");
    tar[124..136].copy_from_slice(&huge);
    tar[148..156].fill(b' ');
    let sum: u32 = tar.iter().map(|b| u32::from(*b)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let said = refusal(&tar);
    assert!(said.contains("size"), "{said}");
}

#[test]
fn a_size_that_pax_and_header_tell_differently_is_pax_s() {
    need_root!();
    let records = record("size", "3");
    let mut tar = header("x", b'x', &format!("{:011o}", records.len()));
    tar.extend_from_slice(&records);
    tar.resize(1024, 0);
    tar.extend(header("f", b'0', "00000000000"));
    tar.extend(b"abc");
    tar.resize(2048, 0);
    tar.extend([0; 1024]);
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &tar[..], &Limits::default()).unwrap();
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"abc");
}

#[test]
fn huge_and_crowded_pax_headers_are_refused() {
    need_root!();
    let long = "v".repeat(2 << 20);
    let said = refusal(&with_pax(&record("comment", &long)));
    assert!(said.contains("larger than the limit"), "{said}");
    let crowd: Vec<u8> = (0..1001)
        .flat_map(|i| record(&format!("SCHILY.xattr.user.{i}"), "v"))
        .collect();
    let said = refusal(&with_pax(&crowd));
    assert!(said.contains("more than 1000 xattrs"), "{said}");
    let long = refusal(&with_pax(&record("path", &"n/".repeat(3000))));
    assert!(long.contains("longer than 4096"), "{long}");
    // Announced, and not there.
    let said = refusal(&header("x", b'x', "00000001000"));
    assert!(said.contains("breaks off"), "{said}");
}

#[test]
fn names_need_not_be_text() {
    need_root!();
    let mut tar = Writer::new(Vec::new());
    for name in [&b"\xff\xfe"[..], b"a\nb", "\u{202e}txt".as_bytes(), b"-rf"] {
        let m = Meta {
            path: name,
            ..meta(Kind::File, "", "")
        };
        tar.entry(&m).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &tar.finish().unwrap()[..], &Limits::default()).unwrap();
    assert!(
        dir.path()
            .join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))
            .exists()
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    // What is shown of such a name is one line of plain text.
    let mut tar = Writer::new(Vec::new());
    let m = Meta {
        path: b"../\xff\n\x1b[2J",
        ..meta(Kind::File, "", "")
    };
    tar.entry(&m).unwrap();
    let said = refusal(&tar.finish().unwrap());
    assert!(said.is_ascii() && !said.contains(['\n', '\x1b']), "{said}");
}

#[test]
fn devices_are_names_in_the_layer_and_nothing_is_opened() {
    need_root!();
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(&["c null", "h link>null", "l way>null"]);
    apply_to(dir.path(), &tar[..], &Limits::default()).unwrap();
    let null = fs::symlink_metadata(dir.path().join("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.nlink() == 2);
    // Nothing is written through one, by whatever name.
    for name in ["null", "link"] {
        let tar = archive(&["c null", "h link>null", &format!("f {name}=text")]);
        let dir = tempfile::tempdir().unwrap();
        apply_to(dir.path(), &tar[..], &Limits::default()).unwrap();
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"text");
    }
}

#[test]
fn data_does_not_go_through_a_link_or_into_another_file() {
    need_root!();
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    let tar = archive(&["l l>../victim", "f l=1", "f a=one", "h b>a", "f b=two"]);
    apply_to(&root, &tar[..], &Limits::default()).unwrap();
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"safe");
    assert_eq!(fs::read(root.join("a")).unwrap(), b"one");
    assert_eq!(fs::read(root.join("b")).unwrap(), b"two");
}

/// The same bytes again and again.
struct Again {
    bytes: Vec<u8>,
    times: usize,
    at: usize,
}

impl BufRead for Again {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.at == self.bytes.len() && self.times > 1 {
            (self.at, self.times) = (0, self.times - 1);
        }
        Ok(&self.bytes[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl std::io::Read for Again {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

/// A thousand entries: new directories, a name that changes what it is, whiteouts.
fn thousand() -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for i in 0..1000 {
        let (kind, path) = match i {
            0..10 => (Kind::Dir, format!("d{i}")),
            10 => (Kind::File, "same".to_owned()),
            11 => (Kind::Dir, "same".to_owned()),
            _ => (Kind::File, ".wh.gone".to_owned()),
        };
        tar.entry(&meta(kind, &path, "")).unwrap();
    }
    let mut bytes = tar.finish().unwrap();
    bytes.truncate(
        bytes
            .iter()
            .rposition(|b| *b != 0)
            .unwrap()
            .next_multiple_of(512),
    );
    bytes
}

#[test]
fn a_million_entries_are_a_stream_like_any_other() {
    need_root!();
    let row = |times| Again {
        bytes: thousand(),
        times,
        at: 0,
    };
    let dir = tempfile::tempdir().unwrap();
    let done = apply_to(dir.path(), row(1000), &Limits::default()).unwrap();
    assert_eq!(done.entries, 1_000_000);
    let few = Limits {
        entries: 5000,
        ..Limits::default()
    };
    let dir = tempfile::tempdir().unwrap();
    // An endless archive ends where the limit is.
    let said = apply_to(dir.path(), row(usize::MAX), &few)
        .unwrap_err()
        .to_string();
    assert!(said.contains("more than 5000 entries"), "{said}");
}
