//! Measures how long unpacking an image takes, beside tar.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use plyfs_benches::Unpacking;

/// Compares `plyfs image import` with `tar -x` of the same layers: plain, gzip and zstd.
///
/// Needs root, zstd, and a root file system that the tests keep. The table goes to standard output.
#[derive(Debug, Parser)]
#[command(name = "plyfs-bench-unpack")]
struct Args {
    /// The plyfs binary
    #[arg(long, default_value = "plyfs")]
    plyfs: PathBuf,
    /// Samples of each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where to work; in memory, what the disk costs is not in the result
    #[arg(long, default_value = "/dev/shm")]
    scratch: PathBuf,
    /// Measure until all is on the disk, for both
    #[arg(long)]
    sync: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let text = Unpacking {
        plyfs: args.plyfs,
        rounds: args.rounds.max(1),
        scratch: args.scratch,
        sync: args.sync,
    }
    .run()?;
    write!(std::io::stdout(), "{text}")?;
    Ok(())
}
