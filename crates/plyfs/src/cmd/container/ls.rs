//! `plyfs container ls`.
use std::path::Path;

use serde_json::json;

use super::mounted_at;
use crate::cmd::store::{self, short};
use crate::output;

/// `plyfs container ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let mut rows = vec![
        ["NAME", "IMAGE", "ID", "MOUNTED AT"]
            .map(String::from)
            .to_vec(),
    ];
    let mut told = Vec::new();
    for container in store.containers()? {
        let place = mounted_at(&container)?;
        told.push(json!({
            "name": container.name,
            "image": container.image,
            "image_name": container.image_name,
            "created": container.created,
            "upper": container.upper(),
            "mountpoint": place,
        }));
        rows.push(vec![
            container.name.clone(),
            container.image_name.clone(),
            short(&container.image).to_owned(),
            place.map_or("-".to_owned(), |p| p.display().to_string()),
        ]);
    }
    if args.json {
        return output::line(serde_json::to_string_pretty(&told)?);
    }
    output::table(&rows)
}
