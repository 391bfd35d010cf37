//! What few programs ask for and some depend on: locks, odd times, extremes, events, special files.
mod data;
mod events;
mod extremes;
mod locks;
mod nameless;
mod special;

use std::fs::{File, OpenOptions};
use std::path::Path;

/// A file open for reading and writing.
fn both(path: impl AsRef<Path>) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}
