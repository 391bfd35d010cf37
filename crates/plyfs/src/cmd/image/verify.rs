//! `plyfs image verify`.
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crate::cmd::store;
use crate::progress::shown;
use crate::{exit, output};

/// `plyfs image verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Blobs are hashed; each layer is unpacked from its blob once more and compared with what\n\
    is there, which needs room for the largest layer. Exits with 1 when anything is wrong."
)]
pub(crate) struct Args {
    /// Blobs and references only; do not compare unpacked layers
    #[arg(long)]
    pub quick: bool,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    /// Say what was checked also where stderr is no terminal
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Verifies and prints the faults.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<ExitCode> {
    let store = store::open(root)?;
    // A terminal shows how far it is; elsewhere the faults alone count, unless more is asked for.
    let progress = shown(args.quiet || !args.verbose && !std::io::stderr().is_terminal());
    let faults = store.verify(args.quick, progress.as_ref())?;
    if args.json {
        output::line(serde_json::to_string_pretty(&faults)?)?;
    } else if faults.is_empty() {
        output::line("everything is as it was")?;
    }
    for fault in faults.iter().filter(|_| !args.json) {
        output::line(format_args!(
            "{} {}: {}",
            fault.part, fault.name, fault.what
        ))?;
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    })
}
