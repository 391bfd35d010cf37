//! `plyfs image inspect` and `plyfs image history`.
use std::path::Path;

use anyhow::anyhow;
use plyfs_image::Store;
use serde_json::{Value, json};

use crate::cmd::store::{self, short};
use crate::{output, report};

/// `plyfs image inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME[:TAG] or the beginning of an id
    pub image: String,
    /// Print JSON; inspect always does
    #[arg(long)]
    pub json: bool,
}

/// `plyfs image history`.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// NAME[:TAG] or the beginning of an id
    pub image: String,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Prints all that is known of an image.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let image = store.resolve(&args.image)?;
    let tags: Vec<String> = store
        .tags()?
        .into_values()
        .filter(|t| t.image == image.id)
        .map(|t| t.name)
        .collect();
    let mut layers = Vec::new();
    for (blob, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        let record = store.layer(diff_id)?;
        layers.push(json!({
            "diff_id": diff_id,
            "digest": blob.digest(),
            "media_type": blob.media_type(),
            "compressed": blob.size(),
            "size": record.bytes,
            "entries": record.entries,
            "owners_lost": record.owners_lost,
            "xattrs_lost": record.xattrs_lost,
            "devices_lost": record.devices_lost,
            "directory": store.layer_dir(diff_id)?,
        }));
    }
    let all = json!({
        "id": image.id,
        "manifest": image.manifest,
        "chain_id": image.chain_id()?,
        "tags": tags,
        "layers": layers,
        "config": image.config,
    });
    output::line(serde_json::to_string_pretty(&all)?)
}

/// Prints how an image came about, the latest step first.
pub(crate) fn history(args: &HistoryArgs, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let steps = steps(&store, &args.image)?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&steps)?);
    }
    let mut rows = vec![
        ["LAYER", "CREATED", "SIZE", "BY"]
            .map(String::from)
            .to_vec(),
    ];
    for step in steps.iter().rev() {
        let text = |key: &str| step[key].as_str().unwrap_or("-").to_owned();
        let layer = step["diff_id"].as_str().and_then(|d| d.parse().ok());
        rows.push(vec![
            layer.as_ref().map_or("-", short).to_owned(),
            text("created"),
            step["size"].as_u64().map_or("-".to_owned(), report::bytes),
            output::escaped(text("created_by").as_bytes()),
        ]);
    }
    output::table(&rows)
}

/// The steps of a history, each with its layer if it has made one.
fn steps(store: &Store, name: &str) -> anyhow::Result<Vec<Value>> {
    let image = store.resolve(name)?;
    let mut layers = image.diff_ids.iter();
    let mut steps = Vec::new();
    let empty = Vec::new();
    for step in image.config["history"].as_array().unwrap_or(&empty) {
        let mut step = step.clone();
        let object = step
            .as_object_mut()
            .ok_or_else(|| anyhow!("the history is malformed"))?;
        let is_empty = object.get("empty_layer").and_then(Value::as_bool) == Some(true);
        if let Some(diff_id) = (!is_empty).then(|| layers.next()).flatten() {
            object.insert("diff_id".to_owned(), json!(diff_id));
            object.insert("size".to_owned(), json!(store.layer(diff_id)?.bytes));
        }
        steps.push(step);
    }
    for diff_id in layers {
        steps.push(json!({ "diff_id": diff_id, "size": store.layer(diff_id)?.bytes }));
    }
    Ok(steps)
}
