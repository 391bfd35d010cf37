//! Pulling: from a name in a registry to an image in the store.
use std::collections::BTreeSet;
use std::io::Seek;
use std::sync::atomic::AtomicBool;

use oci_spec::image::{Descriptor, Digest, MediaType};
use plyfs_image::{Image, ImageError, LayerSource, Progress, Store};
use serde::Deserialize;

use crate::client::Client;
use crate::error::{Object, RegistryError, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::repository::{Repository, Resolved};
use crate::transfer::{self, JOBS, Watch};

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Of an index, the image for this platform; this machine's where none is given.
    pub platform: Option<Platform>,
    /// How many layers move at a time.
    pub jobs: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: None,
            jobs: JOBS,
        }
    }
}

/// What came of a pull.
#[derive(Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Its name in the store; `None` where it was asked for by digest alone.
    pub name: Option<String>,
    /// Blobs of layers that had to be fetched.
    pub fetched: usize,
    /// Layers that were here.
    pub present: usize,
}

/// What a config says of the layers and of the machine.
#[derive(Deserialize)]
struct Config {
    rootfs: Rootfs,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Vec<Digest>,
}

/// Pulls an image into the store and gives it its name there. Layers that are here are not
/// fetched; what an earlier attempt has fetched of the others is not fetched again.
pub fn pull(
    client: &Client,
    reference: &Reference,
    store: &Store,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let repository = client.repository(reference);
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let found = repository.resolve(reference.selector(), &wanted)?;
    let object = repository.object("image", reference.selector());
    let (bytes, config) = config(&repository, &found, store, &object)?;
    check_platform(&config, options.platform.as_ref(), &found, &object)?;
    let layers = found.image.layers();
    if layers.len() != config.rootfs.diff_ids.len() {
        return Err(RegistryError::BadManifest {
            object,
            reason: format!(
                "the manifest has {} layers, the config {}",
                layers.len(),
                config.rootfs.diff_ids.len()
            ),
        });
    }
    let mut seen = BTreeSet::new();
    let pairs = layers.iter().zip(&config.rootfs.diff_ids);
    // An image may have one layer several times.
    let distinct: Vec<_> = pairs
        .filter(|(layer, diff_id)| seen.insert((layer.digest().to_string(), diff_id.to_string())))
        .collect();
    let total = distinct.len();
    let fetched = transfer::each(distinct, options.jobs, |(layer, diff_id), stop| {
        let layer = Layer {
            repository: &repository,
            store,
            blob: layer,
            diff_id,
        };
        layer.bring(progress, stop)
    })?;
    let fetched = fetched.into_iter().filter(|fetched| *fetched).count();
    store.put_document_as(&bytes, found.image.config().digest())?;
    let media_type = MediaType::from(found.manifest.media_type());
    let image = store.publish_image(found.manifest.bytes(), media_type)?;
    let name = match (reference.digest(), reference.tag()) {
        // What a digest names need not be what the tag beside it stands for.
        (None, Some(tag)) => Some(
            store
                .tag(&format!("{}:{tag}", reference.name()), &image)?
                .name,
        ),
        _ => None,
    };
    Ok(Pulled {
        image,
        name,
        fetched,
        present: total - fetched,
    })
}

/// The config of an image: from the store if it is there.
fn config(
    repository: &Repository<'_>,
    found: &Resolved,
    store: &Store,
    object: &Object,
) -> Result<(Vec<u8>, Config)> {
    let descriptor = found.image.config();
    let bytes = if store.has_blob(descriptor.digest())? {
        store.read_document(descriptor.digest())?
    } else {
        repository.fetch_small(descriptor, store.limits().document)?
    };
    let config = serde_json::from_slice(&bytes).map_err(|e| RegistryError::BadManifest {
        object: object.clone(),
        reason: format!(
            "its config ({}) is none of an image: {e}",
            descriptor.media_type()
        ),
    })?;
    Ok((bytes, config))
}

/// Without an index the config alone says what the image is for.
fn check_platform(
    config: &Config,
    asked: Option<&Platform>,
    found: &Resolved,
    object: &Object,
) -> Result<()> {
    if found.index.is_some() || config.architecture.is_empty() {
        return Ok(());
    }
    let has = format!("{}/{}", config.os, config.architecture);
    let wanted = asked.cloned().unwrap_or_else(Platform::host);
    if config.os == wanted.os() && config.architecture == wanted.architecture() {
        return Ok(());
    }
    if asked.is_some() {
        return Err(RegistryError::NoPlatform {
            object: object.clone(),
            wanted: wanted.to_string(),
            available: vec![has],
        });
    }
    tracing::warn!("{object} is for {has}, this machine is {wanted}");
    Ok(())
}

/// Whether the bytes themselves are what the store does not take.
fn is_refusal(error: &RegistryError) -> bool {
    let mut cause = match error {
        RegistryError::Store(cause) => cause,
        _ => return false,
    };
    while let ImageError::Layer { cause: source, .. } = cause {
        cause = source;
    }
    !matches!(
        cause,
        ImageError::File { .. } | ImageError::Stream { .. } | ImageError::Sys(_)
    )
}

/// One layer on its way into the store.
struct Layer<'a> {
    repository: &'a Repository<'a>,
    store: &'a Store,
    blob: &'a Descriptor,
    diff_id: &'a Digest,
}

impl Layer<'_> {
    /// Gets the layer into the store; whether its blob had to be fetched.
    fn bring(&self, progress: &dyn Progress, stop: &AtomicBool) -> Result<bool> {
        let label = transfer::label(self.blob);
        let meter = progress.begin(&label, Some(self.blob.size()));
        let watch = Watch::new(meter, stop);
        if self.is_here()? {
            watch.finish("already here");
            return Ok(false);
        }
        if self.store.has_blob(self.blob.digest())? {
            let blob = self.store.open_blob(self.blob.digest())?;
            self.unpack(blob)?;
            watch.finish("unpacked");
            return Ok(false);
        }
        let waiting = || tracing::info!("{label} is being fetched by another process");
        let mut partial = self.store.partial(self.blob.digest(), waiting)?;
        if self.is_here()? {
            // Somebody else brought it while we waited.
            partial.remove()?;
            watch.finish("already here");
            return Ok(false);
        }
        self.repository
            .fetch_blob(self.blob, partial.file(), &watch)?;
        let local = |source| RegistryError::Local {
            object: self.repository.object("blob", self.blob.digest()),
            doing: "reading what was fetched",
            source,
        };
        partial.file().rewind().map_err(local)?;
        let file = partial.file().try_clone().map_err(local)?;
        let unpacked = self.unpack(file);
        // A full disk does not make it worthless, a refusal does.
        if unpacked.as_ref().err().is_none_or(is_refusal) {
            partial.remove()?;
        }
        unpacked?;
        watch.finish("done");
        Ok(true)
    }

    fn is_here(&self) -> Result<bool> {
        let tree = self.store.has_layer(self.diff_id)?;
        Ok(tree && self.store.has_blob(self.blob.digest())?)
    }

    /// Unpacks, checks and names it at once: a process that waits for it can go on.
    fn unpack(&self, blob: impl std::io::Read + Send) -> Result<()> {
        let source = LayerSource::described(blob, self.blob, Some(self.diff_id.clone()));
        self.store.import_layer(source)?;
        Ok(())
    }
}
