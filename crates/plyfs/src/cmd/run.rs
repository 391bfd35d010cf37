//! `plyfs run` and `plyfs bundle`: an image's program by an OCI runtime.
mod bundle;
mod process;
mod spec;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;

use plyfs_image::Store;
use plyfs_image::store::containers::Container;
use plyfs_sys::mount::Unmount;

use crate::cmd::{container, store};
use crate::{logging, output};

/// What the program gets, whoever runs it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProcessArgs {
    /// Instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// NAME=VALUE, or NAME with the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// NAME or UID, with :GROUP or :GID
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Show a directory or file of this machine in the container
    #[arg(short, long, value_name = "HOST:INSIDE[:ro]")]
    pub volume: Vec<String>,
    /// The network of this machine, or none
    #[arg(long, value_enum, default_value = "host")]
    pub network: spec::Network,
    /// Host name inside; the container's name otherwise
    #[arg(long)]
    pub hostname: Option<String>,
    /// A terminal for the program
    #[arg(short, long)]
    pub tty: bool,
    /// Standard input is always the program's; for those who are used to -it
    #[arg(short, long)]
    pub interactive: bool,
    /// The root file system cannot be written
    #[arg(long)]
    pub read_only: bool,
}

/// `plyfs run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plyfs run debian:12 -- cat /etc/os-release\n  \
    plyfs run -t -v /src:/src --keep --name build debian:12 -- bash\n\n\
    The exit status is the program's; 125 when the container could not be made or run,\n    \
    126 when the program cannot be executed, 127 when it is not there.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub process: ProcessArgs,
    /// What to call the container; made up otherwise
    #[arg(long)]
    pub name: Option<String>,
    /// Keep the container and what was written in it
    #[arg(long)]
    pub keep: bool,
    /// Remove the container afterwards, which is done unless --keep is given
    #[arg(long, conflicts_with = "keep")]
    pub rm: bool,
    /// The runtime; crun or runc, whichever is there, otherwise
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// NAME[:TAG] of the image, or the beginning of its id
    pub image: String,
    /// The program and its arguments; the image's own otherwise
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `plyfs bundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    plyfs container create debian:12 --name web\n  \
    plyfs bundle web /run/web\n  \
    plyfs container mount web && crun run --bundle /run/web web")]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    pub process: ProcessArgs,
    /// The container
    pub name: String,
    /// Where to write config.json
    pub dir: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
    /// The program and its arguments; the image's own otherwise
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Writes a bundle whose root is where the container is mounted by default.
pub(crate) fn bundle(args: &BundleArgs, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let container = store.container(&args.name)?;
    bundle::write(&store, &container, &args.process, &args.command, &args.dir)?;
    if !args.json {
        return Ok(());
    }
    let told = serde_json::json!({
        "name": container.name,
        "bundle": std::path::absolute(&args.dir)?,
        "root": container::mounted_at(&container)?.unwrap_or_else(|| container.merged()),
    });
    output::line(serde_json::to_string_pretty(&told)?)
}

/// Runs a program in a container that is made for it.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<ExitCode> {
    match in_container(args, root) {
        Ok(code) => Ok(code),
        Err(e) => {
            output::complain(format_args!("{e:#}"));
            Ok(ExitCode::from(process::NOT_RUN))
        }
    }
}

fn in_container(args: &Args, root: Option<&Path>) -> anyhow::Result<ExitCode> {
    if args.process.tty && !std::io::stdin().is_terminal() {
        bail!("-t needs a terminal as standard input: leave it out, or run this in one");
    }
    let runtime = process::runtime(args.runtime.as_deref())?;
    let store = store::open(root)?;
    let image = store.resolve(&args.image)?;
    let made_up = container::made_up(&args.image);
    let name = args.name.as_deref().unwrap_or(&made_up);
    let container = store.create_container(name, &image, &args.image)?;
    drop(store);
    logging::start(false, false);
    let ran = mounted(args, root, &container, &runtime);
    let left = leave(args.keep, root, &container);
    let code = ran?;
    left?;
    Ok(code)
}

fn mounted(
    args: &Args,
    root: Option<&Path>,
    made: &Container,
    runtime: &Path,
) -> anyhow::Result<ExitCode> {
    container::mount_at(store::open(root)?, made, &made.merged())?;
    let dir = made.dir.join("bundle");
    let store: Store = store::open(root)?;
    bundle::write(&store, made, &args.process, &args.command, &dir)?;
    drop(store);
    process::run(runtime, &dir, &made.name)
}

/// Takes the mount away and, unless it is kept, the container.
fn leave(keep: bool, root: Option<&Path>, made: &Container) -> anyhow::Result<()> {
    if container::unmount(made, Unmount::Idle).is_err() {
        // Something that the program left running still has files open.
        container::unmount(made, Unmount::Lazy)?;
    }
    if keep {
        return Ok(());
    }
    Ok(store::open(root)?.remove_container(made)?)
}
