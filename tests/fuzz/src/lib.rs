//! Fuzz targets: what strangers send must never do more than fail.
//!
//! A target takes bytes and panics where plyfs did what it must not. `scripts/fuzz` runs them under
//! libFuzzer, guided by coverage; every test run takes what is in `corpus/` through them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod manifest;
mod repair;

pub use apply::apply;
pub use manifest::manifest;
pub use repair::repair;

use std::path::Path;
use std::sync::OnceLock;

/// A directory in memory for all runs of this process.
fn scratch() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = || {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.into()
        } else {
            std::env::temp_dir()
        };
        let name = tempfile::Builder::new()
            .prefix("plyfs-fuzz-")
            .tempdir_in(base);
        name.unwrap()
    };
    DIR.get_or_init(made).path()
}
