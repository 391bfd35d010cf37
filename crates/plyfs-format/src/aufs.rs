//! AUFS names: whiteouts that are told by their name, as image layers carry them.

/// What every AUFS whiteout begins with.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The file that makes its directory opaque.
pub const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// What the names of AUFS's own metadata begin with; the opaque marker is one of them.
pub const META_PREFIX: &[u8] = b".wh..wh.";

/// The longest file name the kernel takes.
const NAME_MAX: usize = 255;

/// What a name means in a layer that speaks AUFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AufsName<'a> {
    /// A name like any other.
    Plain,
    /// `.wh.NAME`: NAME does not exist in the layers below.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: the directory is opaque.
    OpaqueMarker,
    /// `.wh..wh.*` (hard-link store, pseudo-link directory) or a `.wh.` with no name behind it: hidden, means nothing.
    Meta,
}

/// Reads a directory entry's name.
pub fn classify(name: &[u8]) -> AufsName<'_> {
    if name == OPAQUE_MARKER {
        return AufsName::OpaqueMarker;
    }
    if name.starts_with(META_PREFIX) {
        return AufsName::Meta;
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        None => AufsName::Plain,
        Some(b"" | b"." | b"..") => AufsName::Meta,
        Some(hidden) => AufsName::Whiteout(hidden),
    }
}

/// The name that `.wh.NAME` hides, `None` for every other name.
pub fn whited_out(name: &[u8]) -> Option<&[u8]> {
    match classify(name) {
        AufsName::Whiteout(hidden) => Some(hidden),
        _ => None,
    }
}

/// The whiteout for `name`; `None` if it is no name a whiteout can speak of: empty, `.`, `..`, itself a `.wh.`
/// name that would read back as metadata, or too long with the prefix.
pub fn whiteout_name(name: &[u8]) -> Option<Vec<u8>> {
    if name.len() + WHITEOUT_PREFIX.len() > NAME_MAX || name.contains(&b'/') {
        return None;
    }
    let whiteout = [WHITEOUT_PREFIX, name].concat();
    (whited_out(&whiteout) == Some(name)).then_some(whiteout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaning_of_names() {
        for (name, meaning) in [
            (&b"passwd"[..], AufsName::Plain),
            (b".who", AufsName::Plain),
            (b".wh", AufsName::Plain),
            (b"a.wh.b", AufsName::Plain),
            (b".wh.passwd", AufsName::Whiteout(b"passwd")),
            (b".wh..hidden", AufsName::Whiteout(b".hidden")),
            (b".wh..wh", AufsName::Whiteout(b".wh")),
            (b".wh.", AufsName::Meta),
            (b".wh..", AufsName::Meta),
            (b".wh...", AufsName::Meta),
            (b".wh....", AufsName::Whiteout(b"...")),
            (b".wh..wh..opq", AufsName::OpaqueMarker),
            (b".wh..wh.plnk", AufsName::Meta),
            (b".wh..wh.aufs", AufsName::Meta),
            (b".wh..wh..opq2", AufsName::Meta),
        ] {
            assert_eq!(classify(name), meaning, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn whiteout_names_read_back_or_do_not_exist() {
        assert_eq!(
            whiteout_name(b"passwd").as_deref(),
            Some(&b".wh.passwd"[..])
        );
        assert_eq!(whiteout_name(&[b'a'; 251]).map(|n| n.len()), Some(255));
        for bad in [
            &b""[..],
            b".",
            b"..",
            b".wh.x",
            b".wh..opq",
            b"a/b",
            &[b'a'; 252],
        ] {
            assert_eq!(whiteout_name(bad), None, "{}", bad.escape_ascii());
        }
    }
}
