//! `plyfs container commit`.
use std::path::Path;

use plyfs_image::commit::CommitOptions;
use plyfs_image::compression::Compression;

use crate::cmd::store;
use crate::output;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Packing {
    /// gzip, which everybody reads
    Gzip,
    /// zstd, smaller and faster
    Zstd,
    /// Not at all
    None,
}

/// `plyfs container commit`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The upper alone is read; a mounted container can be committed while nothing writes to it.\n\
    SOURCE_DATE_EPOCH in the environment bounds all times, so that the same changes give the same\n\
    digests."
)]
pub(crate) struct Args {
    /// The container
    pub name: String,
    /// Name of the new image
    #[arg(long, value_name = "NAME:TAG")]
    pub tag: Option<String>,
    /// How the layer is packed
    #[arg(long, value_enum, default_value = "gzip")]
    pub compression: Packing,
    /// Who did it
    #[arg(long)]
    pub author: Option<String>,
    /// What for
    #[arg(long)]
    pub message: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Commits and prints the id.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    if let Some(tag) = &args.tag {
        plyfs_image::store::normalized(tag)?;
    }
    let store = store::open(root)?;
    let container = store.container(&args.name)?;
    super::changes::settle(&container)?;
    let options = CommitOptions {
        compression: match args.compression {
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
            Packing::None => Compression::Plain,
        },
        author: args.author.clone(),
        comment: args.message.clone(),
    };
    let image = store.commit(&container, &options)?;
    let tagged = args
        .tag
        .as_ref()
        .map(|tag| store.tag(tag, &image))
        .transpose()?;
    if args.json {
        let told = serde_json::json!({
            "id": image.id,
            "manifest": image.manifest.digest(),
            "tag": tagged.map(|t| t.name),
        });
        return output::line(serde_json::to_string_pretty(&told)?);
    }
    output::line(image.id)
}
