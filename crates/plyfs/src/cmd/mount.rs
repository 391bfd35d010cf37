//! `plyfs mount`: the strict grammar, where every word must mean something.
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plyfs_image::store::Use;
use plyfs_mount::options::{Meaning, Mode, Parsed, parse};
use plyfs_mount::plan::Plan;
use plyfs_mount::spec::Invoker;
use plyfs_mount::{MountError, MountSpec, daemonize, session};
use plyfs_sys::takeover;

use crate::logging;

/// `plyfs mount`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    plyfs mount --lower app --lower base --upper changes --work scratch merged\n  \
    plyfs mount debian:12 /mnt --ephemeral\n  \
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
    /// Do not replace the daemon when it dies
    #[arg(long)]
    pub no_restart: bool,
    /// Leave the daemon the privileges, paths and system calls it has
    #[arg(long)]
    pub no_sandbox: bool,
    /// Take changes and forget them with the mount
    #[arg(long, conflicts_with_all = ["upper", "work", "read_only"])]
    pub ephemeral: bool,
    /// Take no changes
    #[arg(long, conflicts_with_all = ["upper", "work"])]
    pub read_only: bool,
    /// An image of the store instead of --lower, and where to mount
    #[arg(required = true, num_args = 1..=2, value_names = ["IMAGE] [MOUNTPOINT"])]
    pub places: Vec<PathBuf>,
}

/// Mounts; returns once the mount answers, or with --foreground once it is gone.
pub(crate) fn run(args: Args, root: Option<&Path>) -> anyhow::Result<()> {
    let foreground = args.foreground || args.debug;
    logging::start(args.debug, foreground);
    let image = match args.places.as_slice() {
        [image, _] => Some(image.clone()),
        _ => None,
    };
    let ephemeral = args.ephemeral;
    let (no_restart, no_sandbox) = (args.no_restart, args.no_sandbox);
    let mut spec = spec(args)?;
    spec.restart &= !no_restart;
    spec.sandbox &= !no_sandbox;
    let Some(image) = image else {
        if ephemeral {
            bail!("--ephemeral is for images: give --upper and --work for layers of your own");
        }
        return Ok(start(spec, foreground)?);
    };
    let used = of_image(&image, ephemeral, &mut spec, root)?;
    Ok(start_using(spec, used, foreground)?)
}

fn start_using(spec: MountSpec, used: Use, foreground: bool) -> Result<(), MountError> {
    let (file, lock) = used.parts();
    let plan = plan(&spec).map(|plan| plan.using(file, takeover::number(&lock)));
    let serve = serving(spec, Some(used));
    if foreground {
        return serve(
            &mut daemonize::Ready::nobody_waits(),
            daemonize::Post::Alone,
        );
    }
    daemonize::in_background(plan, serve)
}

/// What a daemon does. Whoever serves the mount says at its end that layers of the store are free.
pub(crate) fn serving(
    spec: MountSpec,
    used: Option<Use>,
) -> impl FnOnce(&mut daemonize::Ready, daemonize::Post) -> Result<(), MountError> {
    let at_end = move || {
        if let Some(used) = used {
            used.end();
        }
    };
    move |ready, post| session::serve(spec, ready, post, at_end)
}

/// What another program needs to go on with the mount, if it may.
fn plan(spec: &MountSpec) -> Option<Plan> {
    let plan = || Plan::of(spec).saying(&logging::words());
    spec.restart.then(plan)
}

/// Puts an image's layers into the specification, and keeps them from being collected.
fn of_image(
    image: &Path,
    ephemeral: bool,
    spec: &mut MountSpec,
    root: Option<&Path>,
) -> anyhow::Result<Use> {
    if !spec.lowers.is_empty() {
        bail!("an image and lower layers are both given: leave one out");
    }
    let name = image.to_str().context("the name of an image is text")?;
    let store = super::store::open(root)?;
    let image = store.resolve(name)?;
    spec.lowers = store.lower_dirs(&image.diff_ids)?;
    let used = store.use_layers(&image.diff_ids)?;
    if ephemeral {
        let (upper, work) = used.scratch()?;
        spec.upper = Some(upper);
        spec.work = Some(work);
    }
    Ok(used)
}

/// Mounts what is specified, here or in a daemon.
pub(crate) fn start(spec: MountSpec, foreground: bool) -> Result<(), MountError> {
    if spec.remount {
        return session::remount(&spec);
    }
    if foreground {
        let nobody = &mut daemonize::Ready::nobody_waits();
        session::serve(spec, nobody, daemonize::Post::Alone, || ())
    } else {
        daemonize::in_background(plan(&spec), serving(spec, None))
    }
}

fn spec(args: Args) -> anyhow::Result<MountSpec> {
    let mut parsed = Parsed::default();
    for options in &args.options {
        parse(options.as_bytes(), Mode::Strict, &mut parsed)?;
    }
    let mountpoint = args.places.last().cloned().unwrap_or_default();
    let mut spec = MountSpec::new(mountpoint, "plyfs", Invoker::current());
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
