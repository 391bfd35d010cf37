//! What mounts use that belong to no container: a file locked as long as they live.
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Store, files};
use crate::digest::Digest;
use crate::error::{ImageError, Result};

#[derive(Debug, Serialize, Deserialize)]
struct Using {
    diff_ids: Vec<Digest>,
}

/// Keeps layers from being collected as long as it lives, in this process or in one that it
/// forked; the end of the last of them is enough, however it comes.
#[derive(Debug)]
pub struct Use {
    lock: File,
    path: PathBuf,
}

impl Use {
    /// The file, and the lock on it.
    #[must_use]
    pub fn parts(&self) -> (&Path, BorrowedFd<'_>) {
        (&self.path, self.lock.as_fd())
    }

    /// Goes on with the use of a process that this one follows.
    #[must_use]
    pub fn go_on(path: PathBuf, lock: OwnedFd) -> Self {
        let lock = lock.into();
        Self { lock, path }
    }

    /// Says that the layers are not used any more, and removes the scratch directories.
    pub fn end(self) {
        // What stays has no lock and goes with the next collection.
        drop(std::fs::remove_dir_all(scratch_of(&self.path)));
        drop(std::fs::remove_file(&self.path));
    }

    /// An upper and a workdir that go when the use ends.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn scratch(&self) -> Result<(PathBuf, PathBuf)> {
        let dir = scratch_of(&self.path);
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for path in [&upper, &work] {
            std::fs::create_dir_all(path).map_err(|e| ImageError::file("making", path, e))?;
        }
        Ok((upper, work))
    }
}

impl Store {
    /// Keeps layers from being collected.
    ///
    /// # Errors
    /// When the file that says so cannot be written.
    pub fn use_layers(&self, diff_ids: &[Digest]) -> Result<Use> {
        let dir = self.root.join("uses");
        let failed = |e| ImageError::file("writing to", &dir, e);
        let mut file = tempfile::Builder::new()
            .suffix(".use")
            .tempfile_in(&dir)
            .map_err(failed)?;
        file.as_file().lock().map_err(failed)?;
        let using = Using {
            diff_ids: diff_ids.to_vec(),
        };
        let text = serde_json::to_vec(&using).map_err(|e| ImageError::malformed("uses", e))?;
        file.write_all(&text).map_err(failed)?;
        let (file, path) = file.keep().map_err(|e| failed(e.error))?;
        Ok(Use { lock: file, path })
    }

    /// Layers in use. The caller has the store for itself: files that nobody locks are removed.
    pub(super) fn used_layers(&self) -> Result<Vec<Digest>> {
        let mut used = Vec::new();
        for path in files::names(&self.root.join("uses"))? {
            if path.extension().is_some_and(|e| e == "dir") {
                let owner = path.with_extension("use");
                if !owner.exists() {
                    self.discard(&path)?;
                }
            } else if is_dead(&path)? {
                self.discard(&scratch_of(&path))?;
                self.discard(&path)?;
            } else if let Some(using) = files::read_json::<Using>(&path)? {
                used.extend(using.diff_ids);
            }
        }
        Ok(used)
    }
}

/// Where the scratch directories of a use are.
fn scratch_of(path: &Path) -> PathBuf {
    path.with_extension("dir")
}

fn is_dead(path: &Path) -> Result<bool> {
    let file = File::open(path).map_err(|e| ImageError::file("opening", path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(e)) => Err(ImageError::file("locking", path, e)),
    }
}
