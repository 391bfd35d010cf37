//! `plyfs container create`.
use std::path::Path;

use crate::cmd::store;
use crate::output;

/// `plyfs container create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME[:TAG] of the image, or the beginning of its id
    pub image: String,
    /// What to call it; made up otherwise
    #[arg(long)]
    pub name: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Creates and prints the name.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let image = store.resolve(&args.image)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => made_up(&args.image),
    };
    let container = store.create_container(&name, &image, &args.image)?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&container)?);
    }
    output::line(container.name)
}

/// A name that nobody else has, with something of the image's in it.
pub(crate) fn made_up(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let word: String = last
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric())
        .take(20)
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |t| t.as_nanos());
    let word = if word.is_empty() { "c" } else { &word };
    format!(
        "{word}-{:x}{:x}",
        nanos & 0xffff_ffff_ffff,
        std::process::id()
    )
}
