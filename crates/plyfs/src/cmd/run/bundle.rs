//! An OCI bundle: the image's config and the operator's wishes as one config.json.
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail};
use plyfs_image::Store;
use plyfs_image::store::containers::Container;
use plyfs_sys::{beneath, io, open};
use serde::Deserialize;

use super::ProcessArgs;
use super::spec::{self, User, Wanted};
use crate::cmd::container::mounted_at;

/// Largest passwd or group file that is read.
const MAX_FILE: usize = 4 << 20;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a config says about the program.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// Writes `config.json` into `dir`, which is made if it is not there.
pub(super) fn write(
    store: &Store,
    container: &Container,
    args: &ProcessArgs,
    command: &[String],
    dir: &Path,
) -> anyhow::Result<()> {
    let image = store
        .image(&container.image)?
        .context("the container's image is gone")?;
    let config: Option<ImageConfig> = match &image.config["config"] {
        serde_json::Value::Null => None,
        value => Some(serde_json::from_value(value.clone()).context("the image's config")?),
    };
    let config = config.unwrap_or_default();
    let root = mounted_at(container)?.unwrap_or_else(|| container.merged());
    let user = args
        .user
        .clone()
        .or(config.user.clone())
        .unwrap_or_default();
    let wanted = Wanted {
        args: words(args, command, &config)?,
        env: environment(args, &config),
        cwd: args
            .workdir
            .clone()
            .or(config.working_dir)
            .filter(|d| !d.is_empty()),
        user: find_user(&root, &user)?,
        volumes: args.volume.clone(),
        network: args.network,
        hostname: args
            .hostname
            .clone()
            .unwrap_or_else(|| container.name.clone()),
        tty: args.tty,
        read_only: args.read_only,
        root,
    };
    let text = serde_json::to_vec_pretty(&spec::config(&wanted)?)?;
    fs::create_dir_all(dir).with_context(|| format!("making {dir:?}"))?;
    let path = dir.join("config.json");
    fs::write(&path, text).with_context(|| format!("writing {path:?}"))
}

/// The program: what is given stands for the image's command, behind the entrypoint.
fn words(
    args: &ProcessArgs,
    given: &[String],
    config: &ImageConfig,
) -> anyhow::Result<Vec<String>> {
    let entrypoint = match &args.entrypoint {
        Some(own) => Some(own)
            .filter(|e| !e.is_empty())
            .cloned()
            .into_iter()
            .collect(),
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    let own = config
        .cmd
        .clone()
        .filter(|_| args.entrypoint.is_none())
        .unwrap_or_default();
    let command = if given.is_empty() {
        own
    } else {
        given.to_vec()
    };
    let words = [entrypoint, command].concat();
    if words.is_empty() {
        bail!("the image names no program: write one behind --");
    }
    Ok(words)
}

fn environment(args: &ProcessArgs, config: &ImageConfig) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut set = |pair: String| {
        let name = pair.split('=').next().unwrap_or_default().to_owned() + "=";
        all.retain(|p| !p.starts_with(&name));
        all.push(pair);
    };
    set(PATH.to_owned());
    if args.tty {
        set("TERM=xterm".to_owned());
    }
    config.env.iter().flatten().cloned().for_each(&mut set);
    for pair in &args.env {
        if pair.contains('=') {
            set(pair.clone());
        } else if let Ok(value) = std::env::var(pair) {
            set(format!("{pair}={value}"));
        }
    }
    if !all.iter().any(|p| p.starts_with("HOME=")) {
        all.push("HOME=/root".to_owned());
    }
    all
}

