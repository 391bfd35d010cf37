//! `plyfs mount`: the strict grammar, where every word must mean something.
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::bail;
use plyfs_mount::options::{Meaning, Mode, Parsed, parse};
use plyfs_mount::spec::Invoker;
use plyfs_mount::{MountError, MountSpec, daemonize, session};

use crate::logging;

/// `plyfs mount`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    plyfs mount --lower app --lower base --upper changes --work scratch merged\n  \
    plyfs umount merged\n\n\
    The command returns once the mount answers. Without --upper the mount is read-only.")]
pub(crate) struct Args {
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

/// Mounts; returns once the mount answers, or with --foreground once it is gone.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let foreground = args.foreground || args.debug;
    logging::start(args.debug);
    Ok(start(spec(args)?, foreground)?)
}

/// Mounts what is specified, here or in a daemon.
pub(crate) fn start(spec: MountSpec, foreground: bool) -> Result<(), MountError> {
    if spec.remount {
        return session::remount(&spec);
    }
    if foreground {
        session::serve(spec, &mut daemonize::Ready::nobody_waits())
    } else {
        daemonize::in_background(|ready| session::serve(spec, ready))
    }
}

fn spec(args: Args) -> anyhow::Result<MountSpec> {
    let mut parsed = Parsed::default();
    for options in &args.options {
        parse(options.as_bytes(), Mode::Strict, &mut parsed)?;
    }
    let mut spec = MountSpec::new(args.mountpoint, "plyfs", Invoker::current());
    spec.apply(&parsed.given)?;
    for given in &parsed.given {
        let twice = match given.def.meaning {
            Meaning::Lowers | Meaning::LowerAppend => !args.lowers.is_empty(),
            Meaning::Upper => args.upper.is_some(),
            Meaning::Work => args.work.is_some(),
            _ => false,
        };
        if twice {
            let name = given.def.name;
            bail!("-o {name}= and the argument that says the same are both given: leave one out");
        }
    }
    if !args.lowers.is_empty() {
        spec.lowers = args.lowers;
    }
    spec.upper = spec.upper.or(args.upper);
    spec.work = spec.work.or(args.work);
    Ok(spec)
}
