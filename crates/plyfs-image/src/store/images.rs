//! Images by the digest of their config, and tags that point to them.
use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Store, files, names};
use crate::digest::{self, Digest};
use crate::error::{ImageError, Result};

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its config.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its layers' blobs, base first.
    pub layers: Vec<Descriptor>,
    /// Its layers, base first.
    pub diff_ids: Vec<Digest>,
    /// Its config, as it is.
    pub config: Value,
}

/// A tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tagged {
    /// `NAME:TAG`.
    pub name: String,
    /// The image.
    pub image: Digest,
    /// The manifest under this name: the same image can have several.
    pub manifest: Descriptor,
}

#[derive(Debug, Serialize, Deserialize)]
struct ImageRecord {
    manifest: Descriptor,
}

/// What a config says about layers.
#[derive(Deserialize)]
struct Rootfs {
    rootfs: DiffIds,
}

#[derive(Deserialize)]
struct DiffIds {
    diff_ids: Vec<Digest>,
}

/// The DiffIDs of a config, base first.
///
/// # Errors
/// When it has none or is malformed.
pub(crate) fn diff_ids(config: &[u8], what: &str) -> Result<Vec<Digest>> {
    let parsed: Rootfs =
        serde_json::from_slice(config).map_err(|e| ImageError::malformed(what, e))?;
    Ok(parsed.rootfs.diff_ids)
}

impl Image {
    /// A string of the config's top level, such as "created" or "architecture".
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key)?.as_str()
    }

    /// The ChainID of all its layers; None for an image without layers.
    ///
    /// # Errors
    /// Never in practice.
    pub fn chain_id(&self) -> Result<Option<Digest>> {
        digest::chain_id(&self.diff_ids)
    }

    /// Whether a layer's manifest entry says what an image layer is.
    #[must_use]
    pub fn is_layer(media_type: &MediaType) -> bool {
        let text = media_type.as_ref();
        text.contains("layer") || text.contains("rootfs.diff") || text.contains(".tar")
    }
}

