//! Pull and push by the command line, against docker-registry, with skopeo and umoci as judges.
use std::os::unix::fs::PermissionsExt;

use plyfs_testkit::registry::{RealRegistry, RegistrySetup};
use plyfs_testkit::{Rules, need, need_fuse, snapshot};

use crate::image::killed::Killer;
use crate::place::Place;
use crate::support::same;

/// How often a pull is killed.
const KILLS: u32 = 70;
/// After so many kills every byte is checked.
const CHECK_EVERY: u32 = 25;
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

#[test]
fn an_image_goes_from_a_registry_to_a_mount_and_back_unchanged() {
    need_fuse!();
    need!("docker-registry", "umoci", "skopeo", "setcap", "setfattr");
    let place = Place::new();
    place.layout();
    let registry = RealRegistry::start(&RegistrySetup::default());
    let host = registry.host();
    place.sh(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:layout:1 docker://{host}/team/app:1"
    ));
    let name = format!("{host}/team/app:1");
    let pull = ["image", "pull", "--tls-verify=false", "--json", &name];
    let told: serde_json::Value = serde_json::from_str(&place.plyfs(&pull)).unwrap();
    assert_eq!(told["name"], name.as_str());
    assert_ne!(told["fetched"], 0);
    let fetched = registry.count(&["GET", "/blobs/"]);
    let told: serde_json::Value = serde_json::from_str(&place.plyfs(&pull)).unwrap();
    assert_eq!(told["fetched"], 0);
    assert_eq!(
        registry.count(&["GET", "/blobs/"]),
        fetched,
        "something came twice"
    );

    // What is mounted is what umoci unpacks of the same image.
    place.sh("umoci unpack --image layout:1 judge; mkdir m");
    place.plyfs(&["mount", &name, "--read-only", "m"]);
    let seen = snapshot(&place.at("m"));
    place.plyfs(&["umount", "m"]);
    let judge = snapshot(&place.at("judge/rootfs"));
    same("umoci and plyfs", &judge, &seen, &Rules::default());

    // Back to the registry: mounted there, nothing sent but the config; elsewhere all is sent.
    let copy = format!("{host}/copy:2");
    let sent = registry.count(&["PATCH"]);
    let args = [
        "image",
        "push",
        "--tls-verify=false",
        "--json",
        &name,
        &copy,
    ];
    let told: serde_json::Value = serde_json::from_str(&place.plyfs(&args)).unwrap();
    assert_ne!(told["mounted"], 0, "{told}");
    assert_eq!(told["sent"], 1, "{told}");
    assert_eq!(registry.count(&["PATCH"]), sent, "a layer was sent");
    let other = RealRegistry::start(&RegistrySetup::default());
    let far = format!("{}/far:3", other.host());
    place.plyfs(&["image", "push", "--tls-verify=false", &name, &far]);
    let raw = |name: &str| {
        place.sh(&format!(
            "skopeo inspect --raw --tls-verify=false docker://{name}"
        ))
    };
    assert_eq!(raw(&copy), raw(&name));
    assert_eq!(raw(&far), raw(&name));
    place.sh(&format!(
        "skopeo copy -q --src-tls-verify=false docker://{far} oci:back:1\n\
         umoci unpack --image back:1 returned"
    ));
    let returned = snapshot(&place.at("returned/rootfs"));
    same("what came back", &judge, &returned, &Rules::default());

    // What a container changes goes the same way: committed, pushed, judged by umoci.
    place.plyfs(&["container", "create", &name, "--name", "c"]);
    let dir = place.plyfs(&["container", "mount", "c"]);
    place.sh(&format!(
        "cd '{dir}'; rm -r data gone/new; echo three >etc/conf; mkdir -p new/dir; ln etc/conf new/link"
    ));
    let changed = snapshot(std::path::Path::new(&dir));
    place.plyfs(&["container", "umount", "c"]);
    place.plyfs(&["container", "commit", "c", "--tag", "app:2"]);
    let next = format!("{host}/team/app:2");
    let args = [
        "image",
        "push",
        "--tls-verify=false",
        "--json",
        "app:2",
        &next,
    ];
    let told: serde_json::Value = serde_json::from_str(&place.plyfs(&args)).unwrap();
    assert_eq!(told["sent"], 2, "the new layer and the config: {told}");
    place.sh(&format!(
        "skopeo copy -q --src-tls-verify=false docker://{next} oci:next:2\n\
         umoci unpack --image next:2 committed"
    ));
    let committed = snapshot(&place.at("committed/rootfs"));
    same(
        "a commit on its way",
        &changed,
        &committed,
        &Rules::default(),
    );
    let verify = place.output(&["image", "verify"]);
    let said = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert!(verify.status.success(), "{said}");
}

