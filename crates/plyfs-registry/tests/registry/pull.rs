//! Pulling from a registry in trouble.
use plyfs_registry::{Platform, Silent};
use plyfs_testkit::registry::{FakeRegistry, Fault, digest_of};

use crate::{Notes, blob, client, content, options, reference, says, written};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest of a config and the given layers.
fn manifest(kind: &str, config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let entry = |bytes: &[u8], kind: &str| serde_json::json!({"mediaType": kind, "digest": digest_of(bytes), "size": bytes.len()});
    let layers: Vec<_> = layers
        .iter()
        .map(|l| entry(l, "application/vnd.oci.image.layer.v1.tar+gzip"))
        .collect();
    let config = entry(config, "application/vnd.oci.image.config.v1+json");
    serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers})
        .to_string()
        .into_bytes()
}

/// Fetches a blob of 300,000 bytes from a registry that meets `faults` on the way.
fn fetch(
    faults: &[Fault],
) -> (
    Result<(), plyfs_registry::RegistryError>,
    Vec<u8>,
    Notes,
    FakeRegistry,
) {
    let registry = FakeRegistry::start();
    let bytes = content(300_000);
    let digest = registry.put_blob("a/b", &bytes);
    for fault in faults {
        registry.fail(&digest, fault.clone());
    }
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "a/b"));
    let mut file = tempfile::tempfile().unwrap();
    let notes = Notes::default();
    let result = repository.fetch_blob(&blob(&bytes), &mut file, &notes);
    let got = written(&mut file);
    if result.is_ok() {
        assert_eq!(got, bytes);
        assert_eq!(*notes.last.lock().unwrap(), bytes.len() as u64);
    }
    assert_eq!(registry.faults_left(), 0, "a fault was not met");
    (result, got, notes, registry)
}

#[test]
fn a_download_goes_on_where_the_connection_broke() {
    let cuts = [
        Fault::CutAfter(100_000),
        Fault::Drop,
        Fault::CutAfter(50_000),
        Fault::Status(
            503,
            vec![("Retry-After".to_owned(), "0".to_owned())],
            String::new(),
        ),
        Fault::CutAfter(1),
        Fault::Status(429, Vec::new(), "slow down".to_owned()),
    ];
    let (result, _, notes, registry) = fetch(&cuts);
    result.unwrap();
    let ranges: Vec<_> = registry
        .seen_with("GET /v2/a/b/blobs/")
        .iter()
        .map(|seen| seen.header("range").to_owned())
        .collect();
    assert_eq!(
        ranges,
        [
            "",
            "bytes=100000-",
            "bytes=100000-",
            "bytes=150000-",
            "bytes=150000-",
            "bytes=150001-",
            "bytes=150001-"
        ]
    );
    let reasons = notes.reasons();
    assert!(
        reasons.contains("slow down") && reasons.contains("503"),
        "{reasons}"
    );
}

#[test]
fn a_registry_without_ranges_is_read_from_the_beginning() {
    let (result, _, _, registry) = fetch(&[Fault::CutAfter(100_000), Fault::WholeAlways]);
    result.unwrap();
    assert_eq!(registry.seen_with("/blobs/").len(), 2);
    let gone = Fault::Status(416, Vec::new(), String::new());
    let (result, _, _, registry) = fetch(&[Fault::CutAfter(100_000), gone]);
    result.unwrap();
    assert_eq!(registry.seen_with("/blobs/").len(), 3);
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    let (result, kept, _, _) = fetch(&[Fault::Flip(1234)]);
    let error = result.unwrap_err();
    says(
        &error,
        &[
            "blob sha256:",
            "a/b",
            "the content has digest sha256:",
            "try again",
        ],
    );
    assert!(kept.is_empty());
}

#[test]
fn a_wrong_length_is_refused() {
    let (result, kept, _, _) = fetch(&[Fault::Longer(1)]);
    says(
        &result.unwrap_err(),
        &["manifest says 300000 bytes, the registry has 300001"],
    );
    assert!(kept.is_empty());
    let (result, _, _, _) = fetch(&[Fault::Shorter(1)]);
    says(
        &result.unwrap_err(),
        &["manifest says 300000 bytes, the registry has 299999"],
    );
}

#[test]
fn failures_without_progress_end_the_download_and_keep_its_beginning() {
    let down = || Fault::Status(502, Vec::new(), "<html>".to_owned());
    let (result, kept, _, registry) = fetch(&[Fault::CutAfter(7), down(), down(), Fault::Drop]);
    assert_eq!(kept.len(), 7);
    assert_eq!(registry.seen_with("/blobs/").len(), 4);
    says(&result.unwrap_err(), &["blob sha256:", &registry.host()]);
    let missing = Fault::Status(
        404,
        Vec::new(),
        r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#.to_owned(),
    );
    let (result, _, _, registry) = fetch(&[missing]);
    says(
        &result.unwrap_err(),
        &["answers 404 (BLOB_UNKNOWN)", "check name and tag"],
    );
    assert_eq!(registry.seen_with("/blobs/").len(), 1);
}

