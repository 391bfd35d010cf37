//! The subcommands: one file each, which has its arguments and `run`.

mod bench;
pub(crate) mod compat;
mod container;
mod demo;
mod diff;
mod doctor;
mod hold;
mod image;
mod ls;
mod man;
mod mount;
mod run;
mod status;
pub(crate) mod store;
mod umount;
mod upgrade;
mod version;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount a stack of layers or an image
    Mount(mount::Args),
    /// Take a mount away and wait until its daemon has finished
    #[command(visible_alias = "unmount")]
    Umount(umount::Args),
    /// Show what an upper layer changes: A (added), C (changed) or D (deleted) and the path
    Diff(diff::Args),
    /// Show how a mount is: layers, options, requests, caches, copy-ups
    Status(status::Args),
    /// Let this plyfs, or another one, serve a mount that is in use, without unmounting it
    Upgrade(upgrade::Args),
    /// List the mounts of plyfs on this machine
    Ls(ls::Args),
    /// Images in the store: bring in, write out, list, check, remove
    #[command(subcommand)]
    Image(image::Command),
    /// Containers: a writable layer over an image
    #[command(subcommand)]
    Container(container::Command),
    /// Run a program in a fresh container of an image, by crun or runc
    Run(run::Args),
    /// Write a container's OCI bundle, for a runtime to run
    Bundle(run::BundleArgs),
    /// Show on real files what plyfs does, in a temporary directory that is removed afterwards
    Demo(demo::Args),
    /// Compare with kernel overlayfs and others on this machine; needs root and some minutes
    Bench(bench::Args),
    /// Try what this machine and these directories can do for a mount
    Doctor(doctor::Args),
    /// What a plyfs becomes by an upgrade
    #[command(hide = true)]
    Hold(hold::Args),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::ManArgs),
    /// Print completions for a shell
    Completions(man::CompletionArgs),
    /// Print the version
    Version,
}

impl Command {
    /// Does it; the exit code is the command's own where it has more to say than done or failed.
    pub(crate) fn run(self, root: Option<&Path>) -> anyhow::Result<ExitCode> {
        match self {
            Self::Mount(args) => done(mount::run(args, root)),
            Self::Umount(args) => done(umount::run(&args)),
            Self::Diff(args) => done(diff::run(args)),
            Self::Status(args) => status::run(&args),
            Self::Upgrade(args) => upgrade::run(&args),
            Self::Hold(args) => hold::run(&args),
            Self::Ls(args) => done(ls::run(&args)),
            Self::Image(command) => command.run(root),
            Self::Container(command) => done(command.run(root)),
            Self::Run(args) => run::run(&args, root),
            Self::Bundle(args) => done(run::bundle(&args, root)),
            Self::Doctor(args) => doctor::run(&args),
            Self::Man(args) => done(man::run(&args)),
            Self::Completions(args) => done(man::completions(&args)),
            Self::Demo(args) => done(demo::run(&args)),
            Self::Bench(args) => done(bench::run(args)),
            Self::Version => done(version::run()),
        }
    }
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
