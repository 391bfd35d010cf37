//! Images and containers: what umoci, skopeo and crun make of the same content is the judge.
use std::path::Path;

use plyfs_testkit::{Rules, bin, need, need_fuse, snapshot};

use crate::place::Place;
use crate::support::{run, same};

pub(crate) mod killed;

#[test]
fn the_merged_view_is_what_umoci_unpacks() {
    need_fuse!();
    need!("umoci", "skopeo", "setcap", "setfattr");
    let place = Place::new();
    place.layout();
    place.plyfs(&["image", "import", "layout", "--tag", "app:1"]);
    place.sh("mkdir mnt; umoci unpack --image layout:1 want");
    place.plyfs(&["mount", "app:1", "mnt"]);
    let got = snapshot(&place.at("mnt"));
    place.plyfs(&["umount", "mnt"]);
    let want = snapshot(&place.at("want/rootfs"));
    // umoci keeps a mark of its own; what it sets on the root is its own time.
    same("umoci and plyfs", &want, &got, &umoci_rules());
    assert_eq!(place.plyfs(&["image", "verify"]), "everything is as it was");
}

/// umoci makes directories as it goes, at the time it does.
fn umoci_rules() -> Rules {
    Rules {
        written_since: Some(crate::support::written_in_this_test() - 60_000_000_000),
        skip_xattrs: vec!["user.rootlesscontainers".into()],
        ..Rules::default()
    }
}

#[test]
fn what_goes_out_has_the_digests_it_came_with() {
    need_fuse!();
    need!("umoci", "skopeo", "setcap", "setfattr");
    let place = Place::new();
    place.layout();
    let id = place.plyfs(&["image", "import", "layout", "--tag", "app:1"]);
    place.plyfs(&["image", "export", "app:1", "out"]);
    place.plyfs(&["image", "export", "app:1", "out.tar"]);
    place.plyfs(&["image", "export", "app:1", "again.tar"]);
    place.plyfs(&[
        "image",
        "export",
        "app:1",
        "docker.tar",
        "--format",
        "docker",
    ]);
    place.sh("cmp out.tar again.tar");
    let digest =
        |from: &str| place.sh(&format!("skopeo inspect --format '{{{{.Digest}}}}' {from}"));
    let want = digest("oci:layout:1");
    assert_eq!(digest("oci:out:1"), want);
    assert_eq!(digest("oci-archive:out.tar:1"), want);
    place.sh(
        "skopeo copy -q oci:out:1 oci:copied:1; umoci unpack --image copied:1 unpacked\n\
         skopeo copy -q docker-archive:docker.tar oci:from-docker:1",
    );
    for (from, store) in [("out.tar", "s1"), ("docker.tar", "s2"), ("out", "s3")] {
        let args = ["--root", store, "image", "import", from];
        let same = run(place.dir.path(), bin().to_str().unwrap(), &args);
        assert!(same.contains(&id), "{from}: {same}");
        let tags = run(
            place.dir.path(),
            bin().to_str().unwrap(),
            &["--root", store, "image", "ls"],
        );
        assert!(tags.contains("app:1"), "{from}: {tags}");
    }
}

