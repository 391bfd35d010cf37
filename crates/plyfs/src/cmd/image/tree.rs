//! `plyfs image tree`.
use std::path::Path;

use super::ls::{Row, rows};
use crate::cmd::store::{self, short};
use crate::{output, report};

/// `plyfs image tree`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME[:TAG] or the beginning of an id; all images without it
    pub image: Option<String>,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Shows layers and who shares them.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let mut rows = rows(&store)?;
    if let Some(name) = &args.image {
        let id = store.resolve(name)?.id;
        rows.retain(|row| row.id == id);
    }
    if args.json {
        return output::line(serde_json::to_string_pretty(&rows)?);
    }
    rows.iter().try_for_each(show)
}

fn show(row: &Row) -> anyhow::Result<()> {
    let name = if row.tags.is_empty() {
        "<none>".to_owned()
    } else {
        row.tags.join(", ")
    };
    output::line(format_args!(
        "{name} ({}): {}, removing it frees {}",
        short(&row.id),
        report::bytes(row.size),
        report::bytes(row.unique)
    ))?;
    let last = row.layers.len().saturating_sub(1);
    for (i, layer) in row.layers.iter().rev().enumerate() {
        let branch = if i == last { "`-" } else { "|-" };
        let shared = match layer.images {
            0 | 1 => String::new(),
            n => format!(", in {n} images"),
        };
        output::line(format_args!(
            "{branch} {} {}{shared}",
            short(&layer.diff_id),
            report::bytes(layer.size)
        ))?;
    }
    Ok(())
}
