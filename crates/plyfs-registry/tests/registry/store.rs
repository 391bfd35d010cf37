//! Images between a registry and a store.
use std::path::Path;
use std::process::Command;

use plyfs_image::{Quiet, Store};
use plyfs_registry::{PullOptions, Pulled, PushOptions, Pushed, RegistryError, pull, push};
use plyfs_testkit::registry::{FakeRegistry, Fault, digest_of};

use crate::{client, options, reference, says};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer with one file `name`: its archive, and that compressed.
fn layer(name: &str, content: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join(name), content).unwrap();
    let run = |program: &str, args: &[&str]| {
        let run = Command::new(program)
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        run.stdout
    };
    let tar = run("tar", &["-C", "tree", "-cf", "-", name]);
    std::fs::write(dir.path().join("layer"), &tar).unwrap();
    (tar, run("gzip", &["-nc", "layer"]))
}

/// An image in a registry, and what it is made of.
struct Made {
    manifest: Vec<u8>,
    /// Digests of the distinct blobs of its layers.
    blobs: Vec<String>,
}

/// Puts an image of four layers, two of them the same and one not compressed, under `name:1`.
fn make(registry: &FakeRegistry, name: &str, architecture: &str) -> Made {
    let (one, plain, two) = (layer("a", "one"), layer("b", "plain"), layer("c", "two"));
    let stack = [
        (&one.0, &one.1, GZIP),
        (&plain.0, &plain.0, PLAIN),
        (&one.0, &one.1, GZIP),
        (&two.0, &two.1, GZIP),
    ];
    let diff_ids: Vec<_> = stack.iter().map(|(tar, _, _)| digest_of(tar)).collect();
    let config = serde_json::json!({
        "os": "linux", "architecture": architecture, "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let mut blobs: Vec<_> = stack
        .iter()
        .map(|(_, blob, _)| registry.put_blob(name, blob))
        .collect();
    let config_digest = registry.put_blob(name, config.as_bytes());
    let layers: Vec<_> = stack
        .iter()
        .map(|(_, b, kind)| {
            serde_json::json!({"mediaType": kind, "digest": digest_of(b), "size": b.len()})
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest, "size": config.len()},
        // What nobody here knows has to survive.
        "annotations": {"made": "for a test"}, "unknown": [1, 2],
    });
    let manifest = manifest.to_string().into_bytes();
    registry.put_manifest(name, "1", OCI, &manifest);
    blobs.sort();
    blobs.dedup();
    Made { manifest, blobs }
}

fn pulled(registry: &FakeRegistry, what: &str, root: &Path) -> Result<Pulled, RegistryError> {
    let host = registry.host();
    let store = Store::open(root).unwrap();
    let wanted = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        ..PullOptions::default()
    };
    pull(
        &client(&host, options()),
        &reference(&host, what),
        &store,
        &wanted,
        &Quiet,
    )
}

fn pushed(registry: &FakeRegistry, what: &str, from: &str, root: &Path) -> Pushed {
    let host = registry.host();
    let store = Store::open(root).unwrap();
    let image = store.resolve(&format!("{host}/{from}")).unwrap();
    let (client, at) = (client(&host, options()), reference(&host, what));
    push(
        &client,
        &at,
        &store,
        &image,
        &PushOptions::default(),
        &Quiet,
    )
    .unwrap()
}

fn is_whole(root: &Path) {
    let faults = Store::open(root).unwrap().verify(false, &Quiet).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    let left = std::fs::read_dir(root.join("staging")).unwrap().count();
    assert_eq!(left, 0, "something is left in staging");
}

/// How often each of the blobs was asked for.
fn fetches(registry: &FakeRegistry, made: &Made) -> Vec<usize> {
    let count = |digest: &String| {
        registry
            .seen_with(&format!("GET /v2/app/blobs/{digest}"))
            .len()
    };
    made.blobs.iter().map(count).collect()
}

#[test]
fn a_pull_brings_what_is_not_here_and_a_push_gives_it_back_as_it_was() {
    let (registry, root) = (FakeRegistry::start(), tempfile::tempdir().unwrap());
    let made = make(&registry, "app", "amd64");
    let first = pulled(&registry, "app:1", root.path()).unwrap();
    assert_eq!((first.fetched, first.present), (3, 0));
    let name = format!("{}/app:1", registry.host());
    assert_eq!(first.name.as_deref(), Some(name.as_str()));
    assert_eq!(first.image.layers.len(), 4);
    assert_eq!(fetches(&registry, &made), [1, 1, 1]);

    let before = registry.seen().len();
    let again = pulled(&registry, "app:1", root.path()).unwrap();
    assert_eq!((again.fetched, again.present), (0, 3));
    // The ping and the manifest.
    assert_eq!(registry.seen().len() - before, 2);
    is_whole(root.path());

    // To another repository of the same registry nothing is sent; to another registry all is.
    let near = pushed(&registry, "copy:2", "app:1", root.path());
    assert_eq!(
        (near.sent, near.mounted, near.present),
        (1, 3, 0),
        "the config is not lent"
    );
    assert_eq!(
        registry.manifest("copy", "2").unwrap(),
        (OCI.to_owned(), made.manifest.clone())
    );
    let other = FakeRegistry::start();
    let far = {
        let store = Store::open(root.path()).unwrap();
        let image = store.resolve(&name).unwrap();
        let (client, at) = (
            client(&other.host(), options()),
            reference(&other.host(), "far:3"),
        );
        let send = || {
            push(
                &client,
                &at,
                &store,
                &image,
                &PushOptions::default(),
                &Quiet,
            )
            .unwrap()
        };
        let far = send();
        assert_eq!(send().present, 4);
        far
    };
    assert_eq!((far.sent, far.mounted, far.present), (4, 0, 0));
    assert_eq!(far.manifest.as_ref(), digest_of(&made.manifest));
    assert_eq!(other.manifest("far", "3").unwrap().1, made.manifest);
    for digest in &made.blobs {
        assert_eq!(other.blob("far", digest), registry.blob("app", digest));
    }
    let back = tempfile::tempdir().unwrap();
    let returned = pulled(&other, "far:3", back.path()).unwrap();
    assert_eq!(returned.image.id, first.image.id);
    assert_eq!(
        returned.image.manifest.digest(),
        first.image.manifest.digest()
    );
}

