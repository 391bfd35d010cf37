//! Where log lines go: stderr while there is one, a file, and the journal once a daemon detaches.
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output;

/// What the command line says about the log.
#[derive(Debug, Default, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or a filter such as plyfs_union=trace
    #[arg(long = "log", global = true, value_name = "FILTER", value_parser = filter,
        help_heading = "Log")]
    pub filter: Option<String>,
    /// Where to log; without it to stderr, and to the journal once a daemon has detached
    #[arg(
        long = "log-file",
        global = true,
        value_name = "FILE",
        help_heading = "Log"
    )]
    pub file: Option<PathBuf>,
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

static ARGS: OnceLock<LogArgs> = OnceLock::new();

/// Remembers what the command line says, for when logging starts.
pub(crate) fn configure(args: LogArgs) {
    ARGS.get_or_init(|| args);
}

/// The words that have another program log as this one does.
pub(crate) fn words() -> Vec<OsString> {
    let args = ARGS.get().cloned().unwrap_or_default();
    let mut words = Vec::new();
    if let Some(filter) = args.filter {
        words.extend(["--log".into(), filter.into()]);
    }
    // A daemon has another working directory.
    let file = args.file.or_else(file_of_env);
    if let Some(file) = file.and_then(|file| std::path::absolute(file).ok()) {
        words.extend(["--log-file".into(), file.into()]);
    }
    words
}

fn file_of_env() -> Option<PathBuf> {
    let file = std::env::var_os("PLYFS_LOG_FILE").filter(|v| !v.is_empty());
    file.map(PathBuf::from)
}

/// Starts logging. A daemon's stderr ends when it detaches; a file and the journal outlive that.
pub(crate) fn start(debug: bool, foreground: bool) {
    let args = ARGS.get().cloned().unwrap_or_default();
    let env = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    let wanted = args
        .filter
        .or_else(|| Some(env("PLYFS_LOG")?.to_string_lossy().into_owned()));
    let default = if debug { "debug" } else { "warn" };
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default)).unwrap_or_else(|e| {
        output::complain(format_args!("PLYFS_LOG: {e}"));
        EnvFilter::new(default)
    });
    let path = args.file.or_else(file_of_env);
    let file = path.and_then(|path| {
        let opened = OpenOptions::new().append(true).create(true).open(&path);
        opened
            .inspect_err(|e| output::complain(format_args!("log file {path:?}: {e}")))
            .ok()
    });
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer();
    let started = match file {
        Some(file) => {
            let to_file = lines.with_ansi(false).with_writer(Mutex::new(file));
            registry.with(to_file).try_init()
        }
        None => {
            let colour = std::io::stderr().is_terminal();
            let to_stderr = lines.with_ansi(colour).with_writer(std::io::stderr);
            // A foreground process leaves the choice to whoever reads its stderr.
            let journal = if foreground {
                None
            } else {
                tracing_journald::layer().ok()
            };
            registry.with(to_stderr).with(journal).try_init()
        }
    };
    if let Err(e) = started {
        output::complain(format_args!("no log: {e}"));
    }
}