impl Store {
    /// Makes an image of a manifest whose config and layers are here.
    ///
    /// # Errors
    /// When something of it is not here, or they do not fit together.
    pub fn publish_image(&self, manifest: &[u8], media_type: MediaType) -> Result<Image> {
        let digest = digest::of_bytes(manifest)?;
        let descriptor = Descriptor::new(media_type, manifest.len() as u64, digest.clone());
        let image = self.image_of(&descriptor, manifest)?;
        for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            self.layer_dir(diff_id)?;
            drop(self.open_blob(layer.digest())?);
        }
        self.put_document(manifest)?;
        self.publish_stack(&image.diff_ids)?;
        let record = ImageRecord {
            manifest: descriptor,
        };
        self.write_json(&self.image_path(&image.id)?, &record)?;
        Ok(image)
    }

    fn image_path(&self, id: &Digest) -> Result<PathBuf> {
        Ok(self.place("images", id)?.with_extension("json"))
    }

    fn image_of(&self, descriptor: &Descriptor, manifest: &[u8]) -> Result<Image> {
        let what = format!("manifest {}", descriptor.digest());
        let parsed: ImageManifest =
            serde_json::from_slice(manifest).map_err(|e| ImageError::malformed(&what, e))?;
        let id = parsed.config().digest().clone();
        let config = self.read_document(&id)?;
        let name = format!("config {id}");
        let diff_ids = diff_ids(&config, &name)?;
        if diff_ids.len() != parsed.layers().len() {
            let (blobs, ids) = (parsed.layers().len(), diff_ids.len());
            let why = format!("it has {blobs} layers, but its config {id} has {ids}");
            return Err(ImageError::malformed(what, why));
        }
        Ok(Image {
            id,
            manifest: descriptor.clone(),
            layers: parsed.layers().clone(),
            diff_ids,
            config: serde_json::from_slice(&config).map_err(|e| ImageError::malformed(name, e))?,
        })
    }

    /// The image with this manifest.
    ///
    /// # Errors
    /// When it is not here or not whole.
    pub fn image_by_manifest(&self, manifest: &Descriptor) -> Result<Image> {
        let text = self.read_document(manifest.digest())?;
        self.image_of(manifest, &text)
    }

    /// The image with this id; None where there is none.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn image(&self, id: &Digest) -> Result<Option<Image>> {
        match files::read_json::<ImageRecord>(&self.image_path(id)?)? {
            Some(record) => Ok(Some(self.image_by_manifest(&record.manifest)?)),
            None => Ok(None),
        }
    }

    /// Ids of all images.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn image_ids(&self) -> Result<Vec<Digest>> {
        let found = files::digests(&self.root.join("images"))?;
        Ok(found.into_iter().filter_map(|(id, _)| id).collect())
    }

    /// Points a name at an image, away from what it pointed at before.
    ///
    /// # Errors
    /// When the name is none, or cannot be written.
    pub fn tag(&self, name: &str, image: &Image) -> Result<Tagged> {
        let name = names::normalized(name)?;
        let tagged = Tagged {
            name,
            image: image.id.clone(),
            manifest: image.manifest.clone(),
        };
        self.write_json(&self.ref_path(&tagged.name)?, &tagged)?;
        Ok(tagged)
    }

    fn ref_path(&self, name: &str) -> Result<PathBuf> {
        let digest = digest::of_bytes(name.as_bytes())?;
        Ok(self
            .root
            .join("refs")
            .join(format!("{}.json", digest.digest())))
    }

    /// Takes a name away; whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn untag(&self, name: &str) -> Result<bool> {
        let path = self.ref_path(&names::normalized(name)?)?;
        match std::fs::remove_file(&path) {
            Ok(()) => files::sync_dir(&self.root.join("refs")).map(|()| true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(ImageError::file("removing", &path, e)),
        }
    }

    /// All tags by their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tags(&self) -> Result<BTreeMap<String, Tagged>> {
        let mut tags = BTreeMap::new();
        for path in files::names(&self.root.join("refs"))? {
            if let Some(tagged) = files::read_json::<Tagged>(&path)? {
                tags.insert(tagged.name.clone(), tagged);
            }
        }
        Ok(tags)
    }

    /// The tag a name stands for: as written, or as Docker and Podman shorten it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_tag(&self, name: &str) -> Result<Option<Tagged>> {
        let Ok(name) = names::normalized(name) else {
            return Ok(None);
        };
        let prefixes = ["", "localhost/", "docker.io/library/", "docker.io/"];
        for prefix in prefixes {
            let path = self.ref_path(&format!("{prefix}{name}"))?;
            if let Some(tagged) = files::read_json::<Tagged>(&path)? {
                return Ok(Some(tagged));
            }
        }
        Ok(None)
    }

    /// The image that a name, a digest or the beginning of an id stands for.
    ///
    /// # Errors
    /// When there is none, more than one, or it is not whole.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        if let Some(tagged) = self.find_tag(name)? {
            return self.image_by_manifest(&tagged.manifest);
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let mut found = Vec::new();
        if hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let ids = self.image_ids()?;
            found = ids
                .into_iter()
                .filter(|id| id.digest().starts_with(hex))
                .collect();
        }
        match found.as_slice() {
            [id] => {
                let image = self.image(id)?;
                image.ok_or_else(|| no_image(name))
            }
            [] => Err(no_image(name)),
            many => Err(ImageError::Refused(format!(
                "{} images have an id that begins with {name}: write more of it",
                many.len()
            ))),
        }
    }

    /// Forgets an image and all its names; what only it used goes with the next [`Store::collect`].
    ///
    /// # Errors
    /// When it is in use by a container, or cannot be removed.
    pub fn remove_image(&self, id: &Digest) -> Result<()> {
        let users: Vec<String> = self
            .containers()?
            .into_iter()
            .filter(|c| c.image == *id)
            .map(|c| c.name)
            .collect();
        if !users.is_empty() {
            return Err(ImageError::Refused(format!(
                "image {id} is used by the containers {}: remove them first",
                users.join(", ")
            )));
        }
        for tagged in self.tags()?.into_values().filter(|t| t.image == *id) {
            self.untag(&tagged.name)?;
        }
        self.discard(&self.image_path(id)?)
    }
}

fn no_image(name: &str) -> ImageError {
    ImageError::NotFound {
        what: "image",
        name: name.to_owned(),
        hint: ": 'plyfs image ls' lists what is, 'plyfs image import' and 'plyfs image pull' \
               bring one"
            .to_owned(),
    }
}
