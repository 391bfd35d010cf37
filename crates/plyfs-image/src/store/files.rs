//! Small files of the store: written whole and synced, or not at all.
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use crate::digest::Digest;
use crate::error::{ImageError, Result};

/// Reads a document; None where there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ImageError::file("reading", path, e)),
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(e) => Err(ImageError::malformed(path.display().to_string(), e)),
    }
}

/// Makes a directory's names durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| ImageError::file("syncing", dir, e))
}

/// The parent of a path below the root, made if it is not there.
pub(super) fn parent(path: &Path) -> Result<&Path> {
    let dir = path.parent().unwrap_or(path);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|e| ImageError::file("making", dir, e))?;
    Ok(dir)
}

/// Renames a finished directory to its name; false where that name stands for the same already.
pub(super) fn publish_dir(from: &Path, to: &Path) -> Result<bool> {
    let dir = parent(to)?;
    match fs::rename(from, to) {
        Ok(()) => {}
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
            ) =>
        {
            return Ok(false);
        }
        Err(e) => return Err(ImageError::file("publishing", to, e)),
    }
    sync_dir(dir)?;
    Ok(true)
}

/// The names in a directory; none where it is not there.
pub(super) fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(ImageError::file("listing", dir, e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| ImageError::file("listing", dir, e))?;
        paths.push(entry.path());
    }
    paths.sort();
    Ok(paths)
}

/// All digests that have a place in a directory `DIR/ALG/HEX[suffix]`, with their paths.
pub(super) fn digests(dir: &Path) -> Result<Vec<(Option<Digest>, PathBuf)>> {
    let mut found = Vec::new();
    for algorithm in names(dir)? {
        for path in names(&algorithm)? {
            found.push((digest_of(&path), path));
        }
    }
    Ok(found)
}

fn digest_of(path: &Path) -> Option<Digest> {
    let algorithm = path.parent()?.file_name()?.to_str()?;
    let name = path.file_name()?.to_str()?;
    let hex = name.split('.').next()?;
    format!("{algorithm}:{hex}").parse().ok()
}

impl Store {
    /// Writes a document under its name, replacing what was there.
    pub(super) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|e| ImageError::malformed(path.display().to_string(), e))?;
        text.push(b'\n');
        self.write_file(path, &text)
    }

    /// Writes a file under its name, replacing what was there.
    pub(super) fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        let dir = parent(path)?;
        let staging = self.root.join("staging");
        let failed = |e| ImageError::file("writing", path, e);
        let mut file = tempfile::NamedTempFile::new_in(staging).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        sync_dir(dir)
    }

    /// Takes something away: it has lost its name before the first byte of it goes.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        let grave = self.staging()?;
        let to = grave.path().join("gone");
        match fs::rename(path, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(ImageError::file("removing", path, e)),
        }
        if let Some(dir) = path.parent() {
            sync_dir(dir)?;
        }
        clear(grave)
    }
}

/// Removes a staging directory, and says so if that fails.
pub(super) fn clear(dir: tempfile::TempDir) -> Result<()> {
    let path = dir.path().to_owned();
    dir.close()
        .map_err(|e| ImageError::file("removing", &path, e))
}