/// Ids of `USER[:GROUP]`, names looked up in the container's own files.
fn find_user(root: &Path, text: &str) -> anyhow::Result<User> {
    if text.is_empty() {
        return Ok(User::default());
    }
    let root = open::open_dir_path(root)?;
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = lines(&root, b"etc/passwd")?;
    let groups = lines(&root, b"etc/group")?;
    let entry = passwd
        .iter()
        .find(|l| field(l, 0) == user || field(l, 2) == user);
    let uid = match (entry.and_then(|l| field(l, 2).parse().ok()), user.parse()) {
        (Some(uid), _) | (None, Ok(uid)) => uid,
        (None, Err(_)) => bail!("the image's /etc/passwd has no user {user:?}"),
    };
    let primary = entry.and_then(|l| field(l, 3).parse().ok()).unwrap_or(0);
    let gid = match group {
        None => primary,
        Some(group) => {
            let found = groups.iter().find(|l| field(l, 0) == group);
            match (found.and_then(|l| field(l, 2).parse().ok()), group.parse()) {
                (Some(gid), _) | (None, Ok(gid)) => gid,
                (None, Err(_)) => bail!("the image's /etc/group has no group {group:?}"),
            }
        }
    };
    let name = entry.map_or(user, |l| field(l, 0));
    let is_member = |l: &&String| field(l, 3).split(',').any(|m| m == name);
    let further = groups
        .iter()
        .filter(is_member)
        .filter_map(|l| field(l, 2).parse().ok());
    Ok(User {
        uid,
        gid,
        further: if group.is_none() {
            further.collect()
        } else {
            Vec::new()
        },
    })
}

fn field(line: &str, index: usize) -> &str {
    line.split(':').nth(index).unwrap_or_default()
}

/// The lines of a file of the image; none where it has no such file. Links in it do not lead out.
fn lines(root: &OwnedFd, path: &[u8]) -> anyhow::Result<Vec<String>> {
    let fd = match beneath::open_file_in_root(root.as_fd(), path) {
        Err(e) if e.errno() == plyfs_sys::Errno::ENOENT => return Ok(Vec::new()),
        other => other?,
    };
    let mut text = Vec::new();
    let mut buf = vec![0u8; 64 << 10];
    while text.len() < MAX_FILE {
        let n = io::pread(fd.as_fd(), &mut buf, text.len() as u64)?;
        if n == 0 {
            break;
        }
        text.extend_from_slice(buf.get(..n).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ProcessArgs {
        ProcessArgs {
            entrypoint: None,
            env: vec!["A=2".into()],
            user: None,
            workdir: None,
            volume: vec![],
            network: spec::Network::None,
            hostname: None,
            tty: false,
            interactive: false,
            read_only: false,
        }
    }

    #[test]
    fn entrypoint_and_command() {
        let config = ImageConfig {
            entrypoint: Some(vec!["e".into()]),
            cmd: Some(vec!["c".into()]),
            ..ImageConfig::default()
        };
        let given = ["x".to_owned()];
        assert_eq!(words(&args(), &[], &config).unwrap(), ["e", "c"]);
        assert_eq!(words(&args(), &given, &config).unwrap(), ["e", "x"]);
        let own = ProcessArgs {
            entrypoint: Some("o".into()),
            ..args()
        };
        assert_eq!(words(&own, &[], &config).unwrap(), ["o"]);
        let none = ProcessArgs {
            entrypoint: Some(String::new()),
            ..args()
        };
        assert_eq!(words(&none, &given, &config).unwrap(), ["x"]);
        assert!(words(&none, &[], &config).is_err());
    }

    #[test]
    fn later_variables_win() {
        let config = ImageConfig {
            env: Some(vec!["A=1".into(), "PATH=/x".into()]),
            ..ImageConfig::default()
        };
        assert_eq!(
            environment(&args(), &config),
            ["PATH=/x", "A=2", "HOME=/root"]
        );
    }

    #[test]
    fn users_are_the_images_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:\nweb:x:33:34::/:\n",
        )
        .unwrap();
        fs::write(dir.path().join("etc/group"), "web:x:34:\nlog:x:50:a,web\n").unwrap();
        let user = |text| {
            find_user(dir.path(), text)
                .ok()
                .map(|u| (u.uid, u.gid, u.further))
        };
        assert_eq!(user("web"), Some((33, 34, vec![50])));
        assert_eq!(user("33:log"), Some((33, 50, vec![])));
        assert_eq!(user("1000"), Some((1000, 0, vec![])));
        assert_eq!(user("nobody"), None);
        assert_eq!(user(""), Some((0, 0, vec![])));
    }
}
