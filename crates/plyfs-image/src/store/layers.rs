//! Layers: unpacked once, under the digest of what they hold.
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, MediaType};
use plyfs_sys::{io, open};
use serde::{Deserialize, Serialize};

use super::{Store, files};
use crate::compression::Compression;
use crate::digest::{self, Digest, Hasher};
use crate::error::{ImageError, Result};
use crate::unpack::{Job, Unpacked, unpack};

/// What is known of a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerRecord {
    /// What it is called.
    pub diff_id: Digest,
    /// Size of its archive, unpacked.
    pub tar_size: u64,
    /// Entries of its archive.
    pub entries: u64,
    /// Bytes in its files.
    pub bytes: u64,
    /// Directories that its archive has no entry for, escaped by [`crate::escape`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implicit: Vec<String>,
    /// Objects that are not owned by whom they should be.
    #[serde(default)]
    pub owners_lost: u64,
    /// Xattrs that were left out.
    #[serde(default)]
    pub xattrs_lost: u64,
    /// Device nodes that could not be made.
    #[serde(default)]
    pub devices_lost: u64,
}

/// A layer that comes from somewhere.
pub struct LayerSource<'a> {
    /// The blob.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Digest and size the blob must have.
    pub blob: Option<(Digest, u64)>,
    /// The DiffID it must have.
    pub diff_id: Option<Digest>,
    /// The media type somebody else gave it; told from the bytes where nobody did.
    pub media_type: Option<MediaType>,
}

impl std::fmt::Debug for LayerSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerSource")
            .field("blob", &self.blob)
            .field("diff_id", &self.diff_id)
            .finish_non_exhaustive()
    }
}

impl<'a> LayerSource<'a> {
    /// A blob as a manifest describes it.
    pub fn described(
        reader: impl Read + Send + 'a,
        descriptor: &Descriptor,
        diff_id: Option<Digest>,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            blob: Some((descriptor.digest().clone(), descriptor.size())),
            diff_id,
            media_type: Some(descriptor.media_type().clone()),
        }
    }

    /// An archive about which nothing else is known.
    pub fn anonymous(reader: impl Read + Send + 'a) -> Self {
        Self {
            reader: Box::new(reader),
            blob: None,
            diff_id: None,
            media_type: None,
        }
    }
}

/// A layer that is checked and complete, but has no name yet.
#[derive(Debug)]
pub struct StagedLayer {
    /// Its blob, for a manifest.
    pub descriptor: Descriptor,
    /// What is known of it.
    pub diff_id: Digest,
    dir: tempfile::TempDir,
    /// Where the blob is packed at rest.
    packed: bool,
    /// Whether the blob is in the directory; else it was here before.
    has_blob: bool,
    /// Whether the tree is in the directory; else it was here before.
    has_tree: bool,
}

