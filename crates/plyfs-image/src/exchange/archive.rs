//! Files of a layout: in a directory, or in a tar file that is read where it lies.
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compression::{Compression, unpacked};
use crate::error::{ImageError, Result};
use crate::limits::Limits;
use crate::tar::{self, Kind, Reader};

/// Most links from one name of an archive to another.
const MAX_HOPS: usize = 8;

/// Where the files are.
pub(super) enum Files {
    /// In a directory.
    Dir(PathBuf),
    /// In an archive: where each file begins and how long it is.
    Tar {
        file: Arc<File>,
        found: HashMap<String, Place>,
    },
    /// An archive that has nothing of a layout: a root file system.
    Rootfs(File),
}

/// A file of an archive.
pub(super) enum Place {
    At(u64, u64),
    Link(String),
}

/// A piece of a file.
pub(super) struct Slice {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let n = self.file.read_at(&mut buf[..max], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

impl Files {
    /// Opens a directory, an archive, or with `-` an archive from standard input. A packed
    /// archive, and one that cannot be read twice, is unpacked to a file in `scratch` first.
    pub(super) fn open(path: &Path, scratch: &Path, limits: &Limits) -> Result<Self> {
        if path.is_dir() {
            if !path.join(super::LAYOUT_FILE).is_file() {
                return Err(ImageError::Refused(format!(
                    "{path:?} is no OCI layout: it has no file 'oci-layout'. A directory tree can \
                     be imported as an archive: tar -C {0} -c . | plyfs image import -",
                    path.display()
                )));
            }
            return Ok(Self::Dir(path.to_owned()));
        }
        let mut file = plain_file(path, scratch)?;
        match index(&mut file, limits)? {
            Some(found) => Ok(Self::Tar {
                file: Arc::new(file),
                found,
            }),
            None => {
                file.seek(SeekFrom::Start(0))
                    .map_err(|e| ImageError::file("reading", path, e))?;
                Ok(Self::Rootfs(file))
            }
        }
    }

    /// Opens a file for reading; None where there is none.
    pub(super) fn file(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        match self {
            Self::Rootfs(_) => Ok(None),
            Self::Dir(dir) => {
                let path = dir.join(name);
                match File::open(&path) {
                    Ok(file) => Ok(Some(Box::new(file))),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(ImageError::file("opening", &path, e)),
                }
            }
            Self::Tar { file, found } => {
                let mut name = name.to_owned();
                for _ in 0..MAX_HOPS {
                    match found.get(&name) {
                        None => return Ok(None),
                        Some(Place::Link(to)) => name = to.clone(),
                        Some(Place::At(at, left)) => {
                            return Ok(Some(Box::new(Slice {
                                file: Arc::clone(file),
                                at: *at,
                                left: *left,
                            })));
                        }
                    }
                }
                Err(ImageError::malformed(name, "its links go round in circles"))
            }
        }
    }
}

/// The archive as a file that is not packed.
fn plain_file(path: &Path, scratch: &Path) -> Result<File> {
    let failed = |e| ImageError::file("reading", path, e);
    let source: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let mut file = File::open(path).map_err(failed)?;
        let mut start = Vec::new();
        (&mut file)
            .take(4)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let seekable = file.seek(SeekFrom::Start(0)).is_ok();
        if seekable && Compression::sniff(&start) == Compression::Plain {
            return Ok(file);
        }
        Box::new(io::Cursor::new(if seekable { Vec::new() } else { start }).chain(file))
    };
    let (_, mut tar) = unpacked(source).map_err(failed)?;
    let mut copy =
        tempfile::tempfile_in(scratch).map_err(|e| ImageError::file("writing to", scratch, e))?;
    io::copy(&mut tar, &mut copy).map_err(failed)?;
    copy.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(copy)
}

/// Where the files of a layout are in an archive; None for an archive with anything else in it.
fn index(file: &mut File, limits: &Limits) -> Result<Option<HashMap<String, Place>>> {
    let tar_limits = tar::Limits {
        extra: limits.pax,
        headers: limits.entries,
    };
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file), tar_limits);
    let mut found = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let Some(name) = layout_name(&entry.path) else {
            return Ok(None);
        };
        match entry.kind {
            Kind::Dir => {}
            Kind::File if entry.sparse.is_none() => {
                found.insert(name, Place::At(reader.position(), entry.size));
            }
            Kind::Symlink | Kind::HardLink => {
                let base = match (entry.kind, name.rfind('/')) {
                    (Kind::Symlink, Some(slash)) => &name[..slash],
                    _ => "",
                };
                if let Some(to) = resolve(base, &String::from_utf8_lossy(&entry.link)) {
                    found.insert(name, Place::Link(to));
                }
            }
            _ => return Ok(None),
        }
    }
    let is_layout = found.contains_key(super::INDEX_FILE) || found.contains_key(super::DOCKER_FILE);
    Ok(is_layout.then_some(found))
}

/// The name of a file that a layout may have, without `./`.
fn layout_name(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let name = text.trim_start_matches("./").trim_matches('/');
    let first = name.split('/').next().unwrap_or_default();
    let stem = first
        .strip_suffix(".json")
        .or(first.strip_suffix(".tar"))
        .unwrap_or(first);
    let known = [
        "",
        ".",
        "blobs",
        "oci-layout",
        "index",
        "manifest",
        "repositories",
        "version",
    ];
    let is_hex = stem.len() >= 32 && stem.bytes().all(|b| b.is_ascii_hexdigit());
    (known.contains(&stem) || is_hex).then(|| name.to_owned())
}

/// What a relative link in the directory `base` means.
fn resolve(base: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_from_root_file_systems() {
        let hex = "a".repeat(64);
        for (path, want) in [
            ("./", true),
            ("./oci-layout", true),
            ("index.json", true),
            ("blobs/sha256/x", true),
            (&format!("{hex}/layer.tar"), true),
            (&format!("{hex}.json"), true),
            (&format!("{hex}.tar"), true),
            ("etc/passwd", false),
            ("./bin", false),
        ] {
            assert_eq!(layout_name(path.as_bytes()).is_some(), want, "{path}");
        }
        assert_eq!(
            resolve("a", "../b/layer.tar").as_deref(),
            Some("b/layer.tar")
        );
        assert_eq!(resolve("a", "../../b"), None);
    }
}
