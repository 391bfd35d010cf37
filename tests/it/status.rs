//! What a mount tells about itself: status, ls, the control socket, signals and the log.
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{Stack, bin, mount_plyfs, mounted_at, need_fuse, need_root, wait_until};
use serde_json::Value;

use crate::support::{as_user, read};

fn plyfs(words: &[&str]) -> Output {
    Command::new(bin()).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(words: &[&str]) -> String {
    let out = plyfs(words);
    assert!(out.status.success(), "{words:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn json(words: &[&str]) -> Value {
    serde_json::from_str(&ok(words)).unwrap()
}

/// Mounts in the background, as operators do; the daemon is told by its state file.
fn daemon(stack: &Stack, options: &str) -> u32 {
    let options = stack.options(options).into_string().unwrap();
    ok(&[
        "-o",
        options.trim_end_matches(','),
        stack.mnt().to_str().unwrap(),
    ]);
    let state: Value = serde_json::from_str(&read(state_file(&stack.mnt(), "json"))).unwrap();
    u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
}

/// The file that the daemon of the mount keeps, by its extension.
fn state_file(mnt: &Path, extension: &str) -> PathBuf {
    let minor = nix::sys::stat::minor(std::fs::metadata(mnt).unwrap().dev());
    PathBuf::from(format!("/run/plyfs/{minor}.{extension}"))
}

/// The row of `plyfs ls` about the mount.
fn listed(mnt: &Path) -> Option<Value> {
    let all = json(&["ls", "--json"]);
    let mnt = mnt.to_str().unwrap();
    all.as_array()
        .unwrap()
        .iter()
        .find(|m| m["mountpoint"] == mnt)
        .cloned()
}

#[test]
fn a_mount_says_how_it_is() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1\nf d/x = 2", "f b = 3"]);
    let mnt = stack.mnt();
    let path = mnt.to_str().unwrap();
    let pid = daemon(&stack, "timeout=60,metacopy=on,noexec");
    std::fs::write(mnt.join("d/x"), "22").unwrap();
    assert_eq!(read(mnt.join("b")), "3");
    std::fs::OpenOptions::new()
        .append(true)
        .open(mnt.join("b"))
        .unwrap()
        .write_all(b"4")
        .unwrap();
    std::fs::File::open(mnt.join("b"))
        .unwrap()
        .sync_all()
        .unwrap();

    let s = json(&["status", path, "--json"]);
    assert_eq!(s["pid"], pid);
    assert_eq!(s["mountpoint"], path);
    assert_eq!(s["lowers"].as_array().unwrap().len(), 2);
    assert_eq!(s["upper"], stack.upper().to_str().unwrap());
    let option = |name: &str| {
        let all = s["options"].as_array().unwrap();
        let found = all.iter().find(|o| o["name"] == name).unwrap();
        (
            found["value"].as_str().unwrap().to_owned(),
            found["why"].as_str().unwrap().to_owned(),
        )
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(option("timeout"), pair("60", "given"));
    assert_eq!(option("metacopy"), pair("on", "given"));
    assert_eq!(option("redirect_dir"), pair("follow", "default"));
    assert_eq!(option("xattrs").1, "probed");
    assert!(option("flags").0.contains("noexec"), "{s}");
    let count = |kind: &str| {
        let all = s["requests"].as_array().unwrap();
        let found = all.iter().find(|r| r["kind"] == kind);
        found.map_or(0, |r| r["count"].as_u64().unwrap())
    };
    assert!(count("lookup") >= 2 && count("write") >= 1, "{s}");
    assert!(s["copy_ups"]["files"].as_u64().unwrap() >= 1, "{s}");
    assert!(s["inodes"].as_u64().unwrap() >= 3, "{s}");
    assert!(s["process"]["rss"].as_u64().unwrap() > 100_000, "{s}");

    let people = ok(&["status", path]);
    for word in [
        path,
        "upper",
        "timeout",
        "given",
        "lookup",
        "p99",
        "open files",
        "copy-ups",
    ] {
        assert!(people.contains(word), "no {word:?} in:\n{people}");
    }
    let row = listed(&mnt).unwrap();
    assert_eq!(
        (&row["state"], &row["pid"]),
        (&Value::from("ok"), &Value::from(pid))
    );
    let files = ["json", "sock"].map(|e| state_file(&mnt, e));
    let socket = std::fs::metadata(&files[1]).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o777, 0o600);
    ok(&["umount", path]);
    // The number may be another mount's by now, and the files its daemon's.
    let left = std::fs::read(&files[0]).ok();
    let left = left.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    match left {
        Some(state) => assert_ne!(state["pid"], pid),
        None => assert!(!files[1].exists() || files[0].exists(), "{files:?}"),
    }
    assert_eq!(listed(&mnt), None);
}

#[test]
fn prometheus_can_read_it() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    let m = mount_plyfs(&stack, "");
    assert_eq!(read(m.join("a")), "1");
    let out = ok(&["status", m.path().to_str().unwrap(), "--prometheus"]);
    let mut families = Vec::new();
    for line in out.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.push(rest.split(' ').next().unwrap().to_owned());
        }
        if line.starts_with('#') {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        value
            .parse::<f64>()
            .unwrap_or_else(|e| panic!("{line}: {e}"));
        let (name, labels) = sample.split_once('{').unwrap();
        assert!(
            labels.starts_with("mountpoint=\"") && labels.ends_with("\"}"),
            "{line}"
        );
        let family = families.last().unwrap();
        assert!(
            name.starts_with(family.as_str()),
            "{line} is not of {family}"
        );
    }
    let bucket = "plyfs_request_seconds_bucket{";
    let counts: Vec<f64> = out
        .lines()
        .filter(|l| l.starts_with(bucket) && l.contains("kind=\"lookup\""))
        .map(|l| l.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(!counts.is_empty() && counts.is_sorted(), "{out}");
    m.unmount();
}

