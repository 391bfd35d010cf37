//! The command line, as clap reads it.
use std::path::PathBuf;

use clap::Parser;

use crate::cmd::Command;
use crate::logging::LogArgs;

/// A union filesystem in user space: read-only layers below, one writable layer on top.
#[derive(Debug, Parser)]
#[command(
    name = "plyfs",
    version,
    propagate_version = false,
    disable_help_subcommand = false,
    after_help = "As a mount program, for container tools and fstab:\n  \
        plyfs [-f] [-d] -o lowerdir=A:B[,upperdir=U,workdir=W][,OPTION...] [SOURCE] MOUNTPOINT\n\
        (also when called by the name fuse-overlayfs; there an unknown option is a warning)\n\n\
        Environment:\n  \
        PLYFS_LOG       what to log, for example debug or plyfs_union=trace (default: warn)\n  \
        PLYFS_LOG_FILE  where to log instead of stderr, which a daemon lets go of"
)]
pub(crate) struct Cli {
    /// The store of images and containers: /var/lib/plyfs for root, $XDG_DATA_HOME/plyfs for users
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}