#[test]
fn a_registry_that_never_gets_further_is_left() {
    // Each connection brings bytes, but never more than there were before.
    let mut faults = vec![Fault::CutAfter(50_000)];
    for _ in 0..3 {
        faults.push(Fault::Status(416, Vec::new(), String::new()));
        faults.push(Fault::CutAfter(40_000));
    }
    let (result, _, _, _) = fetch(&faults);
    says(&result.unwrap_err(), &["after 40000 of 300000 bytes"]);
}

#[test]
fn what_an_earlier_run_kept_is_not_fetched_again() {
    let registry = FakeRegistry::start();
    let bytes = content(300_000);
    let digest = registry.put_blob("a/b", &bytes);
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "a/b"));
    let fetched = |kept: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, kept).unwrap();
        let before = registry.seen_with(&digest).len();
        repository
            .fetch_blob(&blob(&bytes), &mut file, &Silent)
            .unwrap();
        assert_eq!(written(&mut file), bytes);
        let seen = registry.seen_with(&digest);
        let ranges = seen[before..].iter().map(|s| s.header("range").to_owned());
        ranges.collect::<Vec<_>>()
    };
    assert_eq!(fetched(&bytes[..200_000]), ["bytes=200000-"]);
    assert!(fetched(&bytes).is_empty());
    // Damaged on our disk: found by the digest, then fetched whole.
    let mut damaged = bytes[..200_000].to_vec();
    damaged[5] ^= 1;
    assert_eq!(fetched(&damaged), ["bytes=200000-", ""]);
    assert_eq!(fetched(&[&bytes[..], b"more"].concat()), [""]);
    let mut all_wrong = bytes.clone();
    all_wrong[5] ^= 1;
    assert_eq!(fetched(&all_wrong), [""]);
}

#[test]
fn redirects_are_followed_without_the_credentials() {
    let (registry, elsewhere) = (FakeRegistry::start(), FakeRegistry::start());
    let bytes = content(1000);
    let digest = registry.put_blob("a", &bytes);
    let there = elsewhere.put_blob("cdn", &bytes);
    registry.require(plyfs_testkit::registry::Login::Basic(
        "Basic dTpw".to_owned(),
    ));
    let credentials = plyfs_registry::Credentials::Password {
        user: "u".to_owned(),
        password: "p".to_owned(),
    };
    let options = plyfs_registry::Options {
        credentials: plyfs_registry::Sources::given(credentials),
        ..options()
    };
    let client = client(&registry.host(), options);
    let repository = client.repository(&reference(&registry.host(), "a"));
    let target = format!("http://{}/v2/cdn/blobs/{there}", elsewhere.host());
    registry.fail(
        &format!("GET /v2/a/blobs/{digest}"),
        Fault::Redirect(target),
    );
    elsewhere.fail("/v2/cdn/", Fault::CutAfter(400));
    let mut file = tempfile::tempfile().unwrap();
    repository
        .fetch_blob(&blob(&bytes), &mut file, &Silent)
        .unwrap();
    assert_eq!(written(&mut file), bytes);
    let seen = elsewhere.seen_with("/v2/cdn/");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), "");
    assert!(
        registry
            .seen_with("/v2/a/blobs")
            .iter()
            .all(|s| s.header("authorization") == "Basic dTpw")
    );

    // A redirect to itself for ever ends.
    for _ in 0..20 {
        registry.fail(
            "/v2/a/blobs",
            Fault::Redirect(format!("/v2/a/blobs/{digest}")),
        );
    }
    let mut file = tempfile::tempfile().unwrap();
    let error = repository
        .fetch_blob(&blob(&bytes), &mut file, &Silent)
        .unwrap_err();
    says(&error, &["sends us on more than"]);
}

