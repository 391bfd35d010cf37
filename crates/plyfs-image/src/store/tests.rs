//! The store keeps its promises.
use std::io::Write;

use oci_spec::image::MediaType;
use plyfs_sys::stat::Time;
use plyfs_testkit::need_root;

use super::*;
use crate::Quiet;
use crate::tar::{Kind, Meta, Writer};

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (path, text) in files {
        let kind = if path.ends_with('/') {
            Kind::Dir
        } else {
            Kind::File
        };
        tar.entry(&Meta {
            path: path.as_bytes(),
            kind,
            mode: 0o751,
            uid: 0,
            gid: 0,
            size: text.len() as u64,
            mtime: Time { sec: 9, nsec: 0 },
            link: b"",
            rdev: (0, 0),
            xattrs: &[],
        })
        .unwrap();
        if !text.is_empty() {
            tar.data(text.as_bytes()).unwrap();
        }
    }
    tar.finish().unwrap()
}

fn gz(data: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

fn image(store: &Store, layers: &[Vec<u8>]) -> Image {
    let mut descriptors = Vec::new();
    let mut ids = Vec::new();
    for blob in layers {
        let (descriptor, id) = store
            .import_layer(LayerSource::anonymous(&blob[..]))
            .unwrap();
        descriptors.push(descriptor);
        ids.push(id.to_string());
    }
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = serde_json::to_vec(&config).unwrap();
    let digest = store.put_document(&config).unwrap();
    let manifest = serde_json::json!({"schemaVersion": 2,
        "config": {"mediaType": MediaType::ImageConfig.as_ref(), "digest": digest.to_string(), "size": config.len()},
        "layers": descriptors});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    store
        .publish_image(&manifest, MediaType::ImageManifest)
        .unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

#[test]
fn a_layer_is_kept_once_however_it_is_packed() {
    need_root!();
    let (_dir, store) = store();
    let tar = layer(&[("a/", ""), ("a/f", "text")]);
    let (plain, id) = store
        .import_layer(LayerSource::anonymous(&tar[..]))
        .unwrap();
    let packed = gz(&tar);
    let (packed_as, again) = store
        .import_layer(LayerSource::anonymous(&packed[..]))
        .unwrap();
    assert_eq!(id, again);
    assert_ne!(plain.digest(), packed_as.digest());
    for (descriptor, want) in [(&plain, &tar), (&packed_as, &packed)] {
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut store.open_blob(descriptor.digest()).unwrap(), &mut got)
            .unwrap();
        assert_eq!(&got, want, "a blob comes out as it came in");
        assert_eq!(descriptor.size(), want.len() as u64);
    }
    let text = std::fs::read_to_string(store.layer_dir(&id).unwrap().join("a/f")).unwrap();
    assert_eq!(text, "text");
}

#[test]
fn wrong_digests_and_broken_blobs_leave_nothing() {
    need_root!();
    let (_dir, store) = store();
    let tar = layer(&[("f", "text")]);
    let other = crate::digest::of_bytes(b"other").unwrap();
    let cut = gz(&tar);
    let right = crate::digest::of_bytes(&tar).unwrap();
    let sources = [
        LayerSource {
            diff_id: Some(other.clone()),
            ..LayerSource::anonymous(&tar[..])
        },
        LayerSource {
            blob: Some((other, tar.len() as u64)),
            ..LayerSource::anonymous(&tar[..])
        },
        LayerSource {
            blob: Some((right, 5)),
            ..LayerSource::anonymous(&tar[..])
        },
        LayerSource::anonymous(&cut[..cut.len() - 9]),
        LayerSource::anonymous(&tar[..600]),
        LayerSource::anonymous(&b"this is no tar at all"[..]),
    ];
    for source in sources {
        store.import_layer(source).unwrap_err();
    }
    for dir in ["staging", "layers", "blobs"] {
        assert_eq!(
            std::fs::read_dir(store.root().join(dir)).unwrap().count(),
            0,
            "{dir}"
        );
    }
}

#[test]
fn a_bomb_is_stopped_early() {
    need_root!();
    let (_dir, mut store) = store();
    store.set_limits(Limits {
        free_expansion: 1 << 20,
        ratio: 100,
        ..Limits::default()
    });
    let zeros = "\0".repeat(64 << 20);
    let bomb = zstd::encode_all(&layer(&[("f", &zeros)])[..], 1).unwrap();
    let e = store
        .import_layer(LayerSource::anonymous(&bomb[..]))
        .unwrap_err();
    assert!(e.to_string().contains("times as much"), "{e}");
}

/// A source that never ends.
struct Endless;

impl std::io::Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        buf.fill(7);
        Ok(buf.len())
    }
}

