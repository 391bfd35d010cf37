//! Writing to stdout and stderr; a reader who has gone is an error to return, not a panic.
use std::fmt::Display;
use std::io::Write;

/// Prints one line to stdout.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints text that has its own line ends.
pub(crate) fn raw(text: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints rows in columns.
pub(crate) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    raw(aligned(rows))
}

/// Rows in columns as wide as their widest cell; nothing stands behind the last one.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|r| r.get(i));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells.map(|(c, w)| format!("{c:<w$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A path as [`escaped`] text.
pub(crate) fn escaped_path(path: &std::path::Path) -> String {
    escaped(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

/// Prints one line to stderr; nobody can be told if that fails.
pub(crate) fn note(text: impl Display) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Prints one line to stderr, after the program's name; nobody can be told if that fails.
pub(crate) fn complain(text: impl Display) {
    drop(writeln!(std::io::stderr().lock(), "plyfs: {text}"));
}

/// Bytes as text: what is no UTF-8 or cannot be seen is written `\xNN`, a backslash `\\`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let hex = |text: &mut String, byte: u8| text.push_str(&format!("\\x{byte:02x}"));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut buf = [0u8; 4];
                    c.encode_utf8(&mut buf)
                        .bytes()
                        .for_each(|b| hex(&mut text, b));
                }
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| hex(&mut text, *b));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_line() {
        for (bytes, want) in [
            (&b"/a b"[..], "/a b"),
            (b"/a\nb", "/a\\x0ab"),
            (b"/\xff\\", "/\\xff\\\\"),
            ("/\u{e4}\u{85}".as_bytes(), "/\u{e4}\\xc2\\x85"),
        ] {
            assert_eq!(escaped(bytes), want);
        }
    }
}
