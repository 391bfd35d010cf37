//! `plyfs bench`: how fast is this plyfs beside kernel overlayfs, on this machine?
use std::path::PathBuf;

use anyhow::Context;
use plyfs_benches::Options;

/// `plyfs bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
}

/// Compares; results also go to plyfs-bench.json and plyfs-bench.html unless told otherwise.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let plyfs = std::env::current_exe().context("where is this program?")?;
    let mut options = args.options;
    options
        .json
        .get_or_insert_with(|| PathBuf::from("plyfs-bench.json"));
    options
        .html
        .get_or_insert_with(|| PathBuf::from("plyfs-bench.html"));
    options.run(&plyfs, None)
}
