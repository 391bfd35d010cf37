//! Credential files in the forms that podman and docker write.
use super::*;

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    }
}

fn written(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    (dir, Sources::file(path))
}

fn entry(user: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:p:w")))
}

#[test]
fn the_most_special_entry_counts() {
    let text = format!(
        r#"{{"auths":{{
            "quay.io": {}, "quay.io/team": {}, "quay.io/team/app": {},
            "https://index.docker.io/v1/": {}, "http://old.example/v2/": {},
            "host.example:5000": {}, "empty.example": {{}}, "un.example": {{"username":"u","password":"p"}},
            "id.example": {{"auth":"eDp5","identitytoken":"refresh"}},
            "reg.example": {{"registrytoken":"access"}}
        }}, "other": 1}}"#,
        entry("host"),
        entry("team"),
        entry("app"),
        entry("docker"),
        entry("old"),
        entry("port"),
    );
    let (_dir, sources) = written(&text);
    for (registry, repository, want) in [
        ("quay.io", "x/y", Some(password("host", "p:w"))),
        ("quay.io", "team/other", Some(password("team", "p:w"))),
        ("quay.io", "team/app", Some(password("app", "p:w"))),
        ("quay.io", "teams/app", Some(password("host", "p:w"))),
        ("docker.io", "library/a", Some(password("docker", "p:w"))),
        ("old.example", "a", Some(password("old", "p:w"))),
        ("host.example:5000", "a", Some(password("port", "p:w"))),
        ("host.example", "a", None),
        ("empty.example", "a", None),
        ("un.example", "a", Some(password("u", "p"))),
        (
            "id.example",
            "a",
            Some(Credentials::Identity("refresh".to_owned())),
        ),
        (
            "reg.example",
            "a",
            Some(Credentials::Registry("access".to_owned())),
        ),
    ] {
        assert_eq!(
            sources.find(registry, repository).unwrap(),
            want,
            "{registry}/{repository}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_without_its_secrets() {
    for text in [
        "{\"auths\": {\"quay.io\": {\"auth\": \"c2VjcmV0\"}}}",
        "{\"auths\": {\"quay.io\": {\"auth\": \"secret!\"}}}",
        "{\"auths\": {\"quay.io\": {\"auth\": [\"secret\"]}}}",
        "secret",
    ] {
        let (_dir, sources) = written(text);
        let error = sources.find("quay.io", "a").unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        assert!(
            !error.contains("secret") && !error.contains("c2VjcmV0"),
            "{error}"
        );
    }
    let (_dir, sources) = written("");
    assert_eq!(sources.find("quay.io", "a").unwrap(), None);
    assert!(
        Sources::file("/nowhere/auth.json")
            .find("quay.io", "a")
            .is_err()
    );
}

#[test]
fn the_first_file_that_has_an_entry_decides() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let auths =
        |registry: &str, user: &str| format!(r#"{{"auths":{{"{registry}":{}}}}}"#, entry(user));
    place("run/containers/auth.json", &auths("a.example", "run"));
    place(
        "home/.config/containers/auth.json",
        &auths("b.example", "config"),
    );
    place("home/.docker/config.json", &auths("a.example", "docker"));
    place(
        "home/.dockercfg",
        &format!(r#"{{"d.example":{}}}"#, entry("old")),
    );
    let var = |name: &str| match name {
        "HOME" => Some(dir.path().join("home")),
        "XDG_RUNTIME_DIR" => Some(dir.path().join("run")),
        _ => None,
    };
    let sources = Sources::usual_in(&var, Some(0));
    for (registry, user) in [
        ("a.example", "run"),
        ("b.example", "config"),
        ("d.example", "old"),
    ] {
        assert_eq!(
            sources.find(registry, "x").unwrap(),
            Some(password(user, "p:w"))
        );
    }
    assert_eq!(sources.find("c.example", "x").unwrap(), None);

    let named = |name: &str| match name {
        "REGISTRY_AUTH_FILE" => Some(dir.path().join("home/.docker/config.json")),
        name => var(name),
    };
    let sources = Sources::usual_in(&named, Some(0));
    assert_eq!(
        sources.find("a.example", "x").unwrap(),
        Some(password("docker", "p:w"))
    );
    assert_eq!(sources.find("b.example", "x").unwrap(), None);
}
