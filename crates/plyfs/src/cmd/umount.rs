//! `plyfs umount`.
use std::path::PathBuf;

use plyfs_mount::unmount;
use plyfs_sys::mount::Unmount;

/// `plyfs umount`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Take it from the tree now, even if it is in use; the daemon ends with its last user
    #[arg(short, long)]
    pub lazy: bool,
}

/// Unmounts and waits for the daemon.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let how = if args.lazy {
        Unmount::Lazy
    } else {
        Unmount::Idle
    };
    Ok(unmount::unmount(&args.mountpoint, how)?)
}
