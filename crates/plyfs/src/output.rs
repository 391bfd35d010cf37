//! Writing to stdout and stderr; a reader who has gone is an error to return, not a panic.
use std::fmt::Display;
use std::io::Write;

/// Prints one line to stdout.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
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
