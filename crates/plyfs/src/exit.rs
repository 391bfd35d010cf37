//! Exit codes, a promise to scripts: 0 done, 1 failed, 2 the command line is wrong.
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::output;

/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// The command line means nothing.
pub(crate) const USAGE: u8 = 2;
/// mount(8) wants this of its helpers when a mount fails.
pub(crate) const MOUNT_HELPER_FAILED: u8 = 32;
/// mount(8) wants this of its helpers when they are called wrongly.
pub(crate) const MOUNT_HELPER_USAGE: u8 = 1;

/// The code for the result of a command; an error is printed as one line.
pub(crate) fn code(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(e) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            output::complain(format_args!("{e:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Whoever read our output has seen enough (`plyfs diff | head`).
fn is_closed_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// The code for what clap says, which is also how it answers --help and --version.
pub(crate) fn usage(e: &clap::Error) -> ExitCode {
    match e.print() {
        Ok(()) if !e.use_stderr() => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}
