//! Importing a layout: indexes, manifests and configs of strangers are taken whole or not at all.
use std::fs;
use std::path::Path;

use plyfs_image::exchange::{self, ImportOptions};
use plyfs_image::{Digest, Quiet, Store, digest};
use plyfs_registry::{Manifest, Object, Parsed};

/// What separates the documents of one input.
const SEPARATOR: u8 = 0;
/// An archive with nothing in it: the one layer that documents can speak of.
const LAYER: [u8; 1024] = [0; 1024];

/// Takes `data` for an index or a docker-archive's manifest, a manifest, and a config, with zero
/// bytes between them. `@manifest`, `@config` and `@layer` in them stand for the digests.
pub fn manifest(data: &[u8]) {
    let dir = tempfile::tempdir_in(crate::scratch()).unwrap();
    let layout = dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let mut parts = data.splitn(3, |b| *b == SEPARATOR);
    let mut part = || parts.next().unwrap_or_default();
    let (top, image, config) = (part(), part(), part());

    let layer = blob(&layout, &LAYER);
    let config = replaced(config, "@layer", &layer);
    let config_digest = blob(&layout, &config);
    let image = replaced(image, "@layer", &layer);
    let image = replaced(&image, "@config", &config_digest);
    let image_digest = blob(&layout, &image);
    let top = replaced(top, "@manifest", &image_digest);
    let is_docker = top.first() == Some(&b'[');
    let name = if is_docker {
        "manifest.json"
    } else {
        "index.json"
    };
    fs::write(layout.join(name), top).unwrap();
    fs::write(layout.join("config.json"), &config).unwrap();
    fs::write(layout.join("layer.tar"), LAYER).unwrap();

    let store = Store::open(&dir.path().join("store")).unwrap();
    let imported = exchange::import(&store, &layout, &ImportOptions::default(), &Quiet);
    for imported in imported.iter().flatten() {
        let again = store
            .image(&imported.image.id)
            .unwrap()
            .expect("it is not there");
        assert_eq!(again.diff_ids, imported.image.diff_ids);
        assert_eq!(again.layers, imported.image.layers);
        assert!(again.layers.len() == again.diff_ids.len());
        for name in &imported.names {
            store
                .tag(name, &again)
                .expect("a name that was read is none");
        }
    }
    assert_eq!(
        store.verify(false, &Quiet).unwrap(),
        [],
        "the store is not whole"
    );
    let staging = fs::read_dir(store.root().join("staging")).unwrap();
    assert_eq!(staging.count(), 0, "something half done stays");
    registry_agrees(image, imported.iter().flatten().map(|i| &i.image));
}

/// The registry's reader takes what the store took, and reads the same.
fn registry_agrees<'a>(bytes: Vec<u8>, images: impl Iterator<Item = &'a plyfs_image::Image>) {
    let object = Object::new("fuzz");
    let read = Manifest::new(bytes.clone(), None, None, &object).and_then(|m| m.parse(&object));
    let name = digest::of_bytes(&bytes).unwrap();
    for image in images.filter(|image| *image.manifest.digest() == name) {
        if let Ok(Parsed::Image(manifest)) = &read {
            assert_eq!(*manifest.config().digest(), image.id);
            assert_eq!(*manifest.layers(), image.layers);
        }
    }
}

fn blob(layout: &Path, bytes: &[u8]) -> Digest {
    let digest = digest::of_bytes(bytes).unwrap();
    fs::write(layout.join("blobs/sha256").join(digest.digest()), bytes).unwrap();
    digest
}

fn replaced(text: &[u8], word: &str, digest: &Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(word.len()).position(|w| w == word.as_bytes()) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(digest.as_ref().as_bytes());
        rest = &rest[at + word.len()..];
    }
    out.extend_from_slice(rest);
    out
}
