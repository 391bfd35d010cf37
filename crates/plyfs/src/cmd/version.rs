//! The version, as people and as container tools read it.
use plyfs_mount::compat::CalledAs;

use crate::output;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints it.
pub(crate) fn run() -> anyhow::Result<()> {
    output::line(own())
}

/// One line under our own name.
fn own() -> String {
    format!("plyfs {VERSION}")
}

/// What a container tool shows as the version of its mount program (`podman info`).
pub(crate) fn as_called(called: CalledAs) -> String {
    match called {
        CalledAs::FuseOverlayfs => format!("fuse-overlayfs: version {VERSION} (plyfs)"),
        CalledAs::Plyfs | CalledAs::MountHelper => own(),
    }
}
