//! The client against docker-registry, with skopeo as the judge of what it holds.
use std::process::Command;

use plyfs_registry::{
    Client, Credentials, Manifest, Object, Options, Parsed, Platform, Sent, Silent, Sources,
};
use plyfs_testkit::need;
use plyfs_testkit::registry::{RealRegistry, RegistrySetup, TlsFiles, digest_of};

use crate::{blob, client, content, options, reference, says, written};

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image of one layer that is no tar but has the right digests; its manifest.
fn push(client: &Client, host: &str, name: &str, layer: &[u8]) -> Manifest {
    let at = reference(host, name);
    let repository = client.repository(&at);
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    for bytes in [&config[..], layer] {
        repository
            .send_blob(&blob(bytes), &bytes, &[], &Silent)
            .unwrap();
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": KIND,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest_of(layer), "size": layer.len()}],
    });
    let bytes = manifest.to_string().into_bytes();
    let object = Object::new("test manifest");
    let manifest = Manifest::new(bytes, Some(KIND), None, &object).unwrap();
    repository.put_manifest(&manifest, at.tag()).unwrap();
    manifest
}

fn pull(client: &Client, host: &str, name: &str) -> (Manifest, Vec<u8>) {
    let at = reference(host, name);
    let repository = client.repository(&at);
    let found = repository
        .resolve(at.selector(), &Platform::host())
        .unwrap();
    let mut file = tempfile::tempfile().unwrap();
    repository
        .fetch_blob(&found.image.layers()[0], &mut file, &Silent)
        .unwrap();
    (found.manifest, written(&mut file))
}

/// Runs skopeo, which has to succeed; what it prints.
fn skopeo(args: &[&str]) -> String {
    let run = Command::new("skopeo").args(args).output().unwrap();
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "skopeo {args:?}: {text}");
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn what_is_pushed_is_pulled_and_skopeo_sees_the_same() {
    need!("docker-registry");
    let registry = RealRegistry::start(&RegistrySetup::default());
    let host = registry.host();
    let layer = content(700_000);
    let pieces = Options {
        chunk: 300_000,
        ..options()
    };
    let client = client(&host, pieces);
    client.ping().unwrap();
    let strict = Options {
        tls_verify: true,
        ..options()
    };
    let error = crate::client(&host, strict).ping().unwrap_err();
    says(
        &error,
        &["does not speak TLS", "--tls-verify=false allows plain http"],
    );
    let pushed = push(&client, &host, "team/app:1", &layer);
    assert_eq!(
        pull(&client, &host, "team/app:1"),
        (pushed.clone(), layer.clone())
    );
    let by_digest = format!("team/app@{}", pushed.digest());
    assert_eq!(pull(&client, &host, &by_digest).0, pushed);
    assert_eq!(
        client
            .repository(&reference(&host, "team/app"))
            .tags()
            .unwrap(),
        ["1"]
    );

    // The same layer in another repository costs no byte.
    let other = client.repository(&reference(&host, "other"));
    let source = &&layer[..];
    let sent = other
        .send_blob(&blob(&layer), source, &["team/app"], &Silent)
        .unwrap();
    assert_eq!(sent, Sent::Mounted);
    assert_eq!(
        other
            .send_blob(&blob(&layer), source, &[], &Silent)
            .unwrap(),
        Sent::Present
    );

    need!("skopeo");
    let image = format!("docker://{host}/team/app:1");
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &image]);
    assert_eq!(raw.as_bytes(), pushed.bytes());
    let parsed = pushed.parse(&Object::new("test manifest")).unwrap();
    assert!(matches!(parsed, Parsed::Image(_)));
    let dir = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", dir.path().display());
    skopeo(&["copy", "--src-tls-verify=false", &image, &target]);
    let hex = digest_of(&layer).replace("sha256:", "");
    assert_eq!(std::fs::read(dir.path().join(hex)).unwrap(), layer);
}

#[test]
fn an_htpasswd_file_lets_in_who_knows_the_password() {
    need!("docker-registry");
    let setup = RegistrySetup {
        htpasswd: Some(
            "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n".to_owned(),
        ),
        tls: None,
    };
    let registry = RealRegistry::start(&setup);
    let host = registry.host();
    let with = |password: &str| Options {
        credentials: Sources::given(Credentials::Password {
            user: "user".to_owned(),
            password: password.to_owned(),
        }),
        ..options()
    };
    let layer = content(1000);
    push(&client(&host, with("secret")), &host, "a:1", &layer);
    assert_eq!(pull(&client(&host, with("secret")), &host, "a:1").1, layer);
    for refused in [with("wrong"), options()] {
        let client = client(&host, refused);
        let error = client
            .repository(&reference(&host, "a"))
            .manifest("1")
            .unwrap_err();
        says(
            &error,
            &["denies access (401 (UNAUTHORIZED: authentication required))"],
        );
    }
}

#[test]
fn a_certificate_has_to_be_known_unless_told_otherwise() {
    need!("docker-registry", "openssl");
    let dir = tempfile::tempdir().unwrap();
    let tls = TlsFiles::make(dir.path(), false);
    let setup = RegistrySetup {
        htpasswd: None,
        tls: Some(tls.clone()),
    };
    let registry = RealRegistry::start(&setup);
    let host = registry.host();
    let strict = Options {
        tls_verify: true,
        ..options()
    };
    let known = Options {
        cert_dir: Some(tls.dir),
        ..strict.clone()
    };
    let layer = content(100_000);
    push(&client(&host, known.clone()), &host, "a:1", &layer);
    assert_eq!(pull(&client(&host, known), &host, "a:1").1, layer);
    assert_eq!(pull(&client(&host, options()), &host, "a:1").1, layer);
    let error = client(&host, strict).ping().unwrap_err();
    says(
        &error,
        &[
            "registry 127.0.0.1",
            "UnknownIssuer",
            "certs.d",
            "--tls-verify=false",
        ],
    );
}

#[test]
fn a_certificate_that_is_its_own_ca_is_trusted_where_the_operator_put_it() {
    need!("docker-registry", "openssl");
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = TlsFiles::make(dir.path(), true);
    let setup = RegistrySetup {
        htpasswd: None,
        tls: Some(tls.clone()),
    };
    let registry = RealRegistry::start(&setup);
    let host = registry.host();
    let trusting = |dir: &std::path::Path| Options {
        tls_verify: true,
        cert_dir: Some(dir.to_owned()),
        ..options()
    };
    let layer = content(3_000_000);
    push(&client(&host, trusting(&tls.dir)), &host, "a:1", &layer);
    assert_eq!(
        pull(&client(&host, trusting(&tls.dir)), &host, "a:1").1,
        layer
    );
    // Another one of the same name is not.
    let another = TlsFiles::make(other.path(), true);
    client(&host, trusting(&another.dir)).ping().unwrap_err();
}

#[test]
fn a_registry_that_is_not_there_is_said_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = port.local_addr().unwrap().to_string();
    drop(port);
    let error = client(&host, options()).ping().unwrap_err();
    says(
        &error,
        &[
            "registry 127.0.0.1",
            "Connection refused",
            "is the registry running",
        ],
    );
}
