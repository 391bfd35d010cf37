//! Runs the benchmarks from the command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Parser;
use plyfs_benches::Options;

/// Compares plyfs with kernel overlayfs and others: medians of interleaved rounds.
///
/// Needs root. The table goes to standard output, progress to standard error.
#[derive(Debug, Parser)]
#[command(name = "plyfs-bench")]
struct Args {
    /// The plyfs binary
    #[arg(long, default_value = "plyfs")]
    plyfs: PathBuf,
    /// The fuse-overlayfs binary, if not the one in PATH
    #[arg(long)]
    fuse_overlayfs: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.options
        .run(&args.plyfs, args.fuse_overlayfs.as_deref())
}
