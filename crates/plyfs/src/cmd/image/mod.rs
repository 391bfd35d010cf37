//! `plyfs image`: images in the store.
mod export;
mod gc;
mod import;
mod inspect;
mod ls;
mod network;
mod pull;
mod push;
mod tag;
mod tree;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring in an OCI layout, a docker-archive or the archive of a root file system
    Import(import::Args),
    /// Write an image as an OCI layout or a docker-archive
    Export(export::Args),
    /// Bring in an image from a registry
    Pull(pull::Args),
    /// Send an image to a registry
    Push(push::Args),
    /// List images
    Ls(ls::Args),
    /// Show the layers of images, who shares them, and what each image would free
    Tree(tree::Args),
    /// Show all that is known of an image
    Inspect(inspect::Args),
    /// Show how an image came about
    History(inspect::HistoryArgs),
    /// Give an image a further name
    Tag(tag::Args),
    /// Take away a name of an image, and with its last name the image
    Rm(tag::RmArgs),
    /// Remove what nothing refers to
    Gc(gc::Args),
    /// Check every byte of the store
    Verify(verify::Args),
}

impl Command {
    /// Does it with the store at `root`.
    pub(crate) fn run(self, root: Option<&Path>) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self {
            Self::Import(args) => import::run(&args, root).map(done),
            Self::Export(args) => export::run(&args, root).map(done),
            Self::Pull(args) => pull::run(&args, root).map(done),
            Self::Push(args) => push::run(&args, root).map(done),
            Self::Ls(args) => ls::run(&args, root).map(done),
            Self::Tree(args) => tree::run(&args, root).map(done),
            Self::Inspect(args) => inspect::run(&args, root).map(done),
            Self::History(args) => inspect::history(&args, root).map(done),
            Self::Tag(args) => tag::run(&args, root).map(done),
            Self::Rm(args) => tag::remove(&args, root).map(done),
            Self::Gc(args) => gc::run(&args, root).map(done),
            Self::Verify(args) => verify::run(&args, root),
        }
    }
}
