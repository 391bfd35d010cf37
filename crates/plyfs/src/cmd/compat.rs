//! Called as a mount program: the grammar and the habits of fuse-overlayfs and mount(8).
use std::ffi::OsString;
use std::process::ExitCode;

use plyfs_mount::compat::{self, CalledAs, MountRequest, Request};
use plyfs_mount::spec::Invoker;

use crate::cmd::{mount, version};
use crate::{exit, logging, options_text, output};

/// Runs with the words after the program's name.
pub(crate) fn run(words: Vec<OsString>, called: CalledAs) -> ExitCode {
    let (usage, failed) = match called {
        CalledAs::MountHelper => (exit::MOUNT_HELPER_USAGE, exit::MOUNT_HELPER_FAILED),
        _ => (exit::FAILED, exit::FAILED),
    };
    match compat::read(words, called, Invoker::current()) {
        Err(e) => {
            output::complain(e);
            ExitCode::from(usage)
        }
        Ok(Request::Help) => exit::code(super::done(output::line(help()))),
        Ok(Request::Version) => exit::code(super::done(output::line(version::as_called(called)))),
        Ok(Request::Mount(request)) => match mount_as_asked(*request) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                output::complain(e);
                ExitCode::from(failed)
            }
        },
    }
}

fn mount_as_asked(request: MountRequest) -> Result<(), plyfs_mount::MountError> {
    request.warnings.iter().for_each(output::complain);
    logging::start(request.debug, request.foreground);
    mount::start(request.spec, request.foreground)
}

fn help() -> String {
    format!(
        "usage: fuse-overlayfs [-f] [-d] [-o OPTION[,OPTION...]]... [SOURCE] MOUNTPOINT\n\n  \
         -f                    stay in the foreground\n  \
         -d, --debug           log to stderr; implies -f\n  \
         -h, --help            this text\n  \
         -V, --version         the version\n\n{}",
        options_text::option_list()
    )
}
