//! `plyfs image export`.
use std::path::{Path, PathBuf};

use anyhow::bail;
use plyfs_image::exchange::{self, Format};
use serde_json::json;

use crate::cmd::store;
use crate::output;
use crate::progress::shown;

/// How an image is written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Form {
    /// An OCI layout
    Oci,
    /// What docker load reads
    Docker,
}

/// `plyfs image export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "PATH becomes an archive if it is -, ends in .tar, or the format is docker; \
    else a\ndirectory. An OCI layout that is there takes the image in addition. The same image \
    gives the\nsame bytes."
)]
pub(crate) struct Args {
    /// NAME[:TAG] or the beginning of an id
    pub image: String,
    /// Where to; - is standard output
    pub path: PathBuf,
    /// How
    #[arg(long, value_enum, default_value = "oci")]
    pub format: Form,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Exports.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    if args.json && args.path == Path::new("-") {
        bail!("standard output is for the archive: name a file, or leave --json out");
    }
    let store = store::open(root)?;
    let image = store.resolve(&args.image)?;
    let tagged = store.find_tag(&args.image)?;
    let is_archive =
        args.path == Path::new("-") || args.path.extension().is_some_and(|e| e == "tar");
    let format = match args.format {
        Form::Docker => Format::Docker,
        Form::Oci if is_archive => Format::OciTar,
        Form::Oci => Format::OciDir,
    };
    let name = tagged.as_ref().map(|t| t.name.as_str());
    exchange::export(
        &store,
        &image,
        name,
        &args.path,
        format,
        shown(args.quiet).as_ref(),
    )?;
    if !args.json {
        return Ok(());
    }
    let told = json!({
        "id": image.id,
        "manifest": image.manifest.digest(),
        "name": name,
        "path": std::path::absolute(&args.path)?,
    });
    output::line(serde_json::to_string_pretty(&told)?)
}
