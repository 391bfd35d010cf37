//! Importing: whatever the source holds becomes images of the store.
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use oci_spec::image::{Descriptor, ImageManifest, MediaType, Platform};
use serde::Deserialize;
use serde_json::json;

use super::archive::{Files, Opened};
use super::{DOCKER_FILE, IMAGE_NAME, INDEX_FILE, REF_NAME, host_platform, platform_fits};
use crate::digest::{self, Digest, Hasher};
use crate::error::{ImageError, Result};
use crate::parallel;
use crate::progress::{self, Metered, Progress};
use crate::store::{Image, LayerSource, StagedLayer, Store, diff_ids, normalized, read_bounded};

/// How deep an index may refer to further ones.
const MAX_INDEX_DEPTH: usize = 4;

/// What is wanted of a source.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Of an index with several platforms; this machine's where none is given.
    pub platform: Option<Platform>,
    /// Of a source with several images, the one of this name.
    pub reference: Option<String>,
}

/// An image that was imported, and the names that its source gives it.
#[derive(Debug)]
pub struct Imported {
    /// The image.
    pub image: Image,
    /// Names, as tags can be called.
    pub names: Vec<String>,
}

/// Imports all images of a source that fit.
///
/// # Errors
/// When the source is not what it should be, or has no image that fits.
pub fn import(
    store: &Store,
    path: &Path,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<Vec<Imported>> {
    let scratch = store.root().join("staging");
    let files = match Files::open(path, &scratch, store.limits())? {
        Opened::Layout(files) => files,
        Opened::Rootfs(source, size) => return Ok(vec![rootfs(store, source, size, progress)?]),
    };
    let work = Import {
        store,
        files: &files,
        options,
        progress,
    };
    let imported = match work.document(INDEX_FILE)? {
        Some(index) => work.index_file(&index)?,
        None => work.docker()?,
    };
    if imported.is_empty() {
        let wanted = options.platform.clone().unwrap_or_else(host_platform);
        let name = options
            .reference
            .as_ref()
            .map(|r| format!(" called {r:?}"))
            .unwrap_or_default();
        return Err(ImageError::Refused(format!(
            "{path:?} has no image{name} for {}/{}",
            wanted.os(),
            wanted.architecture()
        )));
    }
    Ok(imported)
}

struct Import<'a> {
    store: &'a Store,
    files: &'a Files,
    options: &'a ImportOptions,
    progress: &'a dyn Progress,
}

