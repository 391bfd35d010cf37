//! `plyfs image import`.
use std::path::{Path, PathBuf};

use anyhow::bail;
use plyfs_image::Platform;
use plyfs_image::exchange::{self, ImportOptions};
use serde_json::json;

use crate::cmd::store;
use crate::{output, progress};

/// `plyfs image import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plyfs image import layout/ --tag app:1.0\n  \
    docker save app:1.0 | plyfs image import -\n  \
    tar -C rootfs -c . | plyfs image import - --tag base\n\n\
    Whatever PATH is, gzip and zstd are unpacked. An archive that is neither an OCI layout nor a\n\
    docker-archive becomes an image of one layer.")]
pub(crate) struct Args {
    /// A directory or an archive; - is standard input
    pub path: PathBuf,
    /// Name of the image, NAME[:TAG]; without it the names that PATH gives
    #[arg(long, value_name = "NAME:TAG")]
    pub tag: Option<String>,
    /// Of several images in PATH, the one called so there
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// Of an image for several platforms, the one for OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM", value_parser = exchange::parse_platform)]
    pub platform: Option<Platform>,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Imports and prints the ids.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    if let Some(tag) = &args.tag {
        plyfs_image::store::normalized(tag)?;
    }
    let store = store::open(root)?;
    let options = ImportOptions {
        platform: args.platform.clone(),
        reference: args.reference.clone(),
    };
    let progress = progress::shown(args.quiet);
    let images = exchange::import(&store, &args.path, &options, &*progress)?;
    if args.tag.is_some() && images.len() > 1 {
        bail!(
            "{:?} holds {} images: choose one with --reference to give it a name",
            args.path,
            images.len()
        );
    }
    let mut told = Vec::new();
    for imported in &images {
        let names = match &args.tag {
            Some(tag) => vec![tag.clone()],
            None => imported.names.clone(),
        };
        let mut tags = Vec::new();
        for name in names {
            tags.push(store.tag(&name, &imported.image)?.name);
        }
        store::tell_losses(&store, &imported.image, args.quiet)?;
        told.push(json!({
            "id": imported.image.id,
            "manifest": imported.image.manifest.digest(),
            "tags": tags,
        }));
        if !args.json {
            output::line(&imported.image.id)?;
        }
    }
    if args.json {
        output::line(serde_json::to_string_pretty(&told)?)?;
    }
    Ok(())
}