#[test]
fn a_pull_that_failed_goes_on_where_it_was() {
    let (registry, root) = (FakeRegistry::start(), tempfile::tempdir().unwrap());
    let made = make(&registry, "app", "amd64");
    let part = format!("GET /v2/app/blobs/{}", made.blobs[1]);
    registry.fail(&part, Fault::CutAfter(50));
    registry.fail(&part, Fault::Status(404, Vec::new(), String::new()));
    let error = pulled(&registry, "app:1", root.path()).unwrap_err();
    says(&error, &[&made.blobs[1], "404"]);
    let store = Store::open(root.path()).unwrap();
    assert!(store.tags().unwrap().is_empty(), "half an image has a name");
    drop(store);
    let before = registry.seen_with(&part).len();
    pulled(&registry, "app:1", root.path()).unwrap();
    let seen = registry.seen_with(&part);
    let ranges: Vec<_> = seen[before..].iter().map(|s| s.header("range")).collect();
    assert_eq!(ranges, ["bytes=50-"]);
    is_whole(root.path());
}

#[test]
fn what_is_not_what_it_should_be_leaves_nothing() {
    let (registry, root) = (FakeRegistry::start(), tempfile::tempdir().unwrap());
    let made = make(&registry, "app", "amd64");
    registry.fail(
        &format!("GET /v2/app/blobs/{}", made.blobs[0]),
        Fault::Flip(30),
    );
    let error = pulled(&registry, "app:1", root.path()).unwrap_err();
    says(&error, &[&made.blobs[0], "the content has digest"]);
    // A blob that is what the manifest says, but not what the config says.
    let tar = layer("x", "other").1;
    let other = registry.put_blob("app", &tar);
    let text = String::from_utf8(made.manifest.clone()).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["layers"][3]["digest"] = other.clone().into();
    manifest["layers"][3]["size"] = tar.len().into();
    registry.put_manifest("app", "wrong", OCI, manifest.to_string().as_bytes());
    let error = pulled(&registry, "app:wrong", root.path()).unwrap_err();
    says(&error, &[&other, "should be"]);
    manifest["layers"].as_array_mut().unwrap().pop();
    registry.put_manifest("app", "short", OCI, manifest.to_string().as_bytes());
    says(
        &pulled(&registry, "app:short", root.path()).unwrap_err(),
        &["3 layers, the config 4"],
    );
    assert!(Store::open(root.path()).unwrap().tags().unwrap().is_empty());
    // What was broken off and is right so far is kept to go on with; what is wrong is not.
    let wrong = [&made.blobs[0], &other].map(|digest| digest.replace(':', "-"));
    let left: Vec<_> = std::fs::read_dir(root.path().join("staging"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.metadata().unwrap().len() > 0)
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| wrong.iter().any(|w| name.contains(w)) || !name.starts_with("fetch-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn several_pulls_at_once_fetch_each_blob_once() {
    let (registry, root) = (FakeRegistry::start(), tempfile::tempdir().unwrap());
    let made = make(&registry, "app", "amd64");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pulled(&registry, "app:1", root.path()).unwrap());
        }
    });
    assert_eq!(fetches(&registry, &made), [1, 1, 1]);
    is_whole(root.path());
}

#[test]
fn the_platform_of_an_image_without_an_index_is_looked_at() {
    let (registry, root) = (FakeRegistry::start(), tempfile::tempdir().unwrap());
    make(&registry, "app", "s390x");
    let error = pulled(&registry, "app:1", root.path()).unwrap_err();
    says(
        &error,
        &[
            "no image for linux/amd64",
            "there is linux/s390x",
            "--platform",
        ],
    );
    let digest = registry
        .manifest("app", "1")
        .map(|(_, bytes)| digest_of(&bytes))
        .unwrap();
    let store = Store::open(root.path()).unwrap();
    let (host, any) = (registry.host(), PullOptions::default());
    let at = reference(&host, &format!("app@{digest}"));
    let pulled = pull(&client(&host, options()), &at, &store, &any, &Quiet).unwrap();
    assert_eq!(pulled.name, None);
}