/// An image index, read with patience for what is in it besides.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// An entry of `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Import<'_> {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some((file, _)) = self.files.file(name)? else {
            return Ok(None);
        };
        read_bounded(file, self.store.limits().document, name).map(Some)
    }

    fn need(&self, name: &str) -> Result<Vec<u8>> {
        self.document(name)?
            .ok_or_else(|| ImageError::malformed(name, "the source does not have it"))
    }

    /// A document by its digest, checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let name = blob_name(descriptor.digest());
        let text = self.need(&name)?;
        let mut hasher = Hasher::like(descriptor.digest())?;
        hasher.update(&text);
        digest::check(&name, descriptor.digest(), &hasher.finish()?)?;
        Ok(text)
    }

    fn index_file(&self, text: &[u8]) -> Result<Vec<Imported>> {
        let mut images = Vec::new();
        let top = manifests(text, INDEX_FILE)?;
        // One image for several platforms may stand here without an index of its own.
        let choose = top.len() > 1;
        for descriptor in top {
            if self
                .options
                .reference
                .as_ref()
                .is_some_and(|r| !is_called(&descriptor, r))
            {
                continue;
            }
            if choose && !self.fits(&descriptor) {
                continue;
            }
            if let Some(image) = self.described(&descriptor, 0)? {
                let names = names(&descriptor);
                images.push(Imported { image, names });
            }
        }
        Ok(images)
    }

    fn fits(&self, descriptor: &Descriptor) -> bool {
        let wanted = self.options.platform.clone().unwrap_or_else(host_platform);
        let offered = descriptor.platform().as_ref();
        offered.is_none_or(|offered| platform_fits(offered, &wanted))
    }

    /// The image that a manifest or the fitting part of an index describes.
    fn described(&self, descriptor: &Descriptor, depth: usize) -> Result<Option<Image>> {
        let text = self.blob(descriptor)?;
        let media_type = descriptor.media_type();
        let is_index =
            media_type == &MediaType::ImageIndex || media_type.as_ref().contains("manifest.list");
        if !is_index {
            return self.manifest(&text, media_type.clone()).map(Some);
        }
        if depth >= MAX_INDEX_DEPTH {
            let why = "indexes refer to indexes more than four times";
            return Err(ImageError::malformed(INDEX_FILE, why));
        }
        let name = descriptor.digest().to_string();
        let fitting = manifests(&text, &name)?.into_iter().find(|d| self.fits(d));
        fitting.map_or(Ok(None), |d| self.described(&d, depth + 1))
    }

    fn manifest(&self, text: &[u8], media_type: MediaType) -> Result<Image> {
        let manifest: ImageManifest =
            serde_json::from_slice(text).map_err(|e| ImageError::malformed("the manifest", e))?;
        let config = self.blob(manifest.config())?;
        let name = format!("config {}", manifest.config().digest());
        let ids = diff_ids(&config, &name)?;
        if ids.len() != manifest.layers().len() {
            let (layers, ids) = (manifest.layers().len(), ids.len());
            let why = format!("it is for {ids} layers, the manifest has {layers}");
            return Err(ImageError::malformed(name, why));
        }
        // An image may have one layer several times.
        let pairs: BTreeMap<_, _> = (manifest.layers().iter().zip(ids))
            .map(|(layer, id)| ((layer.digest().to_string(), id.to_string()), (layer, id)))
            .collect();
        let staged = self.several(pairs.into_values().collect(), |(layer, id)| {
            self.layer(layer, id)
        })?;
        let staged = staged.into_iter().flatten().collect();
        self.store
            .put_document_as(&config, manifest.config().digest())?;
        self.store.publish_layers(staged)?;
        self.store.publish_image(text, media_type)
    }

    fn layer(&self, descriptor: &Descriptor, diff_id: Digest) -> Result<Option<StagedLayer>> {
        let meter = progress::begin(self.progress, descriptor.digest(), Some(descriptor.size()));
        let here = self.store.has_blob(descriptor.digest())?;
        if here && self.store.has_layer(&diff_id)? {
            let mut meter = meter;
            meter.finish("already here");
            return Ok(None);
        }
        let name = blob_name(descriptor.digest());
        let reader: Box<dyn Read + Send> = match self.files.file(&name)? {
            Some((file, _)) => file,
            None if here => Box::new(self.store.open_blob(descriptor.digest())?),
            None => return Err(ImageError::malformed(name, "the source does not have it")),
        };
        let source = LayerSource::described(Metered::new(reader, meter), descriptor, Some(diff_id));
        self.store.stage_layer(source).map(Some)
    }

    fn docker(&self) -> Result<Vec<Imported>> {
        let text = self.need(DOCKER_FILE)?;
        let images: Vec<DockerImage> =
            serde_json::from_slice(&text).map_err(|e| ImageError::malformed(DOCKER_FILE, e))?;
        let mut imported = Vec::new();
        for image in images {
            let tags = image.repo_tags.clone().unwrap_or_default();
            let names: Vec<String> = tags.iter().filter_map(|t| normalized(t).ok()).collect();
            let wanted = self.options.reference.as_ref();
            if wanted.is_some_and(|w| !tags.contains(w) && !names.contains(w)) {
                continue;
            }
            let image = self.docker_image(&image)?;
            imported.push(Imported { image, names });
        }
        Ok(imported)
    }

    fn docker_image(&self, image: &DockerImage) -> Result<Image> {
        let config = self.need(&image.config)?;
        let ids = diff_ids(&config, &image.config)?;
        if ids.len() != image.layers.len() {
            let why = format!(
                "it has {} layers, its config {}",
                image.layers.len(),
                ids.len()
            );
            return Err(ImageError::malformed(DOCKER_FILE, why));
        }
        let layers = image.layers.iter().zip(ids).collect();
        let staged = self.several(layers, |(name, diff_id)| {
            let file = self.files.file(name)?;
            let (file, size) =
                file.ok_or_else(|| ImageError::malformed(name, "the source does not have it"))?;
            let meter = progress::begin(self.progress, &diff_id, Some(size));
            let source = LayerSource {
                diff_id: Some(diff_id),
                ..LayerSource::anonymous(Metered::new(file, meter))
            };
            self.store.stage_layer(source)
        })?;
        finish(self.store, &config, staged)
    }

    /// Layers are unpacked beside one another.
    fn several<T: Send, R: Send>(
        &self,
        layers: Vec<T>,
        work: impl Fn(T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        parallel::each(layers, parallel::jobs(), |_| false, |layer, _| work(layer))
    }
}

