//! Pushing to a registry in trouble.
use plyfs_registry::{Options, Sent, Silent};
use plyfs_testkit::registry::{FakeRegistry, Fault};

use crate::{Notes, blob, client, content, options, reference, says};

/// Sends 300,000 bytes in pieces of `chunk` to a registry that meets `faults` on the way.
fn send(chunk: u64, faults: &[(&str, Fault)]) -> (FakeRegistry, Notes) {
    let registry = FakeRegistry::start();
    let bytes = content(300_000);
    for (part, fault) in faults {
        registry.fail(part, fault.clone());
    }
    let options = Options { chunk, ..options() };
    let client = client(&registry.host(), options);
    let repository = client.repository(&reference(&registry.host(), "a/b"));
    let notes = Notes::default();
    let sent = repository
        .send_blob(&blob(&bytes), &&bytes[..], &[], &notes)
        .unwrap();
    assert_eq!(sent, Sent::Uploaded);
    let digest = blob(&bytes).digest().to_string();
    assert_eq!(registry.blob("a/b", &digest).unwrap(), bytes);
    assert_eq!(*notes.last.lock().unwrap(), 300_000);
    assert_eq!(registry.faults_left(), 0, "a fault was not met");
    let again = repository
        .send_blob(&blob(&bytes), &&bytes[..], &[], &notes)
        .unwrap();
    assert_eq!(again, Sent::Present);
    (registry, notes)
}

fn lines(registry: &FakeRegistry, method: &str) -> Vec<String> {
    let seen = registry.seen_with(&format!("{method} /v2/a/b/blobs/uploads/"));
    seen.iter()
        .map(|s| format!("{} {}", s.header("content-range"), s.body))
        .collect()
}

#[test]
fn a_small_blob_goes_in_one_piece_and_a_large_one_in_several() {
    let (registry, _) = send(1 << 20, &[]);
    assert_eq!(lines(&registry, "PUT"), [" 300000"]);
    assert!(lines(&registry, "PATCH").is_empty());
    let (registry, _) = send(100_000, &[]);
    assert_eq!(
        lines(&registry, "PATCH"),
        [
            "0-99999 100000",
            "100000-199999 100000",
            "200000-299999 100000"
        ]
    );
    assert_eq!(lines(&registry, "PUT"), [" 0"]);
}

#[test]
fn an_upload_goes_on_where_the_registry_stands() {
    let (registry, notes) = send(100_000, &[("PATCH", Fault::TakeOnly(30_000))]);
    let patches = lines(&registry, "PATCH");
    assert_eq!(patches[0], "0-99999 30000");
    assert_eq!(patches[1], "30000-129999 100000");
    assert_eq!(registry.seen_with("GET /v2/a/b/blobs/uploads/").len(), 1);
    assert_eq!(registry.seen_with("POST").len(), 1);
    assert!(!notes.reasons().is_empty());

    // In one piece it is resumed by a PUT of the rest.
    let (registry, _) = send(1 << 20, &[("PUT", Fault::TakeOnly(200_000))]);
    assert_eq!(registry.seen_with("POST").len(), 1);
    assert_eq!(lines(&registry, "PATCH"), ["200000-299999 100000"]);
}

#[test]
fn an_upload_the_registry_forgot_begins_anew() {
    let unknown = Fault::Status(404, Vec::new(), String::new());
    let faults = [
        ("PATCH", Fault::Drop),
        ("GET /v2/a/b/blobs/uploads/", unknown.clone()),
        ("PATCH", unknown),
        ("PUT", Fault::Status(503, Vec::new(), String::new())),
    ];
    let (registry, _) = send(200_000, &faults);
    assert_eq!(registry.seen_with("POST").len(), 2);
}

#[test]
fn a_registry_may_want_larger_pieces() {
    let registry = FakeRegistry::start();
    registry.min_chunk(150_000);
    let bytes = content(300_000);
    let options = Options {
        chunk: 1000,
        ..options()
    };
    let client = client(&registry.host(), options);
    let repository = client.repository(&reference(&registry.host(), "a/b"));
    repository
        .send_blob(&blob(&bytes), &&bytes[..], &[], &Silent)
        .unwrap();
    assert_eq!(
        lines(&registry, "PATCH"),
        ["0-149999 150000", "150000-299999 150000"]
    );
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let registry = FakeRegistry::start();
    let bytes = content(1000);
    let digest = registry.put_blob("base", &bytes);
    let client = client(&registry.host(), options());
    let target = client.repository(&reference(&registry.host(), "a/b"));
    let sent = target
        .send_blob(&blob(&bytes), &&bytes[..], &["none", "base"], &Silent)
        .unwrap();
    assert_eq!(sent, Sent::Mounted);
    assert!(registry.blob("a/b", &digest).is_some());
    assert!(lines(&registry, "PUT").is_empty());

    registry.refuse_mounts();
    let other = client.repository(&reference(&registry.host(), "c"));
    let sent = other
        .send_blob(&blob(&bytes), &&bytes[..], &["base"], &Silent)
        .unwrap();
    assert_eq!(sent, Sent::Uploaded);
    assert_eq!(registry.seen_with("POST /v2/c/").len(), 1);
    registry.fail("POST /v2/d/", Fault::Status(403, Vec::new(), String::new()));
    let third = client.repository(&reference(&registry.host(), "d"));
    let sent = third
        .send_blob(&blob(&bytes), &&bytes[..], &["base"], &Silent)
        .unwrap();
    assert_eq!(sent, Sent::Uploaded);
}

#[test]
fn what_the_registry_refuses_is_said_in_its_words() {
    let registry = FakeRegistry::start();
    let bytes = content(1000);
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "a/b"));
    let large = r#"{"errors":[{"code":"SIZE_INVALID","message":"quota exceeded"}]}"#;
    registry.fail("PUT", Fault::Status(413, Vec::new(), large.to_owned()));
    let error = repository
        .send_blob(&blob(&bytes), &&bytes[..], &[], &Silent)
        .unwrap_err();
    says(
        &error,
        &[
            "upload of blob sha256:",
            "413 (SIZE_INVALID: quota exceeded)",
            "larger than",
        ],
    );
    assert_eq!(registry.seen_with("PUT").len(), 1);

    // The bytes changed under us: the registry finds it.
    let wrong = content(999);
    let mut padded = wrong.clone();
    padded.push(0);
    let error = repository
        .send_blob(&blob(&bytes), &&padded[..], &[], &Silent)
        .unwrap_err();
    says(&error, &["400 (DIGEST_INVALID"]);
}
