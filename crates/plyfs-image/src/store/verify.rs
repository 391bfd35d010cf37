//! Finding what is not as it was: every byte of every blob and every layer.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use plyfs_format::whiteout;
use plyfs_sys::stat::{Kind, Stat, stat};
use plyfs_sys::{At, Name, NameBuf, SysError, attr, dir, io, open, xattr};
use serde::Serialize;

use super::{LayerSource, Store, files};
use crate::digest::{self, Digest, Hasher, HashingReader};
use crate::error::Result;
use crate::progress::{self, Metered, Progress};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// Which part of the store: "image", "blob", "layer", "tag", "container".
    pub part: &'static str,
    /// Its name or digest.
    pub name: String,
    /// What is wrong.
    pub what: String,
}

/// Sizes of blobs by digest, as manifests have them; others are small.
type Sizes = BTreeMap<String, u64>;

impl Store {
    /// Checks the store; the faults found. Each layer is unpacked once more for comparison, which
    /// needs room for the largest; with `quick` only blobs are read. Blobs and layers are shown by
    /// their digests as they are read.
    ///
    /// # Errors
    /// When something cannot be checked at all, such as for want of room.
    pub fn verify(&self, quick: bool, progress: &dyn Progress) -> Result<Vec<Fault>> {
        let mut faults = BTreeSet::new();
        let mut layers: BTreeMap<String, Digest> = BTreeMap::new();
        let mut sizes = Sizes::new();
        let mut fault = |part, name: String, what: String| {
            faults.insert(Fault { part, name, what });
        };
        let mut images = Vec::new();
        for id in self.image_ids()? {
            match self.image(&id) {
                Ok(Some(image)) => images.push((id.to_string(), image)),
                Ok(None) => {}
                Err(e) => fault("image", id.to_string(), e.to_string()),
            }
        }
        for tagged in self.tags()?.into_values() {
            match self.image_by_manifest(&tagged.manifest) {
                Ok(image) => images.push((tagged.name, image)),
                Err(e) => fault("tag", tagged.name, e.to_string()),
            }
        }
        for (name, image) in images {
            for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
                if !self.has_blob(layer.digest())? {
                    fault(
                        "image",
                        name.clone(),
                        format!("blob {} is missing", layer.digest()),
                    );
                }
                if !self.has_layer(diff_id)? {
                    fault("image", name.clone(), format!("layer {diff_id} is missing"));
                }
                layers.insert(diff_id.to_string(), layer.digest().clone());
                sizes.insert(layer.digest().to_string(), layer.size());
            }
        }
        for container in self.containers()? {
            for diff_id in &container.diff_ids {
                if !self.has_layer(diff_id)? {
                    let what = format!("layer {diff_id} is missing");
                    fault("container", container.name.clone(), what);
                }
            }
        }
        for (digest, path) in files::digests(&self.root.join("blobs"))? {
            let Some(digest) = digest else {
                fault(
                    "blob",
                    path.display().to_string(),
                    "this is no name of a blob".into(),
                );
                continue;
            };
            if let Err(e) = self.verify_blob(&digest, &sizes, progress) {
                fault("blob", digest.to_string(), e.to_string());
            }
        }
        for (digest, path) in files::digests(&self.root.join("layers"))? {
            let Some(digest) = digest else {
                fault(
                    "layer",
                    path.display().to_string(),
                    "this is no name of a layer".into(),
                );
                continue;
            };
            let blob = layers.get(&digest.to_string()).filter(|_| !quick);
            for what in self.verify_layer(&digest, blob, &sizes, progress)? {
                fault("layer", digest.to_string(), what);
            }
        }
        Ok(faults.into_iter().collect())
    }

    /// The content of a blob; who waits sees how far it is.
    fn shown_blob(
        &self,
        digest: &Digest,
        of: &Digest,
        sizes: &Sizes,
        progress: &dyn Progress,
    ) -> Result<Metered<impl Read + Send + use<>>> {
        let meter = progress::begin(progress, of, sizes.get(&digest.to_string()).copied());
        Ok(Metered::new(self.open_blob(digest)?, meter))
    }

    fn verify_blob(&self, digest: &Digest, sizes: &Sizes, progress: &dyn Progress) -> Result<()> {
        let reader = self.shown_blob(digest, digest, sizes, progress)?;
        let reader = HashingReader::new(reader, Hasher::like(digest)?);
        let (actual, _) = reader.finish()?;
        digest::check("its content", digest, &actual)
    }

    /// What is wrong with a layer.
    fn verify_layer(
        &self,
        diff_id: &Digest,
        blob: Option<&Digest>,
        sizes: &Sizes,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        if let Err(e) = self.layer(diff_id) {
            return Ok(vec![e.to_string()]);
        }
        let Some(blob) = blob else {
            return Ok(Vec::new());
        };
        let Ok(reader) = self.shown_blob(blob, diff_id, sizes, progress) else {
            return Ok(vec![format!(
                "its blob {blob} is missing, so it cannot be compared"
            )]);
        };
        let again = self.staging()?;
        let source = LayerSource {
            diff_id: Some(diff_id.clone()),
            ..LayerSource::anonymous(reader)
        };
        let faults = match self.unpack_again(source, again.path()) {
            Ok(()) => compare(&self.layer_dir(diff_id)?, &again.path().join("fs"))?,
            Err(e) => vec![format!(
                "its blob {blob} does not unpack to it any more: {e}"
            )],
        };
        files::clear(again)?;
        Ok(faults)
    }
}

