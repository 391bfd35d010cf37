//! `plyfs upgrade`: another program serves a mount from now on; who uses it sees a pause.
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use plyfs_mount::control::{Program, Status, Unanswered, ask_upgrade};
use plyfs_mount::list::{self, Found};
use plyfs_mount::state::StoredPath;
use plyfs_mount::unmount;
use serde::{Deserialize, Serialize};

use crate::{exit, output};

/// How long a mount may take to have its next daemon.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// `plyfs upgrade`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plyfs upgrade --all                       # after a new plyfs was installed\n  \
    plyfs upgrade --program /opt/plyfs merged\n\n\
    Nothing is unmounted and no call fails. A program that cannot take over is refused before\n\
    anything happens; if it fails later the program from before serves on. Exit status 1 when a\n\
    mount was not upgraded.")]
pub(crate) struct Args {
    /// The mount
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub mountpoint: Option<PathBuf>,
    /// All mounts this user may ask
    #[arg(long)]
    pub all: bool,
    /// The program that is to serve; without it the one that is running now
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Print a JSON object a mount: one line each
    #[arg(long)]
    pub json: bool,
}

/// What a program says of itself (`plyfs hold --check`).
#[derive(Debug, Deserialize)]
struct Said {
    plyfs: String,
    handover: u64,
}

#[derive(Serialize)]
struct Row {
    mountpoint: String,
    upgraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Upgrades one mount or all.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = match &args.program {
        Some(path) => std::fs::canonicalize(path).with_context(|| format!("{path:?}"))?,
        None => std::env::current_exe().context("which program is this?")?,
    };
    let said = ask_program(&path)?;
    let mounts = match &args.mountpoint {
        Some(path) => vec![one(path)?],
        None => list::ours()?,
    };
    let mut failed = false;
    for mount in &mounts {
        let before = match mount.ask() {
            // Somebody else's are left out, as plyfs status does.
            Err(Unanswered::NotAllowed) if args.all => continue,
            other => other,
        };
        let from = before.as_ref().ok().map(|s| s.plyfs.clone());
        let done = before
            .map_err(anyhow::Error::from)
            .and_then(|before| upgrade(mount, &before, &path, &said));
        let row = Row {
            mountpoint: output::escaped_path(&mount.entry.target),
            upgraded: done.is_ok(),
            from,
            to: said.plyfs.clone(),
            pid: done.as_ref().ok().map(|now| now.mount.pid),
            error: done.err().map(|e| format!("{e:#}")),
        };
        failed |= !row.upgraded;
        tell(&row, args.json)?;
    }
    Ok(ExitCode::from(if failed { exit::FAILED } else { 0 }))
}

fn tell(row: &Row, json: bool) -> anyhow::Result<()> {
    if json {
        return output::line(serde_json::to_string(row)?);
    }
    let place = &row.mountpoint;
    match (&row.error, &row.from, row.pid) {
        (Some(e), ..) => output::complain(format_args!("{place}: not upgraded: {e}")),
        (None, from, pid) => output::line(format_args!(
            "{place}: {} -> {}, process {}",
            from.as_deref().unwrap_or("?"),
            row.to,
            pid.unwrap_or(0)
        ))?,
    }
    Ok(())
}

/// Whether the program can be started, and what it can take over.
fn ask_program(path: &Path) -> anyhow::Result<Said> {
    let out = Command::new(path)
        .args(["hold", "--check"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{path:?} cannot be started, nothing was changed"))?;
    let said = serde_json::from_slice(&out.stdout).ok();
    said.filter(|_| out.status.success()).ok_or_else(|| {
        anyhow!(
            "{path:?} is no plyfs that can take over a mount ({}), nothing was changed",
            out.status
        )
    })
}

fn upgrade(mount: &Found, before: &Status, path: &Path, said: &Said) -> anyhow::Result<Status> {
    if before.handover == 0 {
        bail!("its daemon is of a version that knows no upgrade: mount it anew");
    }
    let program = Program {
        path: StoredPath::new(path),
        handover: said.handover,
    };
    ask_upgrade(mount.entry.dev, mount.owner, program)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match mount.ask() {
            Ok(now) if now.upgrades > before.upgrades => return Ok(now),
            Ok(now) if now.mount.pid != before.mount.pid => {
                let why = now.upgrade_failed;
                let why = why.unwrap_or_else(|| "another daemon took over".to_owned());
                bail!("{why}; the program from before serves on, and its log says more");
            }
            Err(Unanswered::Dead) => bail!("its daemon has ended"),
            Err(e) if Instant::now() > until => return Err(e.into()),
            _ if Instant::now() > until => bail!("the daemon does not end"),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

fn one(path: &Path) -> anyhow::Result<Found> {
    let entry = unmount::find(path)?;
    list::found(entry).ok_or_else(|| anyhow!("{path:?} is no plyfs mount"))
}