#[test]
fn a_dead_daemon_is_told_from_a_live_one() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let mnt = stack.mnt();
    let path = mnt.to_str().unwrap().to_owned();
    let pid = Pid::from_raw(daemon(&stack, "norestart").cast_signed());
    // It lives and does not answer. A thread that is running stops a moment later.
    kill(pid, Signal::SIGSTOP).unwrap();
    let silent = (0..50).any(|_| listed(&mnt).is_some_and(|m| m["state"] == "silent"));
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(silent);
    assert_eq!(listed(&mnt).unwrap()["state"], "ok");
    // It is dead, and the mount is still in the tree.
    kill(pid, Signal::SIGKILL).unwrap();
    wait_until("the daemon is seen to be dead", || {
        listed(&mnt).is_some_and(|m| m["state"] == "dead")
    });
    let out = plyfs(&["status", &path]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("daemon is dead"),
        "{}",
        text(&out.stderr)
    );
    ok(&["umount", "--lazy", &path]);
    assert_eq!(mounted_at(&mnt), None);
    assert_eq!(listed(&mnt), None);
    // Every mount cleans up what the dead have left. No file system ever gets this number.
    let left = ["json", "sock"].map(|e| PathBuf::from(format!("/run/plyfs/1048575.{e}")));
    left.iter().for_each(|f| std::fs::write(f, "{}").unwrap());
    daemon(&stack, "");
    assert!(left.iter().all(|f| !f.exists()));
    ok(&["umount", &path]);
}

#[test]
fn only_the_owner_and_root_may_ask() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    let mnt = stack.mnt();
    daemon(&stack, "");
    let base = tempfile::tempdir().unwrap();
    // Users may not read the build directory.
    let copy = base.path().join("plyfs");
    std::fs::copy(bin(), &copy).unwrap();
    std::fs::set_permissions(
        base.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let (done, said) = as_user(base.path(), &format!("./plyfs status {}", mnt.display()));
    assert!(!done && said.contains("only its owner and root"), "{said}");
    let (done, said) = as_user(base.path(), "./plyfs ls");
    let row = said.lines().find(|l| l.starts_with(mnt.to_str().unwrap()));
    assert!(done && row.is_some_and(|l| l.contains("private")), "{said}");
    ok(&["umount", mnt.to_str().unwrap()]);
}