#[test]
fn manifests_are_what_their_digest_names() {
    let registry = FakeRegistry::start();
    let bytes = manifest(DOCKER, b"{}", &[b"layer"]);
    let digest = registry.put_manifest("a", "1", DOCKER, &bytes);
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "a"));
    let found = repository.manifest("1").unwrap();
    assert_eq!((found.bytes(), found.media_type()), (&bytes[..], DOCKER));
    assert_eq!(found.digest().as_ref(), digest);
    assert_eq!(repository.manifest(&digest).unwrap(), found);
    assert_eq!(
        repository.manifest_digest("1").unwrap().unwrap().as_ref(),
        digest
    );
    assert_eq!(repository.manifest_digest("2").unwrap(), None);

    registry.fail(&digest, Fault::Flip(3));
    says(
        &repository.manifest(&digest).unwrap_err(),
        &[&digest, "has digest sha256:"],
    );
    registry.fail("/manifests/1", Fault::CutAfter(10));
    registry.fail("/manifests/1", Fault::Drop);
    assert_eq!(repository.manifest("1").unwrap(), found);
    let error = repository.manifest("none").unwrap_err();
    says(
        &error,
        &[
            "manifest none of",
            "404 (MANIFEST_UNKNOWN: manifest unknown)",
            "check name",
        ],
    );
    registry.fail("/manifests/1", Fault::Longer(5 << 20));
    says(
        &repository.manifest("1").unwrap_err(),
        &["longer than 4194304 bytes"],
    );
}

#[test]
fn of_an_index_the_platform_is_taken() {
    let registry = FakeRegistry::start();
    let entry = |architecture: &str| {
        let bytes = manifest(OCI, architecture.as_bytes(), &[]);
        let digest = registry.put_manifest("a", &format!("only-{architecture}"), OCI, &bytes);
        serde_json::json!({
            "mediaType": OCI, "digest": digest, "size": bytes.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let entries = [entry("amd64"), entry("arm64")];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let outer_digest = registry.put_manifest("a", "multi", INDEX, index.to_string().as_bytes());
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "a"));
    for platform in ["linux/amd64", "linux/arm64"] {
        let found = repository
            .resolve("multi", &platform.parse().unwrap())
            .unwrap();
        let wanted = platform.strip_prefix("linux/").unwrap();
        assert_eq!(
            found.image.config().digest().as_ref(),
            digest_of(wanted.as_bytes())
        );
        assert_eq!(found.index.unwrap().digest().as_ref(), outer_digest);
    }
    let error = repository
        .resolve("multi", &"linux/s390x".parse().unwrap())
        .unwrap_err();
    says(
        &error,
        &[
            "no image for linux/s390x",
            "linux/amd64, linux/arm64",
            "--platform",
        ],
    );
    let single = repository.resolve("only-arm64", &Platform::host()).unwrap();
    assert!(single.index.is_none());
    // An index that names itself.
    let nested = |digest: &str| {
        let entry = serde_json::json!({"mediaType": INDEX, "digest": digest, "size": 1});
        serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
            .to_string()
    };
    let mut digest = outer_digest;
    for level in 0..6 {
        let tag = format!("deep{level}");
        digest = registry.put_manifest("a", &tag, INDEX, nested(&digest).as_bytes());
    }
    let error = repository
        .resolve("deep5", &"linux/amd64".parse().unwrap())
        .unwrap_err();
    says(&error, &["indexes more than 3 deep"]);
    assert!(
        repository
            .resolve("deep0", &"linux/amd64".parse().unwrap())
            .is_ok()
    );
}

#[test]
fn tags_come_page_by_page() {
    let registry = FakeRegistry::start();
    for tag in ["a", "b", "c", "d", "e"] {
        registry.put_manifest("r", tag, OCI, &manifest(OCI, b"{}", &[]));
    }
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "r"));
    assert_eq!(repository.tags().unwrap(), ["a", "b", "c", "d", "e"]);
    assert_eq!(registry.seen_with("/tags/list").len(), 3);
}

#[test]
fn small_blobs_are_checked_too() {
    let registry = FakeRegistry::start();
    let digest = registry.put_blob("r", b"{\"os\":\"linux\"}");
    let client = client(&registry.host(), options());
    let repository = client.repository(&reference(&registry.host(), "r"));
    let config = blob(b"{\"os\":\"linux\"}");
    registry.fail(&digest, Fault::CutAfter(3));
    assert_eq!(
        repository.fetch_small(&config, 100).unwrap(),
        b"{\"os\":\"linux\"}"
    );
    assert!(repository.fetch_small(&config, 5).is_err());
    registry.fail(&digest, Fault::Flip(3));
    says(
        &repository.fetch_small(&config, 100).unwrap_err(),
        &["has digest"],
    );
    registry.fail(&digest, Fault::Shorter(3));
    says(
        &repository.fetch_small(&config, 100).unwrap_err(),
        &["manifest says 14 bytes"],
    );
    let empty = blob(b"");
    assert_eq!(registry.put_blob("r", b""), empty.digest().as_ref());
    let mut file = tempfile::tempfile().unwrap();
    repository.fetch_blob(&empty, &mut file, &Silent).unwrap();
}
