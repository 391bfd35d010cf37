//! `plyfs image gc`.
use std::path::Path;

use crate::cmd::store;
use crate::{output, report};

/// `plyfs image gc`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images that have no name and no container, too
    #[arg(long)]
    pub untagged: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Collects; waits for others who use the store.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let done = store.collect(args.untagged, true)?.unwrap_or_default();
    if args.json {
        return output::line(serde_json::to_string_pretty(&done)?);
    }
    output::line(format_args!(
        "removed {} images, {} layers, {} blobs, {} leftovers: {}",
        done.images.len(),
        done.layers.len(),
        done.blobs.len(),
        done.leftovers,
        report::bytes(done.bytes)
    ))
}
