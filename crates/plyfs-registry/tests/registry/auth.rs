//! Who asks: Basic, tokens, and where the credentials come from.
use plyfs_registry::{Credentials, Options, Sources};
use plyfs_testkit::registry::{FakeRegistry, Fault, Login};

use crate::{client, options, reference, says};

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";
const LOGIN: &str = "Basic dXNlcjpzZWNyZXQ=";

fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start();
    for repository in ["a", "b"] {
        registry.put_manifest(repository, "1", KIND, br#"{"schemaVersion":2}"#);
    }
    registry
}

fn with(credentials: Sources) -> Options {
    Options {
        credentials,
        ..options()
    }
}

fn password(password: &str) -> Sources {
    Sources::given(Credentials::Password {
        user: "user".to_owned(),
        password: password.to_owned(),
    })
}

#[test]
fn basic_is_answered_with_the_password_of_the_file() {
    let registry = registry();
    registry.require(Login::Basic(LOGIN.to_owned()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let auths = format!(
        r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#,
        registry.host()
    );
    std::fs::write(&file, auths).unwrap();
    let known = client(&registry.host(), with(Sources::file(&file)));
    let at = reference(&registry.host(), "a");
    known.repository(&at).manifest("1").unwrap();

    let nobody = client(&registry.host(), options());
    let error = nobody.repository(&at).manifest("1").unwrap_err();
    says(
        &error,
        &[
            "manifest 1 of",
            "denies access (401",
            "UNAUTHORIZED",
            "no credentials for",
            "log in",
        ],
    );
    let wrong = client(&registry.host(), with(password("wrong")));
    let before = registry.seen().len();
    let error = wrong.repository(&at).manifest("1").unwrap_err();
    says(
        &error,
        &["credentials of \"user\" do not suffice", "podman login"],
    );
    assert!(
        registry.seen().len() - before <= 4,
        "it asks again and again"
    );
    assert!(!error.to_string().contains("wrong"));
}

#[test]
fn a_token_is_fetched_once_for_each_scope_and_again_when_it_ran_out() {
    let registry = registry();
    registry.require(Login::Bearer(Some(LOGIN.to_owned())));
    let client = client(&registry.host(), with(password("secret")));
    let at = |name| client.repository(&reference(&registry.host(), name));
    let (a, b) = (at("a"), at("b"));
    for _ in 0..3 {
        a.manifest("1").unwrap();
    }
    let tokens = registry.seen_with("/token");
    assert_eq!(tokens.len(), 1);
    assert!(
        tokens[0].path.contains("service=fake"),
        "{}",
        tokens[0].path
    );
    assert!(
        tokens[0].path.contains("scope=repository:a:pull"),
        "{}",
        tokens[0].path
    );
    assert!(
        tokens[0].path.contains("account=user"),
        "{}",
        tokens[0].path
    );
    b.manifest("1").unwrap();
    assert_eq!(registry.seen_with("/token").len(), 2);
    registry.expire_tokens();
    a.manifest("1").unwrap();
    a.manifest("1").unwrap();
    assert_eq!(registry.seen_with("/token").len(), 3);
    // The token server may fail for a moment as well.
    registry.expire_tokens();
    registry.fail("/token", Fault::Status(500, Vec::new(), String::new()));
    b.manifest("1").unwrap();
    // The password goes to the token server alone.
    let leaked = registry.seen_with("/v2/").into_iter();
    assert_eq!(
        leaked
            .filter(|s| s.header("authorization") == LOGIN)
            .count(),
        0
    );
}

#[test]
fn threads_share_one_token() {
    let registry = registry();
    registry.require(Login::Bearer(None));
    let client = client(&registry.host(), options());
    let at = reference(&registry.host(), "a");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.repository(&at).manifest("1").unwrap());
        }
    });
    assert_eq!(registry.seen_with("/token").len(), 1);
    assert_eq!(registry.seen_with("GET /v2/ ").len(), 0);
    let pings = registry.seen().into_iter().filter(|s| s.path == "/v2/");
    assert_eq!(pings.count(), 1);
}

#[test]
fn a_refused_password_is_said_so() {
    let registry = registry();
    registry.require(Login::Bearer(Some(LOGIN.to_owned())));
    let client = client(&registry.host(), with(password("wrong")));
    let error = client
        .repository(&reference(&registry.host(), "a"))
        .manifest("1")
        .unwrap_err();
    says(
        &error,
        &[
            "token for manifest 1 of",
            "401",
            "wrong password",
            "password of \"user\"",
        ],
    );
    assert_eq!(registry.seen_with("/token").len(), 1);
}

#[test]
fn stored_tokens_are_used_as_they_are_meant() {
    let registry = registry();
    registry.require(Login::Bearer(None));
    let sources = Sources::given(Credentials::Identity("re fresh".to_owned()));
    let at = reference(&registry.host(), "a");
    client(&registry.host(), with(sources))
        .repository(&at)
        .manifest("1")
        .unwrap();
    let asked = registry.seen_with("POST /token");
    assert_eq!(asked.len(), 1);
    for part in [
        "grant_type=refresh_token",
        "refresh_token=re%20fresh",
        "scope=repository:a:pull",
    ] {
        assert!(asked[0].text.contains(part), "{}", asked[0].text);
    }
}

#[test]
fn a_token_server_without_tls_gets_no_password_of_a_registry_with_it() {
    // The flag that allows plain http is not given, and the registry asks for it all the same.
    let registry = registry();
    let strict = Options {
        tls_verify: true,
        ..with(password("secret"))
    };
    let client = client(&registry.host(), strict);
    let error = client
        .repository(&reference(&registry.host(), "a"))
        .manifest("1")
        .unwrap_err();
    says(&error, &["connection to 127.0.0.1", "--tls-verify=false"]);
    assert!(
        registry.seen().is_empty(),
        "something was sent in the clear"
    );
}
