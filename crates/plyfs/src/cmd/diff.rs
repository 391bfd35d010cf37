//! `plyfs diff`: what an upper layer changes, for people and for programs.
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use plyfs_format::names::XattrNamespace;
use plyfs_image::layer_tar;
use plyfs_mount::state::Watched;
use plyfs_mount::unmount;
use plyfs_sys::{io, process};
use serde::Serialize;

use crate::diff::{Change, changes};
use crate::output;

/// `plyfs diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plyfs diff merged\n  \
    plyfs diff --upper changes --lower app --lower base --json\n  \
    plyfs diff merged --tar=layer.tar\n\n\
    A directory counts as changed when it or something in it changed. Bytes of a name that are\n\
    no UTF-8 are written \\xNN; a backslash is written \\\\.")]
pub(crate) struct Args {
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
    /// Write the changes as an OCI image layer instead: a tar archive to FILE or stdout
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-",
        require_equals = true, conflicts_with = "json")]
    pub tar: Option<PathBuf>,
}

/// How long a new mount may take to tell its layers.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

/// Prints the changes.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let (Some(_), Some(mountpoint)) = (&args.tar, &args.mountpoint) {
        flush(mountpoint)?;
    }
    let (upper, lowers) = match (args.upper, args.mountpoint) {
        (Some(upper), _) => (upper, args.lowers),
        (None, Some(mountpoint)) => layers_of(&mountpoint)?,
        (None, None) => bail!("name a mountpoint or --upper"),
    };
    if let Some(file) = args.tar {
        return write_tar(&upper, &lowers, &file);
    }
    show(&upper, &lowers, args.json)
}

/// Prints the changes of an upper.
pub(crate) fn show(upper: &Path, lowers: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let changes = changes(upper, lowers)
        .with_context(|| format!("comparing upper {upper:?} with its lower layers"))?;
    if json {
        let all: Vec<JsonChange> = changes.iter().map(JsonChange::new).collect();
        return output::line(serde_json::to_string_pretty(&all)?);
    }
    changes.iter().try_for_each(|c| {
        output::line(format_args!(
            "{} {}",
            c.kind.letter(),
            output::escaped(&c.path)
        ))
    })
}

/// What programs have written may still be in the kernel's cache of the mount.
fn flush(mountpoint: &Path) -> anyhow::Result<()> {
    let dir = std::fs::File::open(mountpoint).with_context(|| format!("{mountpoint:?}"))?;
    io::syncfs(dir.as_fd()).with_context(|| format!("writing back {mountpoint:?}"))
}

/// The upper's changes as an image layer. A file gets its name when it is complete.
fn write_tar(upper: &Path, lowers: &[PathBuf], file: &Path) -> anyhow::Result<()> {
    let trusted = process::in_initial_user_ns() && process::has_sys_admin();
    let options = layer_tar::Options {
        namespace: if trusted {
            XattrNamespace::Trusted
        } else {
            XattrNamespace::User
        },
        latest: None,
    };
    if file == Path::new("-") {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            bail!("an archive is not for a terminal: give a file (--tar=FILE) or a pipe");
        }
        let out = BufWriter::with_capacity(1 << 20, stdout.lock());
        let (mut out, _) = layer_tar::write_changes(upper, lowers, out, options)?;
        return Ok(out.flush()?);
    }
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    let early = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))
        .with_context(|| format!("making {file:?}"))?;
    let out = BufWriter::with_capacity(1 << 20, early);
    let (out, _) = layer_tar::write_changes(upper, lowers, out, options)?;
    let early = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    early.as_file().sync_all()?;
    let mode = std::fs::Permissions::from_mode(0o644);
    early.as_file().set_permissions(mode)?;
    early
        .persist(file)
        .with_context(|| format!("naming {file:?}"))?;
    Ok(())
}

/// Upper and lowers of a live mount, as its daemon has told.
fn layers_of(mountpoint: &Path) -> anyhow::Result<(PathBuf, Vec<PathBuf>)> {
    let entry = unmount::find(mountpoint)?;
    let Some(watched) = wait_for_state(entry.dev) else {
        bail!("{mountpoint:?} does not tell its layers: name them with --upper and --lower");
    };
    let Some(upper) = watched.state.upper.as_ref() else {
        bail!("{mountpoint:?} is mounted read-only: there is no upper that could change anything");
    };
    Ok((
        upper.to_path(),
        watched.state.lowers.iter().map(|l| l.to_path()).collect(),
    ))
}

/// A mount is in the tree a moment before its daemon tells about it.
fn wait_for_state(dev: (u32, u32)) -> Option<Watched> {
    let until = Instant::now() + STATE_PATIENCE;
    loop {
        let found = Watched::open(dev);
        if found.is_some() || Instant::now() >= until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Serialize)]
struct JsonChange {
    kind: char,
    path: String,
    /// The exact bytes in hexadecimal, where `path` cannot say them.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    file_type: Option<&'static str>,
}

impl JsonChange {
    fn new(change: &Change) -> Self {
        let exact = std::str::from_utf8(&change.path).is_ok();
        Self {
            kind: change.kind.letter(),
            path: String::from_utf8_lossy(&change.path).into_owned(),
            path_bytes: (!exact).then(|| change.path.iter().map(|b| format!("{b:02x}")).collect()),
            file_type: change.file_type,
        }
    }
}