#[test]
fn credentials_come_from_files_and_helpers() {
    need_fuse!();
    need!("docker-registry");
    let place = Place::new();
    place.sh("mkdir r; echo x >r/f; tar -C r -cf r.tar .");
    let setup = RegistrySetup {
        htpasswd: Some(HTPASSWD.to_owned()),
        tls: None,
    };
    let registry = RealRegistry::start(&setup);
    let host = registry.host();
    let name = format!("{host}/app:1");
    place.plyfs(&["image", "import", "r.tar", "--tag", &name]);
    let push = ["image", "push", "--tls-verify=false", "--quiet", &name];
    let with = |vars: &[(&str, &str)]| {
        let mut command = place.command(&push);
        command.env_clear().env("HOME", place.dir.path());
        command.envs(vars.iter().copied()).output().unwrap()
    };
    let denied = with(&[]);
    let said = String::from_utf8_lossy(&denied.stderr);
    assert_eq!(denied.status.code(), Some(1));
    for part in [
        "denies access (401",
        "no credentials for",
        ".docker/config.json",
        "podman login",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let path = |name: &str| place.at(name).to_str().unwrap().to_owned();
    std::fs::write(
        place.at("auth.json"),
        format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#),
    )
    .unwrap();
    let done = with(&[("REGISTRY_AUTH_FILE", &path("auth.json"))]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );

    // A helper that notes what it was asked.
    std::fs::create_dir_all(place.at("docker")).unwrap();
    std::fs::create_dir_all(place.at("bin")).unwrap();
    let helper = place.at("bin/docker-credential-mine");
    std::fs::write(
        &helper,
        "#!/bin/sh\necho \"$1 $(cat)\" >>\"$HOME/asked\"\n\
         echo '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}'\n",
    )
    .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(r#"{{"credHelpers":{{"{host}":"mine"}}}}"#);
    std::fs::write(place.at("docker/config.json"), config).unwrap();
    let search = format!("{}:/usr/bin:/bin", path("bin"));
    let done = with(&[("DOCKER_CONFIG", &path("docker")), ("PATH", &search)]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(place.sh("cat asked"), format!("get {host}\n"));
}

#[test]
fn a_killed_pull_never_spoils_the_store() {
    need_fuse!();
    need!("docker-registry", "skopeo");
    let place = Place::new();
    let registry = RealRegistry::start(&RegistrySetup::default());
    let name = format!("{}/app:1", registry.host());
    // Three layers that are one another's lowers, by commits.
    place.sh("mkdir r; for f in $(seq 40); do head -c $((f*2000)) /dev/urandom >r/$f; done; tar -C r -cf r.tar .");
    place.plyfs(&["image", "import", "r.tar", "--tag", "one"]);
    for (from, to) in [("one", "two"), ("two", "three")] {
        place.plyfs(&["container", "create", from, "--name", to]);
        place.sh(&format!(
            "cd store/containers/{to}/upper; for f in $(seq 30); do head -c 30000 /dev/urandom >{to}$f; done"
        ));
        place.plyfs(&["container", "commit", to, "--tag", to]);
        place.plyfs(&["container", "rm", to]);
    }
    place.plyfs(&["image", "push", "--tls-verify=false", "three", &name]);
    place.sh("rm -rf store");

    let pull = ["image", "pull", "--tls-verify=false", &name];
    let mut killer = Killer::new(0x2545_f491);
    let (mut killed, mut round) = (0, 0);
    while killed < KILLS {
        round += 1;
        assert!(
            round < 20 * KILLS,
            "pulls are quicker than their killer: {killed} of {round}"
        );
        if !killer.kills(&place, &pull) {
            // Whole: the next one begins from nothing.
            place.plyfs(&["image", "rm", &name]);
            place.plyfs(&["image", "gc", "--untagged"]);
            continue;
        }
        killed += 1;
        if killed % 7 == 0 {
            // The next ones begin from nothing, or with what gc has left.
            let forget = place.output(&["image", "rm", &name]);
            assert!(matches!(forget.status.code(), Some(0 | 1)));
            place.plyfs(&["image", "gc", "--untagged"]);
        }
        if killed % CHECK_EVERY == 0 {
            let said = place.plyfs(&["image", "verify"]);
            assert_eq!(said, "everything is as it was", "after {killed} kills");
        }
    }
    place.plyfs(&pull);
    assert_eq!(place.plyfs(&["image", "verify"]), "everything is as it was");
    place.plyfs(&["image", "gc"]);
    assert_eq!(place.sh("ls store/staging"), "");
}
