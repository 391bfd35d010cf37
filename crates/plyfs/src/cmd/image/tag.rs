//! `plyfs image tag` and `plyfs image rm`.
use std::path::Path;

use serde_json::json;

use crate::cmd::store;
use crate::{output, report};

/// `plyfs image tag`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME[:TAG] or the beginning of an id
    pub image: String,
    /// The further name
    #[arg(value_name = "NAME:TAG")]
    pub name: String,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `plyfs image rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// NAME[:TAG] or the beginning of an id, which means the image with all its names
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Tags.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let tagged = store.tag(&args.name, &store.resolve(&args.image)?)?;
    if args.json {
        output::line(serde_json::to_string_pretty(&tagged)?)?;
    }
    Ok(())
}

/// Removes names and images, and what only they used.
pub(crate) fn remove(args: &RmArgs, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let (mut untagged, mut removed) = (Vec::new(), Vec::new());
    for name in &args.images {
        let id = match store.find_tag(name)? {
            Some(tagged) => {
                let others = store.tags()?.into_values();
                let last = others.filter(|t| t.image == tagged.image).count() == 1;
                if !last {
                    store.untag(&tagged.name)?;
                    untagged.push(tagged.name);
                    continue;
                }
                tagged.image
            }
            None => store.resolve(name)?.id,
        };
        store.remove_image(&id)?;
        removed.push(id);
    }
    let freed = match store.collect(false, false)? {
        Some(collected) => Some(collected.bytes),
        None => {
            output::note("others use the store: 'plyfs image gc' frees the room later");
            None
        }
    };
    if args.json {
        let told = json!({ "untagged": untagged, "removed": removed, "freed": freed });
        return output::line(serde_json::to_string_pretty(&told)?);
    }
    untagged
        .iter()
        .try_for_each(|n| output::line(format_args!("untagged {n}")))?;
    removed
        .iter()
        .try_for_each(|id| output::line(format_args!("removed {id}")))?;
    freed.map_or(Ok(()), |bytes| {
        output::line(format_args!("freed {}", report::bytes(bytes)))
    })
}
