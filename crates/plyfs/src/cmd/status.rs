//! `plyfs status`: how a mount is, from its daemon: layers, options, requests, caches, copy-ups.
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use plyfs_mount::control::Status;
use plyfs_mount::list::{self, Found};
use plyfs_mount::unmount;

use crate::report::{prometheus, text};
use crate::{exit, output};

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `plyfs status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Times are upper bounds, at most twice too large. With --watch the rates \
    are those since the\nlast look. A mount whose daemon is dead or silent is an error: exit \
    status 1."
)]
pub(crate) struct Args {
    /// The mount; without it all mounts this user may ask
    pub mountpoint: Option<PathBuf>,
    /// Print a JSON object a mount: one line each
    #[arg(long, conflicts_with = "prometheus")]
    pub json: bool,
    /// Print Prometheus text, for the textfile collector of its node_exporter for example
    #[arg(long)]
    pub prometheus: bool,
    /// Look again every SECONDS (default 1) until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
        require_equals = true, value_parser = seconds)]
    pub watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "expected seconds, such as 0.5".to_owned())?;
    Duration::try_from_secs_f64(number)
        .ok()
        .filter(|d| *d >= Duration::from_millis(100))
        .ok_or_else(|| "expected 0.1 or more".to_owned())
}

/// The last status of each mount, to tell rates from.
type Before = HashMap<u32, Status>;

/// Prints once, or again and again.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut before = Before::new();
    loop {
        let code = once(args, &mut before)?;
        let Some(pause) = args.watch else {
            return Ok(code);
        };
        std::thread::sleep(pause);
    }
}

fn once(args: &Args, before: &mut Before) -> anyhow::Result<ExitCode> {
    let found = match &args.mountpoint {
        Some(path) => vec![one(path)?],
        None => list::ours()?,
    };
    let mut answers = Vec::new();
    let mut silent = false;
    for mount in &found {
        match mount.ask() {
            Ok(status) => answers.push((mount, status)),
            Err(e) => {
                silent = true;
                output::complain(format_args!("{:?}: {e}", mount.entry.target));
            }
        }
    }
    if args.watch.is_some() && !args.json && std::io::stdout().is_terminal() {
        output::raw(CLEAR)?;
    }
    print(args, &answers, before)?;
    *before = answers
        .into_iter()
        .map(|(m, s)| (m.entry.dev.1, s))
        .collect();
    Ok(if silent {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn print(args: &Args, answers: &[(&Found, Status)], before: &Before) -> anyhow::Result<()> {
    if args.prometheus {
        let all: Vec<&Status> = answers.iter().map(|(_, s)| s).collect();
        return output::raw(prometheus::text(&all));
    }
    for (i, (mount, status)) in answers.iter().enumerate() {
        if args.json {
            output::line(serde_json::to_string(status)?)?;
            continue;
        }
        if i > 0 {
            output::line("")?;
        }
        output::raw(text::status(status, before.get(&mount.entry.dev.1)))?;
    }
    Ok(())
}

fn one(path: &std::path::Path) -> anyhow::Result<Found> {
    let entry = unmount::find(path)?;
    list::found(entry).ok_or_else(|| anyhow!("{path:?} is no plyfs mount"))
}