/// How two trees differ: paths and what is different there.
fn compare(have: &Path, want: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let (have, want) = (open::open_dir_path(have)?, open::open_dir_path(want)?);
    compare_objects(At::object(&have), At::object(&want), b"/", &mut faults)?;
    compare_dirs(&have, &want, b"", &mut faults)?;
    Ok(faults)
}

fn list(dir_fd: &OwnedFd) -> Result<BTreeSet<NameBuf>> {
    let list = open::open_dir_for_list(dir_fd.as_fd())?;
    let mut names = BTreeSet::new();
    dir::for_each(list.as_fd(), |entry| {
        names.insert(Name::new(entry.name)?.to_owned());
        Ok::<(), SysError>(())
    })?;
    Ok(names)
}

fn compare_dirs(
    have: &OwnedFd,
    want: &OwnedFd,
    path: &[u8],
    faults: &mut Vec<String>,
) -> Result<()> {
    let (has, wants) = (list(have)?, list(want)?);
    for name in has.union(&wants) {
        let path = [path, b"/", name.as_bytes()].concat();
        let shown = path.escape_ascii();
        if !wants.contains(name) {
            faults.push(format!("{shown} is there and does not belong to the layer"));
            continue;
        }
        if !has.contains(name) {
            faults.push(format!("{shown} is missing"));
            continue;
        }
        let at = (At::entry(have.as_fd(), name), At::entry(want.as_fd(), name));
        if compare_objects(at.0, at.1, &path, faults)? == Some(Kind::Dir) {
            let below = (
                open::open_dir(have.as_fd(), name)?,
                open::open_dir(want.as_fd(), name)?,
            );
            compare_dirs(&below.0, &below.1, &path, faults)?;
        }
    }
    Ok(())
}

/// Compares two objects; their kind if it is the same.
fn compare_objects(
    have: At<'_>,
    want: At<'_>,
    path: &[u8],
    faults: &mut Vec<String>,
) -> Result<Option<Kind>> {
    let (a, b) = (stat(have)?, stat(want)?);
    let shown = path.escape_ascii();
    if a.kind() != b.kind() {
        faults.push(format!("{shown} is of another type"));
        return Ok(None);
    }
    let is_dir = a.kind() == Kind::Dir;
    let facts = |s: &Stat| {
        let size = if is_dir { 0 } else { s.size };
        (
            s.mode,
            s.uid,
            s.gid,
            s.rdev,
            size,
            if is_dir { 0 } else { s.nlink },
        )
    };
    // A whiteout says nothing but that it is there.
    let is_whiteout = whiteout::is_whiteout_dev(a.mode, a.rdev.0, a.rdev.1);
    if facts(&a) != facts(&b) || (a.mtime != b.mtime && !is_whiteout) {
        faults.push(format!("{shown} has other attributes"));
    }
    if xattrs(have)? != xattrs(want)? {
        faults.push(format!("{shown} has other extended attributes"));
    }
    let differs = match a.kind() {
        Kind::Symlink => attr::readlink(have)? != attr::readlink(want)?,
        Kind::File => a.size == b.size && !same_data(have, want)?,
        _ => false,
    };
    if differs {
        faults.push(format!("{shown} has other content"));
    }
    Ok(Some(a.kind()))
}

fn xattrs(at: At<'_>) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let names = xattr::list(at)?;
    let pairs = names
        .into_iter()
        .map(|n| xattr::get(at, &n).map(|v| (n, v)));
    Ok(pairs.collect::<std::result::Result<_, _>>()?)
}

fn same_data(a: At<'_>, b: At<'_>) -> Result<bool> {
    let access = open::Access::READ;
    let (a, b) = (open::open_file(a, access)?, open::open_file(b, access)?);
    let mut bufs = (vec![0u8; 1 << 20], vec![0u8; 1 << 20]);
    let mut at = 0;
    loop {
        let n = full(&a, &mut bufs.0, at)?;
        let m = full(&b, &mut bufs.1, at)?;
        if n != m || bufs.0[..n] != bufs.1[..n] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
        at += n as u64;
    }
}

fn full(fd: &OwnedFd, buf: &mut [u8], at: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let n = io::pread(fd.as_fd(), &mut buf[done..], at + done as u64)?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}
