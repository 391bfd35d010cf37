//! `plyfs image pull`.
use std::path::Path;

use plyfs_registry::{Platform, PullOptions, Reference, pull};
use serde_json::json;

use super::network::Network;
use crate::cmd::store;
use crate::{output, progress};

/// `plyfs image pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plyfs image pull quay.io/team/app:1.0\n  \
    plyfs image pull --platform linux/arm64 debian:12\n  \
    plyfs image pull --tls-verify=false localhost:5000/app\n\n\
    A name without a host is one of docker.io, as Docker has it. Layers that are in the store are\n\
    not fetched again; a pull that broke off goes on where it was.")]
pub(crate) struct Args {
    /// [HOST[:PORT]/]NAME[:TAG][@DIGEST]
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// Of an image for several platforms, the one for OS/ARCH[/VARIANT]
    #[arg(long)]
    pub platform: Option<Platform>,
    #[command(flatten)]
    pub network: Network,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Pulls and prints the id.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let client = args.network.client(&args.reference)?;
    let options = PullOptions {
        platform: args.platform.clone(),
        jobs: args.network.jobs.into(),
    };
    let progress = progress::shown(args.quiet);
    let pulled = pull(&client, &args.reference, &store, &options, &*progress)?;
    if !args.quiet {
        output::note(format_args!(
            "{}: {} layers fetched, {} already here",
            args.reference, pulled.fetched, pulled.present
        ));
    }
    store::tell_losses(&store, &pulled.image, args.quiet)?;
    if !args.json {
        return output::line(&pulled.image.id);
    }
    let told = json!({
        "id": pulled.image.id,
        "manifest": pulled.image.manifest.digest(),
        "name": pulled.name,
        "fetched": pulled.fetched,
        "present": pulled.present,
    });
    output::line(serde_json::to_string_pretty(&told)?)
}