#[test]
fn what_does_not_end_is_stopped() {
    need_root!();
    let (_dir, mut store) = store();
    store.set_limits(Limits {
        stream: 8 << 20,
        bytes: 4 << 20,
        ..Limits::default()
    });
    // A file without an end, as it is and packed; the header is honest about nothing but the name.
    let mut plain = layer(&[("f", "x")]);
    plain.truncate(512);
    plain[124..136].copy_from_slice(b"77777777777\0");
    plain[148..156].fill(b' ');
    let sum: u32 = plain.iter().map(|b| u32::from(*b)).sum();
    plain[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let said = |source: LayerSource<'_>| store.import_layer(source).unwrap_err().to_string();
    let endless = std::io::Read::chain(&plain[..], Endless);
    let e = said(LayerSource::anonymous(endless));
    assert!(e.contains("larger than 4194304 bytes"), "{e}");
    // Behind the end of the archive: nothing is written, but it is read and hashed.
    let tar = layer(&[("f", "x")]);
    let e = said(LayerSource::anonymous(std::io::Read::chain(
        &tar[..],
        Endless,
    )));
    assert!(e.contains("unpacks to more than 8388608 bytes"), "{e}");
    let packed = gz(&[&tar[..], &vec![0; 16 << 20]].concat());
    let e = said(LayerSource::anonymous(&packed[..]));
    assert!(e.contains("unpacks to more than 8388608 bytes"), "{e}");
    assert_eq!(
        std::fs::read_dir(store.root().join("staging"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_window_too_large_for_memory_is_refused() {
    need_root!();
    let (_dir, store) = store();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&layer(&[("f", "text")])).unwrap();
    let packed = encoder.finish().unwrap();
    let e = store
        .import_layer(LayerSource::anonymous(&packed[..]))
        .unwrap_err();
    assert!(e.to_string().contains("reading the layer"), "{e}");
}

#[test]
fn what_nothing_refers_to_is_collected_and_nothing_else() {
    need_root!();
    let (_dir, store) = store();
    let base = layer(&[("base", "b")]);
    let a = image(&store, &[base.clone(), layer(&[("a", "1")])]);
    let b = image(&store, &[base, layer(&[("b", "2")])]);
    store.tag("a:1", &a).unwrap();
    store.tag("b", &b).unwrap();
    assert_eq!(
        store.collect(false, false).unwrap().unwrap(),
        Collected::default()
    );
    let container = store.create_container("c", &a, "a:1").unwrap();
    store.remove_image(&a.id).unwrap_err();
    store.untag("a:1").unwrap();
    assert!(
        store
            .collect(true, false)
            .unwrap()
            .unwrap()
            .images
            .is_empty()
    );
    store.remove_container(&container).unwrap();
    let used = store.use_layers(&a.diff_ids).unwrap();
    let gone = store.collect(true, false).unwrap().unwrap();
    assert_eq!(gone.images, [a.id]);
    assert!(gone.layers.is_empty(), "a mount uses them");
    used.end();
    let gone = store.collect(true, false).unwrap().unwrap();
    assert_eq!(gone.layers, a.diff_ids[1..]);
    assert_eq!(store.verify(false, &Quiet).unwrap(), []);
    assert_eq!(store.resolve("b:latest").unwrap().id, b.id);
    assert_eq!(store.resolve(&b.id.digest()[..8]).unwrap().id, b.id);
}

#[test]
fn nobody_collects_while_somebody_works() {
    need_root!();
    let (dir, store) = store();
    let other = Store::open(&dir.path().join("store")).unwrap();
    assert!(other.collect(false, false).unwrap().is_none());
    drop(store);
    assert!(other.collect(false, false).unwrap().is_some());
}

#[test]
fn verify_names_a_changed_byte() {
    need_root!();
    let (_dir, store) = store();
    let a = image(
        &store,
        &[gz(&layer(&[("d/", ""), ("d/f", "text"), ("d/g", "more")]))],
    );
    let fs = store.layer_dir(&a.diff_ids[0]).unwrap();
    std::fs::write(fs.join("d/f"), "tExt").unwrap();
    std::fs::remove_file(fs.join("d/g")).unwrap();
    std::fs::write(fs.join("d/x"), "").unwrap();
    let blob = store.blob_path(a.layers[0].digest()).unwrap().unwrap().0;
    let said = |store: &Store| -> Vec<String> {
        let faults = store.verify(false, &Quiet).unwrap();
        faults
            .into_iter()
            .map(|f| format!("{} {}", f.part, f.what))
            .collect()
    };
    let faults = said(&store).join("\n");
    for want in ["/d/f has other content", "/d/g is missing", "/d/x is there"] {
        assert!(faults.contains(want), "{faults}");
    }
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert!(
        said(&store)
            .iter()
            .any(|f| f.starts_with("blob its content"))
    );
}

#[test]
fn a_stack_corrects_directories_that_no_archive_describes() {
    need_root!();
    let (_dir, store) = store();
    let lower = layer(&[("./", ""), ("tmp/", ""), ("tmp/a", "1")]);
    let a = image(&store, &[lower, layer(&[("tmp/b", "2")])]);
    let dirs = store.lower_dirs(&a.diff_ids).unwrap();
    assert_eq!(dirs.len(), 3);
    let mode = |p: &str| {
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dirs[0].join(p)).unwrap()) & 0o7777
    };
    assert_eq!((mode(""), mode("tmp")), (0o751, 0o751));
    let b = image(
        &store,
        &[
            layer(&[("./", ""), ("x", "1")]),
            layer(&[("./", ""), ("y", "1")]),
        ],
    );
    assert_eq!(
        store.lower_dirs(&b.diff_ids).unwrap().len(),
        2,
        "nothing to correct"
    );
}
