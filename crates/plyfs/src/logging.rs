//! Where log lines go: stderr while there is one, or a file that the environment names.
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::output;

/// Starts logging. A daemon's stderr ends when it detaches; PLYFS_LOG_FILE outlives that.
pub(crate) fn start(debug: bool) {
    let default = if debug { "debug" } else { "warn" };
    let filter = EnvFilter::try_from_env("PLYFS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let file = std::env::var_os("PLYFS_LOG_FILE").and_then(|path| {
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => Some(file),
            Err(e) => {
                output::complain(format_args!("PLYFS_LOG_FILE {path:?}: {e}"));
                None
            }
        }
    });
    let started = match file {
        Some(file) => builder
            .with_ansi(false)
            .with_writer(Mutex::new(file))
            .try_init(),
        None => {
            let colour = std::io::stderr().is_terminal();
            builder
                .with_ansi(colour)
                .with_writer(std::io::stderr)
                .try_init()
        }
    };
    if let Err(e) = started {
        output::complain(format_args!("no log: {e}"));
    }
}
