//! The runtime's config.json: the usual confinement of a container, filled in.
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plyfs_sys::process;
use serde_json::{Value, json};

/// Which network the program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// That of this machine
    Host,
    /// None but its own loopback
    None,
}

/// Ids of the program.
#[derive(Debug, Clone, Default)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    /// Further groups.
    pub further: Vec<u32>,
}

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub user: User,
    pub volumes: Vec<String>,
    pub network: Network,
    pub hostname: String,
    pub tty: bool,
    pub read_only: bool,
    pub root: PathBuf,
}

/// What Docker and Podman give a container's root.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Files of this machine that its network needs.
const NETWORK_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The whole document.
pub(super) fn config(wanted: &Wanted) -> anyhow::Result<Value> {
    let own_network = wanted.network == Network::None;
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if own_network {
        namespaces.push("network");
    }
    let is_user = process::euid() != 0;
    if is_user {
        namespaces.push("user");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|n| json!({ "type": n })).collect();
    let is_root = wanted.user.uid == 0;
    let held: &[&str] = if is_root { &CAPABILITIES } else { &[] };
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    });
    if is_user {
        // Root inside is who runs this; nobody else exists there.
        let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        linux["uidMappings"] = map(process::euid());
        linux["gidMappings"] = map(process::egid());
    } else if process::in_initial_user_ns() {
        linux["resources"] = json!({ "devices": devices() });
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": wanted.tty,
            "user": {
                "uid": wanted.user.uid,
                "gid": wanted.user.gid,
                "additionalGids": wanted.user.further,
            },
            "args": wanted.args,
            "env": wanted.env,
            "cwd": wanted.cwd.as_deref().unwrap_or("/"),
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": held,
                "permitted": held,
            },
            "noNewPrivileges": false,
        },
        "root": { "path": wanted.root, "readonly": wanted.read_only },
        "hostname": wanted.hostname,
        "mounts": mounts(wanted)?,
        "linux": linux,
    }))
}

/// Device nodes that a program may open; all others of an image are only names.
fn devices() -> Vec<Value> {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // null, zero, full, tty, random, urandom; ptmx and what it makes.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (5, 0), (1, 8), (1, 9), (5, 2)] {
        rules.push(json!({
            "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm",
        }));
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    // Making a node is no access to it.
    rules.push(json!({ "allow": true, "type": "c", "access": "m" }));
    rules.push(json!({ "allow": true, "type": "b", "access": "m" }));
    rules
}

fn mount(place: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": place, "type": kind, "source": source, "options": options })
}

fn mounts(wanted: &Wanted) -> anyhow::Result<Vec<Value>> {
    let usual = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&usual[..], more].concat();
    let mut all = vec![
        mount("/proc", "proc", "proc", &usual),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &with(&["mode=1777", "size=65536k"]),
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &usual),
    ];
    let sysfs = match wanted.network {
        // sysfs belongs to a network namespace and can only be mounted by its owner.
        Network::Host if process::euid() != 0 || !process::in_initial_user_ns() => {
            mount("/sys", "bind", "/sys", &with(&["rbind", "ro"]))
        }
        _ => mount("/sys", "sysfs", "sysfs", &with(&["ro"])),
    };
    all.push(sysfs);
    if wanted.network == Network::Host {
        let files = NETWORK_FILES.iter().filter(|f| Path::new(f).is_file());
        all.extend(files.map(|f| mount(f, "bind", f, &["bind", "ro", "nosuid", "nodev"])));
    }
    for volume in &wanted.volumes {
        all.push(bind(volume)?);
    }
    Ok(all)
}

/// `HOST:INSIDE[:ro]` as a mount.
fn bind(volume: &str) -> anyhow::Result<Value> {
    let parts: Vec<&str> = volume.split(':').collect();
    let (host, inside, mode) = match parts.as_slice() {
        [host, inside] => (host, inside, "rw"),
        [host, inside, mode @ ("ro" | "rw")] => (host, inside, *mode),
        _ => bail!("{volume:?} is no volume: write HOST:INSIDE or HOST:INSIDE:ro"),
    };
    if !inside.starts_with('/') {
        bail!("{volume:?}: the place inside must begin with /");
    }
    let host = std::fs::canonicalize(host).with_context(|| format!("volume {host:?}"))?;
    let host = host
        .to_str()
        .with_context(|| format!("volume {host:?} is no text"))?;
    Ok(mount(inside, "bind", host, &["rbind", "rprivate", mode]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        assert_eq!(bind("/:/host:ro").unwrap()["options"][2], "ro");
        for bad in ["/", "/:host", "/:/a:x", "/does/not/exist:/a"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
    }
}
