//! Exporting: an image as others read it, with the digests it has here.
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::MediaType;
use plyfs_sys::stat::Time;
use serde_json::{Value, json};

use super::{DOCKER_FILE, IMAGE_NAME, INDEX_FILE, LAYOUT, LAYOUT_FILE, REF_NAME};
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::progress::{self, Metered, Progress};
use crate::store::{Image, Store};
use crate::tar::{Kind, Meta, Writer};

/// How an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout in a directory.
    OciDir,
    /// An OCI layout in an archive.
    OciTar,
    /// What `docker save` writes: an OCI layout in an archive, and `manifest.json` beside it.
    Docker,
}

/// Writes an image to `path`; `-` is standard output for archives. An existing layout takes the
/// image in addition to what it has.
///
/// # Errors
/// When something of the image is missing, or `path` cannot be written.
pub fn export(
    store: &Store,
    image: &Image,
    name: Option<&str>,
    path: &Path,
    format: Format,
    progress: &dyn Progress,
) -> Result<()> {
    let work = Export {
        store,
        image,
        name,
        progress,
    };
    match format {
        Format::OciDir => work.dir(path),
        Format::OciTar | Format::Docker if path == Path::new("-") => {
            let out = io::stdout().lock();
            work.tar(out, format).map(drop)
        }
        Format::OciTar | Format::Docker => work.tar_file(path, format),
    }
}

struct Export<'a> {
    store: &'a Store,
    image: &'a Image,
    name: Option<&'a str>,
    progress: &'a dyn Progress,
}