impl Store {
    /// Whether a layer is here.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn has_layer(&self, diff_id: &Digest) -> Result<bool> {
        let path = self.place("layers", diff_id)?;
        path.try_exists()
            .map_err(|e| ImageError::file("looking for", &path, e))
    }

    /// The directory that can be mounted as this layer.
    ///
    /// # Errors
    /// When it is not here.
    pub fn layer_dir(&self, diff_id: &Digest) -> Result<PathBuf> {
        if !self.has_layer(diff_id)? {
            return Err(ImageError::NotFound {
                what: "layer",
                name: diff_id.to_string(),
                hint: ": import or pull its image again".to_owned(),
            });
        }
        Ok(self.place("layers", diff_id)?.join("fs"))
    }

    /// What is known of a layer.
    ///
    /// # Errors
    /// When it is not here.
    pub fn layer(&self, diff_id: &Digest) -> Result<LayerRecord> {
        let path = self.place("layers", diff_id)?.join("layer.json");
        files::read_json(&path)?.ok_or_else(|| ImageError::NotFound {
            what: "layer",
            name: diff_id.to_string(),
            hint: ": import or pull its image again".to_owned(),
        })
    }

    /// Reads, checks and unpacks a layer; it gets its name by [`Self::publish_layers`]. What is
    /// here already is not made again.
    ///
    /// # Errors
    /// When it is not what it should be or does what it may not; nothing of it stays then.
    pub fn stage_layer(&self, source: LayerSource<'_>) -> Result<StagedLayer> {
        let name = source.diff_id.clone();
        let name = source.blob.as_ref().map(|b| b.0.clone()).or(name);
        self.stage(source).map_err(|e| match name {
            Some(name) => e.in_layer(&name),
            None => e,
        })
    }

    fn stage(&self, source: LayerSource<'_>) -> Result<StagedLayer> {
        let dir = self.staging()?;
        let hashers = (
            source
                .blob
                .as_ref()
                .map_or(Ok(Hasher::default()), |b| Hasher::like(&b.0))?,
            source
                .diff_id
                .as_ref()
                .map_or(Ok(Hasher::default()), Hasher::like)?,
        );
        let known_tree = source
            .diff_id
            .as_ref()
            .map_or(Ok(false), |d| self.has_layer(d))?;
        let known_blob = source
            .blob
            .as_ref()
            .map_or(Ok(false), |b| self.has_blob(&b.0))?;
        let tree = dir.path().join("fs");
        let root = if known_tree {
            None
        } else {
            Some(make_root(&tree)?)
        };
        let path = dir.path().join("blob");
        let keep = match known_blob {
            true => None,
            false => {
                Some(File::create_new(&path).map_err(|e| ImageError::file("making", &path, e))?)
            }
        };
        let done = unpack(Job {
            source: source.reader,
            keep: keep.as_ref(),
            root: root.as_ref().map(|r| (r.as_fd(), self.namespace())),
            hashers,
            limits: &self.limits,
        })?;
        check(&done, source.blob.as_ref(), source.diff_id.as_ref())?;
        // A tree is synced with all that is in the file system when it gets its name.
        if let Some(file) = keep.as_ref().filter(|_| known_tree) {
            file.sync_all()
                .map_err(|e| ImageError::file("writing", &path, e))?;
        }
        if let Some(record) = record(&done) {
            let text = serde_json::to_vec_pretty(&record)
                .map_err(|e| ImageError::malformed("layer.json", e))?;
            let path = dir.path().join("layer.json");
            std::fs::write(&path, text).map_err(|e| ImageError::file("writing", &path, e))?;
        }
        let media_type = source
            .media_type
            .unwrap_or_else(|| done.compression.media_type());
        Ok(StagedLayer {
            descriptor: Descriptor::new(media_type, done.blob.1, done.blob.0),
            diff_id: done.diff_id,
            dir,
            packed: done.compression == Compression::Plain,
            has_blob: !known_blob,
            has_tree: !known_tree,
        })
    }

    /// Gives staged layers their names, after one sync for all of them.
    ///
    /// # Errors
    /// When the file system fails; layers that have got their names are whole.
    pub fn publish_layers(&self, layers: Vec<StagedLayer>) -> Result<()> {
        if layers.iter().any(|l| l.has_tree) {
            let fd = open::open_dir_path(&self.root)?;
            io::syncfs(open::open_dir_for_list(fd.as_fd())?.as_fd())?;
        }
        for layer in layers {
            let dir = layer.dir.path().to_owned();
            if layer.has_blob {
                self.publish_blob(&dir.join("blob"), layer.descriptor.digest(), layer.packed)?;
            }
            if layer.has_tree {
                let to = self.place("layers", &layer.diff_id)?;
                if files::publish_dir(&dir, &to)? {
                    // It is no staging directory any more.
                    drop(layer.dir.keep());
                    continue;
                }
            }
            files::clear(layer.dir)?;
        }
        Ok(())
    }

    /// Stages and publishes one layer.
    ///
    /// # Errors
    /// As [`Self::stage_layer`] and [`Self::publish_layers`].
    pub fn import_layer(&self, source: LayerSource<'_>) -> Result<(Descriptor, Digest)> {
        let staged = self.stage_layer(source)?;
        let names = (staged.descriptor.clone(), staged.diff_id.clone());
        self.publish_layers(vec![staged])?;
        Ok(names)
    }
}

impl Store {
    /// Unpacks a layer that is here once more, below `dir`, to be compared.
    pub(super) fn unpack_again(&self, source: LayerSource<'_>, dir: &Path) -> Result<()> {
        let root = make_root(&dir.join("fs"))?;
        let hasher = source
            .diff_id
            .as_ref()
            .map_or(Ok(Hasher::default()), Hasher::like)?;
        let done = unpack(Job {
            source: source.reader,
            keep: None,
            root: Some((root.as_fd(), self.namespace())),
            hashers: (Hasher::default(), hasher),
            limits: &self.limits,
        })?;
        check(&done, None, source.diff_id.as_ref())
    }
}

fn make_root(path: &Path) -> Result<std::os::fd::OwnedFd> {
    std::fs::create_dir(path).map_err(|e| ImageError::file("making", path, e))?;
    Ok(open::open_dir_path(path)?)
}

fn check(done: &Unpacked, blob: Option<&(Digest, u64)>, diff_id: Option<&Digest>) -> Result<()> {
    if let Some((digest, size)) = blob {
        if done.blob.1 != *size {
            return Err(ImageError::WrongSize {
                what: format!("blob {digest}"),
                expected: *size,
                actual: done.blob.1,
            });
        }
        digest::check(&format!("blob {digest}"), digest, &done.blob.0)?;
    }
    match diff_id {
        Some(diff_id) => digest::check("the unpacked layer", diff_id, &done.diff_id),
        None => Ok(()),
    }
}

fn record(done: &Unpacked) -> Option<LayerRecord> {
    let applied = done.applied.as_ref()?;
    Some(LayerRecord {
        diff_id: done.diff_id.clone(),
        tar_size: done.tar_size,
        entries: applied.entries,
        bytes: applied.bytes,
        implicit: applied
            .implicit
            .iter()
            .map(|p| crate::escape::encode(p))
            .collect(),
        owners_lost: applied.owners_lost,
        xattrs_lost: applied.xattrs_lost,
        devices_lost: applied.devices_lost,
    })
}
