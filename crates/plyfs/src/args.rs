//! The command line, as clap reads it.
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use plyfs_mount::options::{Meaning, OPTIONS, Takes};

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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount a stack of layers
    Mount(MountArgs),
    /// Take a mount away and wait until its daemon has finished
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Show what an upper layer changes: A (added), C (changed) or D (deleted) and the path
    Diff(DiffArgs),
    /// Show on real files what plyfs does, in a temporary directory that is removed afterwards
    Demo(DemoArgs),
    /// Print the version
    Version,
}

/// `plyfs mount`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    plyfs mount --lower app --lower base --upper changes --work scratch merged\n  \
    plyfs umount merged\n\n\
    The command returns once the mount answers. Without --upper the mount is read-only.")]
pub(crate) struct MountArgs {
    /// Lower layer, read only; the first one given is the topmost
    #[arg(long = "lower", value_name = "DIR")]
    pub lowers: Vec<PathBuf>,
    /// Upper layer, where changes are kept
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,
    /// Directory on the same file system as the upper, where changes are prepared
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Mount options, separated by commas; the long help lists them
    #[arg(short = 'o', long = "option", value_name = "OPTS")]
    pub options: Vec<OsString>,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Log every request to stderr; implies --foreground
    #[arg(short, long)]
    pub debug: bool,
    /// Where to mount
    pub mountpoint: PathBuf,
}

/// `plyfs umount`.
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Take it from the tree now, even if it is in use; the daemon ends with its last user
    #[arg(short, long)]
    pub lazy: bool,
}

/// `plyfs diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plyfs diff merged\n  \
    plyfs diff --upper changes --lower app --lower base --json\n\n\
    A directory counts as changed when it or something in it changed. Bytes of a name that are\n\
    no UTF-8 are written \\xNN; a backslash is written \\\\.")]
pub(crate) struct DiffArgs {
    /// A live mount
    #[arg(required_unless_present = "upper", conflicts_with_all = ["upper", "lowers"])]
    pub mountpoint: Option<PathBuf>,
    /// Upper layer of a stack that need not be mounted
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,
    /// Lower layer below --upper, the topmost first; without any, all that is there is added
    #[arg(long = "lower", value_name = "DIR", requires = "upper")]
    pub lowers: Vec<PathBuf>,
    /// Print a JSON array of objects with kind, path and type
    #[arg(long)]
    pub json: bool,
}

/// `plyfs demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Make the temporary directory in this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Adds the table of mount options to the long help of `mount`.
pub(crate) fn with_option_list(command: clap::Command) -> clap::Command {
    command.mut_subcommand("mount", |mount| {
        let text = mount
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        mount.after_long_help(format!("{text}\n\n{}", option_list()))
    })
}

/// The mount options by what happens to them.
pub(crate) fn option_list() -> String {
    let mut summaries = String::new();
    let (mut flags, mut granted, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for def in OPTIONS {
        let name = match def.takes {
            Takes::Nothing | Takes::Either => def.name.to_owned(),
            Takes::Value => format!("{}=", def.name),
        };
        match (def.meaning, def.meaning.summary()) {
            (_, Some(summary)) => summaries.push_str(&format!("  {name:<14} {summary}\n")),
            (Meaning::Granted, _) => granted.push(name),
            (Meaning::GrantedIf(values, _), _) => {
                granted.push(format!("{name}{}", values.join("|")));
            }
            (Meaning::NoEffect(_), _) => idle.push(name),
            (_, None) => flags.push(name),
        }
    }
    format!(
        "Mount options:\n{summaries}Flags of any mount:\n{}\nTaken for granted:\n{}\n\
         Without effect (an error for `plyfs mount`, a warning for the mount program):\n{}",
        wrapped(&flags),
        wrapped(&granted),
        wrapped(&idle)
    )
}

fn wrapped(words: &[String]) -> String {
    const WIDTH: usize = 78;
    let mut text = String::new();
    let mut column = 0;
    for word in words {
        if column == 0 || column + word.len() + 1 > WIDTH {
            text.push_str(if column == 0 { "  " } else { "\n  " });
            column = 2;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
    text
}