#[test]
fn a_container_lives_and_goes() {
    need_fuse!();
    need!("umoci", "setcap", "setfattr");
    let place = Place::new();
    place.layout();
    place.plyfs(&["image", "import", "layout", "--tag", "app:1"]);
    for name in ["one", "two"] {
        place.plyfs(&["container", "create", "app:1", "--name", name]);
    }
    let one = place.plyfs(&["container", "mount", "one"]);
    let two = place.plyfs(&["container", "mount", "two"]);
    run(
        Path::new(&one),
        "sh",
        &[
            "-euc",
            "rm etc/conf; echo n >new; ln new hard; mkdir d; rm -r data; mkdir data; mv usr usr2",
        ],
    );
    assert!(
        Path::new(&two).join("etc/conf").exists(),
        "containers do not see each other"
    );
    let diff = place.plyfs(&["container", "diff", "one"]);
    for line in [
        "D /etc/conf",
        "A /new",
        "D /data/only",
        "D /usr",
        "A /usr2/conf",
    ] {
        assert!(diff.lines().any(|l| l == line), "{line} is not in\n{diff}");
    }
    place.plyfs(&["container", "commit", "one", "--tag", "app:2"]);
    let view = snapshot(Path::new(&one));
    place.plyfs(&["container", "export", "one", "flat.tar"]);
    assert!(
        !place.output(&["container", "rm", "one"]).status.success(),
        "it is mounted"
    );
    place.plyfs(&["container", "umount", "one"]);
    place.plyfs(&["container", "rm", "--force", "one", "two"]);

    place.sh("mkdir flat mnt; tar --xattrs --xattrs-include=* -xpf flat.tar -C flat");
    same(
        "export and the view",
        &view,
        &snapshot(&place.at("flat")),
        &Rules::default(),
    );
    place.plyfs(&["mount", "app:2", "mnt"]);
    let committed = snapshot(&place.at("mnt"));
    place.plyfs(&["umount", "mnt"]);
    same(
        "the commit and the view",
        &view,
        &committed,
        &Rules::default(),
    );
    place.plyfs(&["image", "export", "app:2", "out"]);
    place.sh("umoci unpack --image out:2 want");
    same(
        "the commit by umoci",
        &view,
        &snapshot(&place.at("want/rootfs")),
        &umoci_rules(),
    );

    assert_eq!(place.plyfs(&["image", "verify"]), "everything is as it was");
    place.plyfs(&["image", "rm", "app:1"]);
    place.plyfs(&["image", "rm", "app:2"]);
    let left =
        place.sh("find store/layers store/blobs store/containers store/staging -type f -o -type c");
    assert_eq!(left, "", "nothing stays");
}

