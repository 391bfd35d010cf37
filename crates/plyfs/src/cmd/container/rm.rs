//! `plyfs container rm`.
use std::path::Path;

use plyfs_sys::mount::Unmount;

use super::unmount;
use crate::cmd::store;

/// `plyfs container rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The containers
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Unmount them first
    #[arg(short, long)]
    pub force: bool,
}

/// Removes.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    for name in &args.names {
        let container = store.container(name)?;
        if args.force {
            unmount(&container, Unmount::Idle)?;
        }
        store.remove_container(&container)?;
    }
    Ok(())
}
