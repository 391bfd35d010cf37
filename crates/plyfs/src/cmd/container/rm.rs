//! `plyfs container rm`.
use std::path::Path;

use plyfs_sys::mount::Unmount;

use serde_json::json;

use super::unmount;
use crate::cmd::store;
use crate::output;

/// `plyfs container rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The containers
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Unmount them first
    #[arg(short, long)]
    pub force: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Removes.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let mut removed = Vec::new();
    for name in &args.names {
        let container = store.container(name)?;
        if args.force {
            unmount(&container, Unmount::Idle)?;
        }
        store.remove_container(&container)?;
        removed.push(name);
    }
    if !args.json {
        return Ok(());
    }
    output::line(serde_json::to_string_pretty(
        &json!({ "removed": removed }),
    )?)
}
