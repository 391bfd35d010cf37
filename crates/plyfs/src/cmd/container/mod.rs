//! `plyfs container`: a writable layer over an image.
mod changes;
mod commit;
mod create;
mod ls;
mod mount;
mod rm;

use std::path::Path;

use clap::Subcommand;

pub(crate) use create::made_up;
pub(crate) use mount::{mount_at, mounted_at, unmount};

/// What to do with containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container of an image
    Create(create::Args),
    /// Mount a container and print where
    Mount(mount::Args),
    /// Take the mount of a container away
    #[command(visible_alias = "unmount")]
    Umount(mount::UmountArgs),
    /// List containers
    Ls(ls::Args),
    /// Show what a container has changed: A (added), C (changed) or D (deleted) and the path
    Diff(changes::DiffArgs),
    /// Write all that a container shows as one archive
    Export(changes::ExportArgs),
    /// Make an image of a container
    Commit(commit::Args),
    /// Remove containers with all that was written in them
    Rm(rm::Args),
}

impl Command {
    /// Does it with the store at `root`.
    pub(crate) fn run(self, root: Option<&Path>) -> anyhow::Result<()> {
        match self {
            Self::Create(args) => create::run(&args, root),
            Self::Mount(args) => mount::run(&args, root),
            Self::Umount(args) => mount::umount(&args, root),
            Self::Ls(args) => ls::run(&args, root),
            Self::Diff(args) => changes::diff(&args, root),
            Self::Export(args) => changes::export(&args, root),
            Self::Commit(args) => commit::run(&args, root),
            Self::Rm(args) => rm::run(&args, root),
        }
    }
}
