//! Fuzz targets: what strangers send must never do more than fail.
//!
//! A target takes bytes and panics where plyfs did what it must not. `scripts/fuzz` runs them under
//! libFuzzer, guided by coverage; every test run takes what is in `corpus/` through them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod manifest;
mod marks;
mod options;
mod repair;

pub use apply::apply;
pub use manifest::manifest;
pub use marks::marks;
pub use options::options;
pub use repair::repair;

use std::path::{Path, PathBuf};

/// Where a run makes its directory, in memory if it can be; `scripts/fuzz` names a place that it
/// removes when a run ends without cleaning up.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match std::env::var_os("PLYFS_FUZZ_SCRATCH") {
        Some(dir) => dir.into(),
        None if memory.is_dir() => memory.into(),
        None => std::env::temp_dir(),
    }
}
