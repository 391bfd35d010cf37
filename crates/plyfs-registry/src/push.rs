//! Pushing: from an image in the store to a name in a registry.
use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use oci_spec::image::{Descriptor, Digest};
use plyfs_image::{Blob, Image, Progress, Store};

use crate::client::Client;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::reference::Reference;
use crate::transfer::{self, JOBS, Watch};
use crate::upload::{BlobSource, Sent};

/// More repositories than this are not asked to lend a blob.
const LENDERS: usize = 3;

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// How many layers move at a time.
    pub jobs: usize,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { jobs: JOBS }
    }
}

/// What came of a push.
#[derive(Debug)]
pub struct Pushed {
    /// The manifest, as the registry has it now.
    pub manifest: Digest,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs the registry took from another repository of its own.
    pub mounted: usize,
    /// Blobs that were there.
    pub present: usize,
}

/// A blob of the store.
struct Stored<'a> {
    store: &'a Store,
    digest: &'a Digest,
}

impl BlobSource for Stored<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut blob = self
            .store
            .open_blob(self.digest)
            .map_err(io::Error::other)?;
        match &mut blob {
            Blob::Plain(file) => {
                file.seek(SeekFrom::Start(offset))?;
            }
            packed @ Blob::Packed(_) => {
                io::copy(&mut packed.take(offset), &mut io::sink())?;
            }
        }
        Ok(Box::new(blob))
    }
}

/// Pushes an image: its layers, its config, then its manifest under the tag of `reference`, or under
/// its digest alone where that has none. The registry gets the bytes the image came with.
pub fn push(
    client: &Client,
    reference: &Reference,
    store: &Store,
    image: &Image,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let repository = client.repository(reference);
    let object = repository.object("image", reference.selector());
    let bytes = store.read_document(image.manifest.digest())?;
    let told = image.manifest.media_type().to_string();
    let manifest = Manifest::new(bytes, Some(&told), Some(image.manifest.digest()), &object)?;
    let mut seen = BTreeSet::new();
    let layers: Vec<_> = image
        .layers
        .iter()
        .filter(|layer| seen.insert(layer.digest().to_string()))
        .filter(|layer| !is_bound(layer))
        .collect();
    let lenders = lenders(store, reference, &layers)?;
    let jobs = layers.into_iter().zip(lenders).collect();
    let mut sent = transfer::each(jobs, options.jobs, |(layer, lenders), stop| {
        let meter = progress.begin(&transfer::label(layer), Some(layer.size()));
        let watch = Watch::new(meter, stop);
        let source = Stored {
            store,
            digest: layer.digest(),
        };
        let lenders: Vec<_> = lenders.iter().map(String::as_str).collect();
        let sent = repository.send_blob(layer, &source, &lenders, &watch)?;
        watch.finish(words(sent));
        Ok(sent)
    })?;
    // A manifest must not be seen before what it names.
    let config = store.read_document(&image.id)?;
    let kind = manifest_config(&manifest, &object)?;
    sent.push(repository.send_blob(&kind, &&config[..], &[], &crate::progress::Silent)?);
    repository.put_manifest(&manifest, reference.tag())?;
    let count = |kind| sent.iter().filter(|sent| **sent == kind).count();
    Ok(Pushed {
        manifest: manifest.digest().clone(),
        sent: count(Sent::Uploaded),
        mounted: count(Sent::Mounted),
        present: count(Sent::Present),
    })
}

fn words(sent: Sent) -> &'static str {
    match sent {
        Sent::Present => "already there",
        Sent::Mounted => "taken from another repository",
        Sent::Uploaded => "done",
    }
}

/// The descriptor of the config, as the manifest has it.
fn manifest_config(manifest: &Manifest, object: &crate::error::Object) -> Result<Descriptor> {
    match manifest.parse(object)? {
        crate::manifest::Parsed::Image(image) => Ok(image.config().clone()),
        crate::manifest::Parsed::Index(_) => Err(crate::error::RegistryError::BadManifest {
            object: object.clone(),
            reason: "the store has an index in its place".to_owned(),
        }),
    }
}

/// Whether a layer may not be passed on; the registry expects its URL in place of its bytes.
fn is_bound(layer: &Descriptor) -> bool {
    let kind = layer.media_type().to_string();
    let marked = kind.contains("nondistributable") || kind.contains("rootfs.foreign");
    marked && layer.urls().as_ref().is_some_and(|urls| !urls.is_empty())
}

/// For each layer the repositories of the same registry that have it, as far as our tags tell.
fn lenders(
    store: &Store,
    reference: &Reference,
    layers: &[&Descriptor],
) -> Result<Vec<Vec<String>>> {
    let mut lenders = vec![Vec::new(); layers.len()];
    for tagged in store.tags()?.into_values() {
        let Ok(name) = tagged.name.parse::<Reference>() else {
            continue;
        };
        let is_near = name.host() == reference.host();
        if !is_near || name.repository() == reference.repository() {
            continue;
        }
        let image = store.image_by_manifest(&tagged.manifest)?;
        for (layer, lenders) in layers.iter().zip(&mut lenders) {
            let has = image.layers.iter().any(|l| l.digest() == layer.digest());
            let name = name.repository();
            if has && lenders.len() < LENDERS && !lenders.iter().any(|l| l == name) {
                lenders.push(name.to_owned());
            }
        }
    }
    Ok(lenders)
}