/// An image of one layer.
fn rootfs(
    store: &Store,
    source: Box<dyn Read + Send>,
    size: Option<u64>,
    progress: &dyn Progress,
) -> Result<Imported> {
    let meter = progress.begin("root file system", size);
    let staged = store.stage_layer(LayerSource::anonymous(Metered::new(source, meter)))?;
    let platform = host_platform();
    let mut config = json!({
        "architecture": platform.architecture().to_string(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [staged.diff_id.to_string()]},
        "history": [{"created_by": "plyfs image import"}],
    });
    if let Some(created) = crate::time::source_date_epoch()? {
        config["created"] = json!(crate::time::rfc3339(created));
    }
    let config = to_json(&config)?;
    Ok(Imported {
        image: finish(store, &config, vec![staged])?,
        names: Vec::new(),
    })
}

/// Publishes an image for which there is no manifest yet.
fn finish(store: &Store, config: &[u8], staged: Vec<StagedLayer>) -> Result<Image> {
    let layers: Vec<Descriptor> = staged.iter().map(|l| l.descriptor.clone()).collect();
    store.publish_layers(staged)?;
    store.assemble_image(config, &layers)
}

impl Store {
    /// Makes an image of a config and of layers that are here, with a manifest of our own.
    ///
    /// # Errors
    /// When they do not fit together, or something cannot be written.
    pub fn assemble_image(&self, config: &[u8], layers: &[Descriptor]) -> Result<Image> {
        let digest = self.put_document(config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.as_ref(),
            "config": {
                "mediaType": MediaType::ImageConfig.as_ref(),
                "digest": digest.to_string(),
                "size": config.len(),
            },
            "layers": layers,
        });
        self.publish_image(&to_json(&manifest)?, MediaType::ImageManifest)
    }
}

/// A document of ours: keys sorted, so that the same content has the same digest.
fn to_json(value: &serde_json::Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| ImageError::malformed("a document", e))
}

fn manifests(text: &[u8], name: &str) -> Result<Vec<Descriptor>> {
    let index: Index = serde_json::from_slice(text).map_err(|e| ImageError::malformed(name, e))?;
    Ok(index.manifests)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

fn annotation<'d>(descriptor: &'d Descriptor, name: &str) -> Option<&'d str> {
    descriptor
        .annotations()
        .as_ref()?
        .get(name)
        .map(String::as_str)
}

fn is_called(descriptor: &Descriptor, name: &str) -> bool {
    [REF_NAME, IMAGE_NAME]
        .iter()
        .any(|a| annotation(descriptor, a) == Some(name))
}

/// Names a layout gives an image, as far as they are whole names and not only tags.
fn names(descriptor: &Descriptor) -> Vec<String> {
    let whole = annotation(descriptor, IMAGE_NAME)
        .or_else(|| annotation(descriptor, REF_NAME).filter(|n| n.contains([':', '/'])));
    whole.and_then(|n| normalized(n).ok()).into_iter().collect()
}
