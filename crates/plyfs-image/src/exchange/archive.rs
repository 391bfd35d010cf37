//! Files of a layout: in a directory, or in a tar file that is read where it lies.
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compression::{Compression, decoder, sniffed};
use crate::error::{ImageError, Result};
use crate::limits::Limits;
use crate::tar::{self, Kind, Reader};

/// Most links from one name of an archive to another.
const MAX_HOPS: usize = 8;
/// Most names in the archive of a layout, and how long they may be: they are held in memory.
const MAX_NAMES: u64 = 1 << 20;
const MAX_NAME: usize = 255;
/// Most bytes of an archive that are kept until a name in it tells what it is.
const MAX_SEEN: usize = 1 << 20;

/// Where the files are.
pub(super) enum Files {
    /// In a directory.
    Dir(PathBuf),
    /// In an archive: where each file begins and how long it is.
    Tar {
        file: Arc<File>,
        found: HashMap<String, Place>,
    },
}

/// What a path turned out to be.
pub(super) enum Opened {
    /// Something with images in it.
    Layout(Files),
    /// The archive of a root file system, as it came, and its size where that is known.
    Rootfs(Box<dyn Read + Send>, Option<u64>),
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
    /// Opens a directory, an archive, or with `-` an archive from standard input. A layout in a
    /// packed archive, or in one that cannot be read twice, is unpacked to a file in `scratch`
    /// first; a root file system is read as it comes.
    pub(super) fn open(path: &Path, scratch: &Path, limits: &Limits) -> Result<Opened> {
        if path.is_dir() {
            if !path.join(super::LAYOUT_FILE).is_file() {
                return Err(ImageError::Refused(format!(
                    "{path:?} is no OCI layout: it has no file 'oci-layout'. A directory tree can \
                     be imported as an archive: tar -C {0} -c . | plyfs image import -",
                    path.display()
                )));
            }
            return Ok(Opened::Layout(Self::Dir(path.to_owned())));
        }
        let failed = |e| ImageError::file("reading", path, e);
        let (source, size): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let mut file = File::open(path).map_err(failed)?;
            let meta = file.metadata().map_err(failed)?;
            let size = meta.is_file().then_some(meta.len());
            if size.is_some() {
                let (compression, _) = sniffed(&mut file).map_err(failed)?;
                file.rewind().map_err(failed)?;
                if compression == Compression::Plain {
                    return Self::of_file(file, path, limits);
                }
            }
            (Box::new(file), size)
        };
        let (is_rootfs, source) = looked_into(source, limits);
        if is_rootfs {
            return Ok(Opened::Rootfs(Box::new(source), size));
        }
        let (compression, source) = sniffed(source).map_err(failed)?;
        let mut tar = decoder(compression, source).map_err(failed)?;
        let mut copy = tempfile::tempfile_in(scratch)
            .map_err(|e| ImageError::file("writing to", scratch, e))?;
        io::copy(&mut tar, &mut copy).map_err(failed)?;
        copy.rewind().map_err(failed)?;
        Self::of_file(copy, path, limits)
    }

    /// What a file is that is not packed.
    fn of_file(mut file: File, path: &Path, limits: &Limits) -> Result<Opened> {
        let failed = |e| ImageError::file("reading", path, e);
        let found = index(&mut file, limits).map_err(|e| match e {
            ImageError::BadLayer(why) => ImageError::malformed(
                format!("{path:?}"),
                format!("{why}; neither an OCI layout, a docker-archive nor a tar of a root"),
            ),
            other => other,
        })?;
        if let Some(found) = found {
            let file = Arc::new(file);
            return Ok(Opened::Layout(Self::Tar { file, found }));
        }
        file.rewind().map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Opened::Rootfs(Box::new(file), Some(size)))
    }

    /// Opens a file for reading and tells its size; None where there is none.
    pub(super) fn file(&self, name: &str) -> Result<Option<(Box<dyn Read + Send>, u64)>> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                match File::open(&path) {
                    Ok(file) => {
                        let size = file
                            .metadata()
                            .map_err(|e| ImageError::file("opening", &path, e))?;
                        Ok(Some((Box::new(file), size.len())))
                    }
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
                            let file = Arc::clone(file);
                            let (at, left) = (*at, *left);
                            return Ok(Some((Box::new(Slice { file, at, left }), left)));
                        }
                    }
                }
                Err(ImageError::malformed(name, "its links go round in circles"))
            }
        }
    }
}

/// Whether the archive is surely no layout, found out from its first names; and all of it.
fn looked_into<R: Read + Send>(source: R, limits: &Limits) -> (bool, impl Read + Send + use<R>) {
    let mut seen = Seen {
        source,
        bytes: Vec::new(),
    };
    let is_rootfs = has_foreign_name(&mut seen, limits).unwrap_or(false);
    (is_rootfs, io::Cursor::new(seen.bytes).chain(seen.source))
}

/// An error means nothing but that it is not known: whoever reads it all gets it again.
fn has_foreign_name(source: &mut (impl Read + Send), limits: &Limits) -> Result<bool> {
    let failed = |e| ImageError::stream("reading the archive", e);
    let (compression, source) = sniffed(source).map_err(failed)?;
    let tar = BufReader::new(decoder(compression, source).map_err(failed)?);
    let mut reader = Reader::new(tar, tar_limits(limits));
    while let Some(entry) = reader.next_entry()? {
        if layout_name(&entry.path).is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps what is read through it, which must not be much.
struct Seen<R> {
    source: R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Seen<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.bytes.len() > MAX_SEEN {
            return Err(io::Error::other("nothing decides"));
        }
        let n = self.source.read(buf)?;
        self.bytes.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

fn tar_limits(limits: &Limits) -> tar::Limits {
    tar::Limits {
        extra: limits.pax,
        headers: MAX_NAMES,
    }
}

/// Where the files of a layout are in an archive; None for an archive with anything else in it.
fn index(file: &mut File, limits: &Limits) -> Result<Option<HashMap<String, Place>>> {
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file), tar_limits(limits));
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
    if text.len() > MAX_NAME {
        return None;
    }
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
