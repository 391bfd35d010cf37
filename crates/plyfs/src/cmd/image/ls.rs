//! `plyfs image ls`.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use plyfs_image::{Digest, Image, Store};
use serde::Serialize;

use crate::cmd::store::{self, short};
use crate::{output, report};

/// `plyfs image ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// An image and what it takes.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Digest of the config.
    pub id: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Its names.
    pub tags: Vec<String>,
    /// When it was made, as its config says.
    pub created: Option<String>,
    /// Its layers, base first.
    pub layers: Vec<Layer>,
    /// Bytes of all files.
    pub size: u64,
    /// Bytes of files in layers that no other image has: what removing it frees.
    pub unique: u64,
    /// Bytes of files in layers that other images have, too.
    pub shared: u64,
}

/// A layer of an image.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    /// What it is called.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// How many images have it.
    pub images: usize,
}

/// All images, those with names first.
pub(super) fn rows(store: &Store) -> anyhow::Result<Vec<Row>> {
    let mut images: BTreeMap<String, (Image, Vec<String>)> = BTreeMap::new();
    for id in store.image_ids()? {
        if let Some(image) = store.image(&id)? {
            images.insert(id.to_string(), (image, Vec::new()));
        }
    }
    for tagged in store.tags()?.into_values() {
        if let Some((_, names)) = images.get_mut(tagged.image.as_ref()) {
            names.push(tagged.name);
        }
    }
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for (image, _) in images.values() {
        let once: BTreeSet<&str> = image.diff_ids.iter().map(AsRef::as_ref).collect();
        once.into_iter()
            .for_each(|id| *users.entry(id).or_default() += 1);
    }
    let mut rows = Vec::new();
    for (image, tags) in images.values() {
        let mut layers = Vec::new();
        let (mut size, mut unique) = (0, 0);
        let mut seen = BTreeSet::new();
        for diff_id in &image.diff_ids {
            let bytes = store.layer(diff_id)?.bytes;
            let images = users.get::<str>(diff_id.as_ref()).copied().unwrap_or(0);
            if seen.insert(diff_id.as_ref()) {
                size += bytes;
                unique += if images == 1 { bytes } else { 0 };
            }
            layers.push(Layer {
                diff_id: diff_id.clone(),
                size: bytes,
                images,
            });
        }
        rows.push(Row {
            id: image.id.clone(),
            manifest: image.manifest.digest().clone(),
            tags: tags.clone(),
            created: image.text("created").map(str::to_owned),
            layers,
            size,
            unique,
            shared: size - unique,
        });
    }
    rows.sort_by(|a, b| (a.tags.is_empty(), &a.tags).cmp(&(b.tags.is_empty(), &b.tags)));
    Ok(rows)
}

/// Lists.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let rows = rows(&store::open(root)?)?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&rows)?);
    }
    let mut lines = vec![
        [
            "NAME", "IMAGE", "CREATED", "LAYERS", "SIZE", "UNIQUE", "SHARED",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for row in &rows {
        let names = if row.tags.is_empty() {
            vec!["<none>".to_owned()]
        } else {
            row.tags.clone()
        };
        for name in names {
            let created = row.created.as_deref().unwrap_or("-");
            lines.push(vec![
                name,
                short(&row.id).to_owned(),
                created.get(..19).unwrap_or(created).to_owned(),
                row.layers.len().to_string(),
                report::bytes(row.size),
                report::bytes(row.unique),
                report::bytes(row.shared),
            ]);
        }
    }
    output::table(&lines)
}