impl Export<'_> {
    /// Digests of all blobs with their sizes, each once, in a fixed order.
    fn blobs(&self) -> Vec<(Digest, u64)> {
        let image = self.image;
        let mut blobs = vec![(image.manifest.digest().clone(), image.manifest.size())];
        let layers = image.layers.iter().map(|l| (l.digest().clone(), l.size()));
        for (digest, size) in layers {
            if !blobs.iter().any(|(d, _)| *d == digest) {
                blobs.push((digest, size));
            }
        }
        blobs
    }

    /// The content of a blob; who waits sees how far it is.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Metered<impl Read>> {
        let meter = progress::begin(self.progress, digest, Some(size));
        Ok(Metered::new(self.store.open_blob(digest)?, meter))
    }

    fn entry(&self) -> Value {
        let manifest = &self.image.manifest;
        let mut entry = json!({
            "mediaType": manifest.media_type().as_ref(),
            "digest": manifest.digest().to_string(),
            "size": manifest.size(),
        });
        if let Some(name) = self.name {
            let tag = name.rsplit(':').next().unwrap_or(name);
            entry["annotations"] = json!({ REF_NAME: tag, IMAGE_NAME: name });
        }
        if let (Some(os), Some(arch)) = (self.image.text("os"), self.image.text("architecture")) {
            entry["platform"] = json!({ "os": os, "architecture": arch });
        }
        entry
    }

    fn index(&self, others: Vec<Value>) -> Result<Vec<u8>> {
        let mut manifests = others;
        let entry = self.entry();
        let called = |e: &Value| e["annotations"][IMAGE_NAME].as_str().map(str::to_owned);
        manifests.retain(|e| {
            let same = e["digest"] == entry["digest"] && called(e) == called(&entry);
            !same && (called(&entry).is_none() || called(e) != called(&entry))
        });
        manifests.push(entry);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex.as_ref(),
            "manifests": manifests,
        });
        serde_json::to_vec(&index).map_err(|e| ImageError::malformed(INDEX_FILE, e))
    }

    fn dir(&self, path: &Path) -> Result<()> {
        let failed = |e| ImageError::file("writing to", path, e);
        let index_path = path.join(INDEX_FILE);
        let others = match fs::read(&index_path) {
            Ok(text) => {
                let index: Value = serde_json::from_slice(&text)
                    .map_err(|e| ImageError::malformed(index_path.display().to_string(), e))?;
                index["manifests"].as_array().cloned().unwrap_or_default()
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let foreign = fs::read_dir(path).is_ok_and(|mut d| d.next().is_some());
                if foreign && !path.join(LAYOUT_FILE).exists() {
                    return Err(ImageError::Refused(format!(
                        "{path:?} is neither empty nor an OCI layout: choose another directory"
                    )));
                }
                Vec::new()
            }
            Err(e) => return Err(ImageError::file("reading", &index_path, e)),
        };
        fs::create_dir_all(path).map_err(failed)?;
        put(path, LAYOUT_FILE, &mut &LAYOUT[..])?;
        put(
            path,
            &name_of(&self.image.id),
            &mut self.store.open_blob(&self.image.id)?,
        )?;
        for (digest, size) in self.blobs() {
            put(path, &name_of(&digest), &mut self.blob(&digest, size)?)?;
        }
        // The index comes last: until then nobody sees the image.
        put(path, INDEX_FILE, &mut &self.index(others)?[..])
    }

    fn tar_file(&self, path: &Path, format: Format) -> Result<()> {
        let failed = |e| ImageError::file("writing", path, e);
        let parent = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(parent)
            .map_err(failed)?;
        let out = self.tar(BufWriter::with_capacity(1 << 20, file), format)?;
        let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    fn tar<W: Write>(&self, out: W, format: Format) -> Result<W> {
        let failed = |e| ImageError::stream("writing the archive", e);
        let mut tar = Writer::new(out);
        let config = self.store.read_document(&self.image.id)?;
        let mut blobs = self.blobs();
        blobs.push((self.image.id.clone(), config.len() as u64));
        blobs.sort_by_key(|(digest, _)| digest.to_string());
        for dir in ["blobs", "blobs/sha256"] {
            add(&mut tar, dir, Kind::Dir, 0).map_err(failed)?;
        }
        for (digest, size) in &blobs {
            add(&mut tar, &name_of(digest), Kind::File, *size).map_err(failed)?;
            let mut blob = self.blob(digest, *size)?;
            pump(&mut blob, |piece| tar.data(piece)).map_err(failed)?;
        }
        let mut documents: Vec<(&str, Vec<u8>)> = vec![(INDEX_FILE, self.index(Vec::new())?)];
        if format == Format::Docker {
            documents.push((DOCKER_FILE, self.docker_manifest()?));
        }
        documents.push((LAYOUT_FILE, LAYOUT.to_vec()));
        for (name, text) in documents {
            add(&mut tar, name, Kind::File, text.len() as u64).map_err(failed)?;
            tar.data(&text).map_err(failed)?;
        }
        let mut out = tar.finish().map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok(out)
    }

    fn docker_manifest(&self) -> Result<Vec<u8>> {
        let layers: Vec<String> = self
            .image
            .layers
            .iter()
            .map(|l| name_of(l.digest()))
            .collect();
        let manifest = json!([{
            "Config": name_of(&self.image.id),
            "RepoTags": self.name.map(|n| vec![n]).unwrap_or_default(),
            "Layers": layers,
        }]);
        serde_json::to_vec(&manifest).map_err(|e| ImageError::malformed(DOCKER_FILE, e))
    }
}

fn name_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// Writes a file of a layout under its name at once; blobs that are there stay.
fn put(dir: &Path, name: &str, content: &mut dyn Read) -> Result<()> {
    let path: PathBuf = dir.join(name);
    let failed = |e| ImageError::file("writing", &path, e);
    if name.starts_with("blobs/") && path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(dir);
    fs::create_dir_all(parent).map_err(failed)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(failed)?;
    let out: &mut File = file.as_file_mut();
    io::copy(content, out).map_err(failed)?;
    file.persist(&path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn add<W: Write>(tar: &mut Writer<W>, path: &str, kind: Kind, size: u64) -> io::Result<()> {
    tar.entry(&Meta {
        path: path.as_bytes(),
        kind,
        mode: if kind == Kind::Dir { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        size,
        mtime: Time::default(),
        link: b"",
        rdev: (0, 0),
        xattrs: &[],
    })
}

fn pump(source: &mut dyn Read, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buf = vec![0u8; 1 << 20];
    loop {
        match source.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => sink(&buf[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
