//! `plyfs image push`.
use std::path::Path;

use anyhow::Context;
use plyfs_registry::{PushOptions, Reference, push};
use serde_json::json;

use super::network::Network;
use crate::cmd::store;
use crate::{output, progress};

/// `plyfs image push`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plyfs image push quay.io/team/app:1.0\n  \
    plyfs image push app:1.0 quay.io/team/app:1.0\n\n\
    The registry gets the bytes the image came with, so its digests stay. Layers that are there, or\n\
    in another repository of the same registry, are not sent.")]
pub(crate) struct Args {
    /// Name or id of the image in the store
    #[arg(value_name = "NAME:TAG")]
    pub image: String,
    /// Where to, [HOST[:PORT]/]NAME[:TAG]; without it, where the image's name says
    #[arg(value_name = "REF")]
    pub reference: Option<Reference>,
    #[command(flatten)]
    pub network: Network,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Pushes and prints the digest of the manifest.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let image = store.resolve(&args.image)?;
    let reference = match &args.reference {
        Some(reference) => reference.clone(),
        None => {
            let tagged = store.find_tag(&args.image)?;
            let name = tagged.context("an id does not say where to: add REF")?.name;
            name.parse()?
        }
    };
    let client = args.network.client(&reference)?;
    let options = PushOptions {
        jobs: args.network.jobs.into(),
    };
    let progress = progress::shown(args.quiet);
    let pushed = push(&client, &reference, &store, &image, &options, &*progress)?;
    if !args.quiet {
        output::note(format_args!(
            "{reference}: {} blobs sent, {} taken from other repositories, {} already there",
            pushed.sent, pushed.mounted, pushed.present
        ));
    }
    if !args.json {
        return output::line(&pushed.manifest);
    }
    let told = json!({
        "manifest": pushed.manifest,
        "reference": reference.to_string(),
        "sent": pushed.sent,
        "mounted": pushed.mounted,
        "present": pushed.present,
    });
    output::line(serde_json::to_string_pretty(&told)?)
}