#[test]
fn nonsense_gets_an_answer_that_says_so() {
    need_fuse!();
    need_root!();
    let stack = Stack::planted(&["f a = 1"]);
    daemon(&stack, "");
    let socket = state_file(&stack.mnt(), "sock");
    for (question, want) in [
        ("{\"version\":1,\"command\":\"frob\"}\n", "unknown command"),
        ("{\"version\":99,\"command\":\"status\"}\n", "not spoken"),
        ("hello\n", "not understood"),
        ("\n", "not understood"),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(
            answer["error"].as_str().unwrap().contains(want),
            "{question:?}: {line}"
        );
        assert_eq!(answer["version"], 1);
    }
    // Who says nothing and goes does no harm either.
    drop(UnixStream::connect(&socket).unwrap());
    assert_eq!(listed(&stack.mnt()).unwrap()["state"], "ok");
    ok(&["umount", stack.mnt().to_str().unwrap()]);
}

#[test]
fn a_signal_asks_and_slow_requests_are_named() {
    need_fuse!();
    let stack = Stack::planted(&["f d/file = 1"]);
    let options = stack.options("slow=0.000001").into_string().unwrap();
    let mut child = Command::new(bin())
        .args(["-f", "-o", &options, stack.mnt().to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the mount is there", || mounted_at(&stack.mnt()).is_some());
    assert_eq!(read(stack.mnt().join("d/file")), "1");
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGUSR1).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut said: Vec<String> = Vec::new();
    // fuse-overlayfs answers with the first two; ours go on with the requests.
    for want in ["# INODES: ", "# NODES: ", "# REQUESTS lookup: "] {
        while said.last().is_none_or(|l| !l.starts_with(want)) {
            said.push(lines.next().expect("the daemon ended before it answered"));
        }
    }
    kill(pid, Signal::SIGTERM).unwrap();
    said.extend(lines);
    assert!(child.wait().unwrap().success(), "{said:?}");
    let named = |l: &String| l.contains("slow lookup") && l.contains("path=\"/d\"");
    assert!(said.iter().any(named), "{said:#?}");
}

#[test]
fn the_log_goes_where_it_is_sent() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    let log = stack.dir().join("log");
    let mnt = stack.mnt();
    let lower = &stack.lowers()[0];
    let words = [
        "--log",
        "info",
        "--log-file",
        log.to_str().unwrap(),
        "mount",
        "-o",
        "slow=0.000001",
    ];
    let rest = ["--lower", lower.to_str().unwrap(), mnt.to_str().unwrap()];
    ok(&[&words[..], &rest[..]].concat());
    assert_eq!(read(mnt.join("a")), "1");
    ok(&["umount", mnt.to_str().unwrap()]);
    let said = read(&log);
    assert!(
        said.contains("slow lookup") || said.contains("slow getattr"),
        "{said}"
    );
    let out = plyfs(&["--log", "a=b=c", "ls"]);
    assert_eq!(out.status.code(), Some(2));
}

/// A field of an entry as journald gets it: `NAME`, a newline, the length in eight bytes, the value.
fn journal_field(entry: &[u8], name: &str) -> Option<String> {
    let head = [name.as_bytes(), b"\n"].concat();
    let at = entry.windows(head.len()).position(|w| w == head)? + head.len();
    let len = entry.get(at..at + 8)?.try_into().ok()?;
    let len = usize::try_from(u64::from_le_bytes(len)).ok()?;
    entry.get(at + 8..at + 8 + len).map(text)
}

/// journald, as far as a daemon sees it: a socket that takes datagrams.
#[test]
fn a_daemon_logs_to_the_journal() {
    need_fuse!();
    let stack = Stack::planted(&["f a = 1"]);
    // In this test's own mount namespace.
    nix::mount::mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("mode=755"),
    )
    .unwrap();
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    journal
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    let options = stack.options("slow=0.000001").into_string().unwrap();
    let mnt = stack.mnt();
    ok(&["-o", &options, mnt.to_str().unwrap()]);
    assert_eq!(read(mnt.join("a")), "1");
    let mut buffer = vec![0; 64 << 10];
    let entry = loop {
        let len = journal.recv(&mut buffer).expect("no entry came");
        let entry = buffer[..len].to_vec();
        if journal_field(&entry, "MESSAGE").is_some_and(|m| m.starts_with("slow ")) {
            break entry;
        }
    };
    let field = |name: &str| journal_field(&entry, name);
    assert_eq!(field("SYSLOG_IDENTIFIER").as_deref(), Some("plyfs"));
    assert_eq!(field("PRIORITY").as_deref(), Some("4"));
    ok(&["umount", mnt.to_str().unwrap()]);
}