#[test]
fn the_same_changes_have_the_same_digests() {
    need_fuse!();
    let ids = [Place::new(), Place::new()].map(|place| {
        place.sh("mkdir rootfs; echo 1 >rootfs/a; tar -C rootfs -cf root.tar --mtime @1 .");
        place.plyfs(&["image", "import", "root.tar", "--tag", "base"]);
        place.plyfs(&["container", "create", "base", "--name", "c"]);
        place.sh("cd store/containers/c/upper; echo 2 >b; touch -d @5 b .");
        let mut commit = place.command(&["container", "commit", "c"]);
        let done = commit.env("SOURCE_DATE_EPOCH", "7").output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap()
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn an_ephemeral_mount_keeps_its_layers_and_leaves_nothing() {
    need_fuse!();
    let place = Place::new();
    place.sh("mkdir rootfs mnt; echo 1 >rootfs/a; tar -C rootfs -c . | gzip >root.tgz");
    place.plyfs(&["image", "import", "root.tgz", "--tag", "base"]);
    place.plyfs(&["mount", "base", "mnt", "--ephemeral"]);
    place.sh("echo 2 >mnt/b; rm mnt/a");
    place.plyfs(&["image", "rm", "base"]);
    place.plyfs(&["image", "gc"]);
    assert_eq!(place.sh("cat mnt/b; echo 3 >mnt/c; cat mnt/c"), "2\n3\n");
    place.plyfs(&["umount", "mnt"]);
    place.plyfs(&["image", "gc"]);
    assert_eq!(place.sh("find store/uses store/layers -mindepth 2"), "");
}

#[test]
fn programs_run_and_their_status_comes_back() {
    need_fuse!();
    need!("runc");
    let place = Place::new();
    place.sh(
        "mkdir -p r/bin r/etc r/proc r/sys r/dev r/work\n\
         for p in sh cat id rm; do b=$(readlink -f $(command -v $p)); cp $b r/bin/$p\n\
         ldd $b | grep -o '/[^ ]*' | while read l; do mkdir -p r$(dirname $l); cp -nL $l r$l; done; done\n\
         printf 'root:x:0:0::/:/bin/sh\\nweb:x:33:34::/:/bin/sh\\n' >r/etc/passwd; tar -C r -cf r.tar .",
    );
    place.plyfs(&["image", "import", "r.tar", "--tag", "base"]);
    let probe = place.output(&[
        "run",
        "--network",
        "none",
        "base",
        "--",
        "/bin/sh",
        "-c",
        "exit 0",
    ]);
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr).into_owned();
        plyfs_testkit::skip(
            module_path!(),
            &format!("containers by runc or crun: {said}"),
        );
        return;
    }
    let ran = place.output(&[
        "run",
        "--network",
        "none",
        "-u",
        "web",
        "-w",
        "/work",
        "-e",
        "X=y",
        "base",
        "--",
        "/bin/sh",
        "-c",
        "echo $X; pwd; id -u; id -g; exit 7",
    ]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "y\n/work\n33\n34\n");
    assert_eq!(ran.status.code(), Some(7));
    // A signal gets through to the program, which may end as it likes.
    let words = "trap 'exit 9' HUP; echo up; while :; do :; done";
    let mut running = place
        .command(&[
            "run",
            "--network",
            "none",
            "base",
            "--",
            "/bin/sh",
            "-c",
            words,
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = running.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert_eq!(line, "up\n");
    let pid = nix::unistd::Pid::from_raw(running.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(9));
    let no_terminal = place
        .command(&["run", "-it", "base", "--", "/bin/sh"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(no_terminal.status.code(), Some(125));
    let said = String::from_utf8_lossy(&no_terminal.stderr).into_owned();
    assert!(said.contains("needs a terminal"), "{said}");
    let kept = [
        "run",
        "--network",
        "none",
        "--keep",
        "--name",
        "k",
        "base",
        "--",
        "/bin/sh",
        "-c",
        "echo 1 >/new",
    ];
    assert!(place.output(&kept).status.success());
    assert_eq!(
        place
            .plyfs(&["container", "diff", "k"])
            .lines()
            .filter(|l| *l == "A /new")
            .count(),
        1
    );
    place.plyfs(&["container", "rm", "k"]);
    assert_eq!(place.plyfs(&["container", "ls", "--json"]), "[]");
    let status = |words: &[&str]| place.output(&[&["run"], words].concat()).status.code();
    assert_eq!(status(&["nothing", "--", "x"]), Some(125));
    let in_base = |program| status(&["--network", "none", "base", "--", program]);
    assert_eq!(in_base("/no/such"), Some(127));
    assert_eq!(in_base("no-such"), Some(127));
    assert_eq!(in_base("/etc"), Some(126));
    assert_eq!(
        status(&["base", "--", "/bin/sh", "-c", "exit 126"]),
        Some(126)
    );
}

#[test]
fn every_command_tells_programs_what_it_did() {
    need_fuse!();
    let place = Place::new();
    place.sh("mkdir r m; echo 1 >r/a; tar -C r -cf r.tar .");
    let told = |args: &[&str]| -> serde_json::Value {
        let text = place.plyfs(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    };
    let imported = told(&["image", "import", "r.tar", "--tag", "base"]);
    let id = &imported[0]["id"];
    assert_eq!(imported[0]["tags"][0], "base:latest");
    assert_eq!(told(&["image", "tag", "base", "other"])["image"], *id);
    let row = &told(&["image", "ls"])[0];
    assert_eq!((&row["id"], &row["shared"]), (id, &0.into()));
    assert_eq!(row["size"], row["unique"]);
    assert_eq!(told(&["image", "tree"])[0]["layers"][0]["images"], 1);
    assert_eq!(told(&["image", "inspect", "base"])["id"], *id);
    assert!(told(&["image", "history", "base"])[0]["size"].is_u64());
    let exported = told(&["image", "export", "base", "out.tar"]);
    assert_eq!(exported["manifest"], imported[0]["manifest"]);
    assert!(place.at("out.tar").exists());
    assert_eq!(told(&["image", "verify"]), serde_json::json!([]));
    assert_eq!(
        told(&["container", "create", "base", "--name", "c"])["name"],
        "c"
    );
    let at = told(&["container", "mount", "c"])["mountpoint"].clone();
    assert_eq!(told(&["container", "ls"])[0]["mountpoint"], at);
    place.sh("echo 2 >store/containers/c/merged/b");
    assert_eq!(told(&["container", "diff", "c"])[0]["path"], "/b");
    assert_eq!(told(&["container", "export", "c", "c.tar"])["bytes"], 4);
    // The options stand before the words of the program.
    let bundle = place.plyfs(&["bundle", "--json", "c", "bundle", "--", "/bin/true"]);
    let bundle: serde_json::Value = serde_json::from_str(&bundle).unwrap();
    assert_eq!(bundle["root"], at);
    assert_eq!(told(&["container", "umount", "c"])["mountpoint"], at);
    assert_eq!(
        told(&["container", "commit", "c", "--tag", "new"])["tag"],
        "new:latest"
    );
    assert_eq!(told(&["container", "rm", "c"])["removed"][0], "c");
    place.plyfs(&["mount", "base", "m", "--read-only"]);
    let m = place.at("m");
    assert_eq!(told(&["umount", "m"])["mountpoint"], m.to_str().unwrap());
    assert_eq!(
        told(&["image", "rm", "other"])["untagged"][0],
        "other:latest"
    );
    assert_eq!(told(&["image", "rm", "base"])["removed"][0], *id);
    assert_eq!(
        told(&["image", "gc", "--untagged"])["images"],
        serde_json::json!([])
    );
    // 1 for what failed, 2 for what means nothing; one line on stderr, nothing on stdout.
    for (args, code) in [
        (&["image", "inspect", "none", "--json"][..], 1),
        (&["container", "rm", "none"], 1),
        (&["umount", "m"], 1),
        (&["image", "export", "new", "-", "--json"], 1),
        (&["image", "inspect"], 2),
        (&["image", "frobnicate"], 2),
    ] {
        let done = place.output(args);
        assert_eq!(done.status.code(), Some(code), "{args:?}");
        assert!(
            done.stdout.is_empty() && !done.stderr.is_empty(),
            "{args:?}"
        );
    }
}

/// In a user namespace with a single id nobody but its root exists, and there are no devices.
#[test]
fn a_user_keeps_images_as_far_as_a_user_can() {
    need_fuse!();
    need!("unshare");
    let place = Place::new();
    place.sh(
        "mkdir -p r/d; echo 1 >r/d/a; echo 2 >r/b; chown 12:34 r/d/a; mknod r/null c 1 3\n\
         touch r/.wh.gone; chmod 4755 r/b; tar -C r -cf r.tar .; mkdir home m; chmod 711 .",
    );
    let script = "exec 2>&1\nplyfs() { \"$PLYFS\" \"$@\"; }\n\
        export HOME=$PWD/home; unset XDG_DATA_HOME\n\
        plyfs image import r.tar --tag base\n\
        plyfs image import r.tar --quiet\n\
        plyfs image verify\n\
        plyfs mount base m --ephemeral\n\
        cat m/d/a; stat -c '%a %u' m/b; test ! -e m/null; rm m/d/a; test ! -e m/d/a; plyfs umount m\n\
        plyfs container create base --name c; d=$(plyfs container mount c); rm \"$d/b\"; echo 3 >\"$d/e\"\n\
        plyfs container diff c; plyfs container umount c\n\
        plyfs container commit c --tag next; plyfs image export next next.tar; plyfs image verify\n\
        test -d home/.local/share/plyfs/layers";
    let run = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-euc", script])
        .env("PLYFS", plyfs_testkit::bin())
        .current_dir(place.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    for want in [
        "1 files are owned by you and not by whom the image says",
        "1 device nodes are left out",
        "everything is as it was",
        "4755 0",
        "D /b",
        "A /e",
    ] {
        assert_eq!(
            said.lines().filter(|l| l.starts_with(want)).count().min(1),
            1,
            "{want}: {said}"
        );
    }
    // What was committed there is whole elsewhere, with the owners that the image has.
    place.plyfs(&["image", "import", "next.tar", "--tag", "next"]);
    place.plyfs(&["mount", "next", "m", "--read-only"]);
    let seen = place.sh("stat -c %u:%g m/d/a; test -c m/null; test ! -e m/b; cat m/e");
    place.plyfs(&["umount", "m"]);
    assert_eq!(seen, "12:34\n3\n");
}

#[test]
fn many_layers_stack() {
    need_fuse!();
    let place = Place::new();
    // Every layer has a file of its own, changes a common one and deletes that of the one before.
    let script = |layers: usize| {
        format!(
            "mkdir -p l{layers}/blobs/sha256; cd l{layers}; ids=; descs=; put() {{ set -- $1 $(sha256sum <$1); mv $1 blobs/sha256/$2; d=$2; }}\n\
             for i in $(seq {layers}); do mkdir t; echo $i >t/f$i; echo $i >t/common\n\
             [ $i = 1 ] || touch t/.wh.f$((i-1)); tar -C t -cf x --mtime @9 .; rm -r t; s=$(stat -c %s x); put x\n\
             ids=\"$ids,\\\"sha256:$d\\\"\"; descs=\"$descs,{{\\\"mediaType\\\":\\\"application/vnd.oci.image.layer.v1.tar\\\",\\\"digest\\\":\\\"sha256:$d\\\",\\\"size\\\":$s}}\"; done\n\
             printf '{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[%s]}}}}' \"${{ids#,}}\" >c; s=$(stat -c %s c); put c; c=$d\n\
             printf '{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:%s\",\"size\":%s}},\"layers\":[%s]}}' $c $s \"${{descs#,}}\" >m; s=$(stat -c %s m); put m\n\
             printf '{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:%s\",\"size\":%s}}]}}' $d $s >index.json\n\
             echo '{{\"imageLayoutVersion\":\"1.0.0\"}}' >oci-layout"
        )
    };
    for layers in [127, 500] {
        place.sh(&script(layers));
        let (source, tag) = (format!("l{layers}"), format!("many:{layers}"));
        place.plyfs(&["image", "import", &source, "--tag", &tag, "--quiet"]);
        place.sh("mkdir -p mnt");
        place.plyfs(&["mount", &tag, "mnt"]);
        let seen = place.sh("ls mnt; cat mnt/common");
        place.plyfs(&["umount", "mnt"]);
        assert_eq!(seen, format!("common\nf{layers}\n{layers}\n"));
    }
}

#[test]
fn a_refusal_names_the_entry_and_leaves_nothing() {
    need_fuse!();
    let place = Place::new();
    place.sh("ln -s /etc evil; tar -cf bad.tar evil; rm evil; mkdir evil; touch evil/x; tar -rf bad.tar evil/x");
    let done = place.output(&["image", "import", "bad.tar", "--tag", "bad"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("evil/x"), "{said}");
    assert!(!Path::new("/etc/x").exists());
    place.sh("seq 1000 >no.tar; gzip <no.tar >no.tgz");
    for name in ["no.tar", "no.tgz"] {
        let done = place.output(&["image", "import", name]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            said.contains(name) && said.contains("no tar header"),
            "{said}"
        );
    }
    assert_eq!(
        place.sh("find store/layers store/blobs store/images store/staging -mindepth 1"),
        ""
    );
}
