//! Collecting what nothing refers to.
use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::{Store, files};
use crate::digest::{self, Digest};
use crate::error::{ImageError, Result};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Images without a tag.
    pub images: Vec<Digest>,
    /// Layers.
    pub layers: Vec<Digest>,
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Stacks.
    pub stacks: Vec<Digest>,
    /// What killed processes had left half done.
    pub leftovers: u64,
    /// Bytes of blobs and of files in layers.
    pub bytes: u64,
}

/// What is referred to.
#[derive(Debug, Default)]
struct Live {
    blobs: BTreeSet<String>,
    layers: BTreeSet<String>,
    stacks: BTreeSet<String>,
}

impl Live {
    fn stack(&mut self, diff_ids: &[Digest]) -> Result<()> {
        self.layers.extend(diff_ids.iter().map(Digest::to_string));
        self.stacks
            .extend(digest::chain_id(diff_ids)?.map(|d| d.to_string()));
        Ok(())
    }
}

impl Store {
    /// Removes what no image, tag, container or mount refers to; with `untagged` also images that
    /// have no tag and no container. Waits until nobody else uses the store, or with `patient`
    /// false gives up at once: None.
    ///
    /// # Errors
    /// When the store is not whole: then nothing that is unclear is removed.
    pub fn collect(&self, untagged: bool, patient: bool) -> Result<Option<Collected>> {
        let path = self.root.join("lock");
        let failed = |e| ImageError::file("locking", &path, e);
        if patient {
            self.lock.lock().map_err(failed)?;
        } else {
            match self.lock.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    // A refused conversion may have lost the lock we had.
                    self.lock.lock_shared().map_err(failed)?;
                    return Ok(None);
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        let collected = self.collect_alone(untagged);
        self.lock.lock_shared().map_err(failed)?;
        collected.map(Some)
    }

    fn collect_alone(&self, untagged: bool) -> Result<Collected> {
        let mut done = Collected {
            leftovers: self.clear_staging()?,
            ..Collected::default()
        };
        if untagged {
            done.images = self.remove_untagged()?;
        }
        let live = self.live()?;
        for (dir, live, removed) in [
            ("layers", &live.layers, &mut done.layers),
            ("blobs", &live.blobs, &mut done.blobs),
            ("stacks", &live.stacks, &mut done.stacks),
        ] {
            for (digest, path) in files::digests(&self.root.join(dir))? {
                let Some(digest) = digest else { continue };
                if live.contains(&digest.to_string()) {
                    continue;
                }
                done.bytes += size_of(&path)?;
                self.discard(&path)?;
                removed.push(digest);
            }
        }
        Ok(done)
    }

    fn clear_staging(&self) -> Result<u64> {
        let mut count = 0;
        for path in files::names(&self.root.join("staging"))? {
            let gone = if path.is_dir() && !path.is_symlink() {
                remove_dir(&path)
            } else {
                std::fs::remove_file(&path).map_err(|e| ImageError::file("removing", &path, e))
            };
            gone?;
            count += 1;
        }
        Ok(count)
    }

    fn remove_untagged(&self) -> Result<Vec<Digest>> {
        let mut kept: BTreeSet<String> = BTreeSet::new();
        kept.extend(self.tags()?.values().map(|t| t.image.to_string()));
        kept.extend(self.containers()?.iter().map(|c| c.image.to_string()));
        let mut removed = Vec::new();
        for id in self.image_ids()? {
            if !kept.contains(&id.to_string()) {
                self.remove_image(&id)?;
                removed.push(id);
            }
        }
        Ok(removed)
    }

    fn live(&self) -> Result<Live> {
        let mut live = Live::default();
        let mut manifests: Vec<_> = self.tags()?.into_values().map(|t| t.manifest).collect();
        for id in self.image_ids()? {
            manifests.extend(self.image(&id)?.map(|i| i.manifest));
        }
        for manifest in manifests {
            let image = self.image_by_manifest(&manifest)?;
            live.blobs.insert(image.manifest.digest().to_string());
            live.blobs.insert(image.id.to_string());
            live.blobs
                .extend(image.layers.iter().map(|l| l.digest().to_string()));
            live.stack(&image.diff_ids)?;
        }
        for container in self.containers()? {
            live.stack(&container.diff_ids)?;
        }
        let used = self.used_layers()?;
        live.stack(&used)?;
        Ok(live)
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    std::fs::remove_dir_all(path).map_err(|e| ImageError::file("removing", path, e))
}

/// Bytes that a blob or a layer takes, as far as it is easily known.
fn size_of(path: &Path) -> Result<u64> {
    let meta = path
        .symlink_metadata()
        .map_err(|e| ImageError::file("looking at", path, e))?;
    if meta.is_file() {
        return Ok(meta.len());
    }
    let record = files::read_json::<super::LayerRecord>(&path.join("layer.json"))?;
    Ok(record.map_or(0, |r| r.bytes))
}
