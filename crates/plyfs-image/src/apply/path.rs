//! Paths of archive entries: relative to the root of the layer, whatever they look like.
use plyfs_format::aufs::{self, AufsName};
use plyfs_sys::{Name, NameBuf};

use crate::limits::Limits;

/// A path without `.` and empty parts; `..` has no place in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryPath {
    parts: Vec<NameBuf>,
}

/// What an entry's path means.
#[derive(Debug)]
pub(super) enum Meaning<'a> {
    /// The root of the layer.
    Root,
    /// An object called so in a directory.
    Object(&'a [NameBuf], &'a Name),
    /// The name does not exist in the layers below.
    Whiteout(&'a [NameBuf], &'a [u8]),
    /// Nothing below shows through the directory.
    Opaque(&'a [NameBuf]),
    /// Leftovers of AUFS.
    Ignored,
}

impl EntryPath {
    /// Reads a path as an archive has it.
    pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, String> {
        if bytes.len() > limits.path {
            return Err(format!("the path is longer than {} bytes", limits.path));
        }
        let mut parts = Vec::new();
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err("the path contains '..'".to_owned()),
                part => parts.push(
                    Name::new(part)
                        .map_err(|e| e.errno().to_string())?
                        .to_owned(),
                ),
            }
        }
        if parts.len() > limits.depth {
            return Err(format!("the path has more than {} parts", limits.depth));
        }
        Ok(Self { parts })
    }

    /// The directory and the name in it; None for the root.
    pub(super) fn split(&self) -> Option<(&[NameBuf], &Name)> {
        let (name, parent) = self.parts.split_last()?;
        Some((parent, name))
    }

    /// Reads the `.wh.` names.
    pub(super) fn meaning(&self) -> Result<Meaning<'_>, String> {
        let Some((parent, name)) = self.split() else {
            return Ok(Meaning::Root);
        };
        for part in parent {
            match aufs::classify(part.as_bytes()) {
                AufsName::Plain => {}
                AufsName::Meta if is_leftover(part.as_bytes()) => return Ok(Meaning::Ignored),
                _ => return Err("a whiteout is no directory".to_owned()),
            }
        }
        match aufs::classify(name.as_bytes()) {
            AufsName::Plain => Ok(Meaning::Object(parent, name)),
            AufsName::OpaqueMarker => Ok(Meaning::Opaque(parent)),
            AufsName::Whiteout(hidden) => Ok(Meaning::Whiteout(parent, hidden)),
            AufsName::Meta if is_leftover(name.as_bytes()) => Ok(Meaning::Ignored),
            AufsName::Meta => Err("the whiteout names nothing that could be deleted".to_owned()),
        }
    }
}

fn is_leftover(name: &[u8]) -> bool {
    name.starts_with(aufs::META_PREFIX) && name.len() > aufs::META_PREFIX.len()
}

/// The parts with slashes between them.
pub(super) fn joined(parts: &[NameBuf]) -> Vec<u8> {
    let parts: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(path: &str) -> String {
        let path = match EntryPath::parse(path.as_bytes(), &Limits::default()) {
            Ok(path) => path,
            Err(e) => return format!("refused: {e}"),
        };
        match path.meaning() {
            Ok(Meaning::Root) => "root".to_owned(),
            Ok(Meaning::Object(p, n)) => format!(
                "{}|{}",
                joined(p).escape_ascii(),
                n.as_bytes().escape_ascii()
            ),
            Ok(Meaning::Whiteout(p, n)) => {
                format!("-{}|{}", joined(p).escape_ascii(), n.escape_ascii())
            }
            Ok(Meaning::Opaque(p)) => format!("={}", joined(p).escape_ascii()),
            Ok(Meaning::Ignored) => "ignored".to_owned(),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn paths_mean_what_image_layers_say() {
        for (path, want) in [
            ("./", "root"),
            ("", "root"),
            ("/", "root"),
            ("a/b", "a|b"),
            ("/a//./b/", "a|b"),
            ("a/../b", "refused: the path contains '..'"),
            ("..", "refused: the path contains '..'"),
            ("a/.wh.b", "-a|b"),
            (".wh..wh..opq", "="),
            ("a/.wh..wh..opq", "=a"),
            (".wh..wh.plnk/77.88", "ignored"),
            (".wh..wh.aufs", "ignored"),
            (".wh.", "refused"),
            (".wh..", "refused"),
            (".wh...", "refused"),
            ("a/.wh..wh.", "refused"),
            (".wh.a/b", "refused"),
            ("...", "|..."),
        ] {
            assert_eq!(meaning(path), want, "{path}");
        }
        assert!(meaning(&"x".repeat(256)).starts_with("refused"));
        assert!(meaning(&"x/".repeat(500)).starts_with("refused"));
    }
}
