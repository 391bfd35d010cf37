//! `plyfs umount`.
use std::path::PathBuf;

use plyfs_mount::unmount;
use plyfs_sys::mount::Unmount;
use serde_json::json;

use crate::output;

/// `plyfs umount`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Take it from the tree now, even if it is in use; the daemon ends with its last user
    #[arg(short, long)]
    pub lazy: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Unmounts and waits for the daemon.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let how = if args.lazy {
        Unmount::Lazy
    } else {
        Unmount::Idle
    };
    let place = std::path::absolute(&args.mountpoint)?;
    unmount::unmount(&args.mountpoint, how)?;
    if !args.json {
        return Ok(());
    }
    let told = json!({ "mountpoint": place });
    output::line(serde_json::to_string_pretty(&told)?)
}
