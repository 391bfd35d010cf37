//! `plyfs container diff` and `plyfs container export`.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plyfs_image::Store;
use plyfs_image::layer_tar::{self, Options, Written};
use plyfs_image::store::containers::Container;
use plyfs_sys::{io as sys_io, open};

use super::mounted_at;
use crate::cmd::{diff, store};
use crate::output;

/// `plyfs container diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The container
    pub name: String,
    /// Print a JSON array of objects with kind, path and type
    #[arg(long)]
    pub json: bool,
}

/// `plyfs container export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The container
    pub name: String,
    /// Where to; - is standard output
    pub path: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Shows what the upper changes.
pub(crate) fn diff(args: &DiffArgs, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let container = store.container(&args.name)?;
    settle(&container)?;
    let lowers = store.lower_dirs(&container.diff_ids)?;
    diff::show(&container.upper(), &lowers, args.json)
}

/// Writes what the container shows.
pub(crate) fn export(args: &ExportArgs, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let container = store.container(&args.name)?;
    settle(&container)?;
    if args.path == Path::new("-") {
        if args.json {
            bail!("standard output is for the archive: name a file, or leave --json out");
        }
        return write(&store, &container, io::stdout().lock()).map(drop);
    }
    let file = File::create(&args.path).with_context(|| format!("making {:?}", args.path))?;
    let (out, written) = write(&store, &container, file)?;
    out.sync_all()
        .with_context(|| format!("writing {:?}", args.path))?;
    if !args.json {
        return Ok(());
    }
    let told = serde_json::json!({
        "name": container.name,
        "path": std::path::absolute(&args.path)?,
        "entries": written.entries,
        "bytes": written.bytes,
    });
    output::line(serde_json::to_string_pretty(&told)?)
}

fn write<W: Write>(store: &Store, container: &Container, out: W) -> anyhow::Result<(W, Written)> {
    let mut layers = vec![container.upper()];
    layers.extend(store.lower_dirs(&container.diff_ids)?);
    let options = Options {
        namespace: store.namespace(),
        latest: None,
    };
    let out = BufWriter::with_capacity(1 << 20, out);
    let (out, written) = layer_tar::write_all(&layers, out, options)?;
    let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((out, written))
}

/// What programs wrote through a mount may still be in the kernel only.
pub(super) fn settle(container: &Container) -> anyhow::Result<()> {
    if let Some(place) = mounted_at(container)? {
        let dir = open::open_dir_path(&place)?;
        let list = open::open_dir_for_list(std::os::fd::AsFd::as_fd(&dir))?;
        sys_io::syncfs(std::os::fd::AsFd::as_fd(&list))?;
    }
    Ok(())
}
