//! Watches lower layers while a stack is mounted: whoever mounts it must leave them as they were.
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mount::mounted_at;
use crate::stack::Stack;

/// What was in the lower layers when this was made; dropping it fails the test if that changed.
///
/// Contents and xattrs are not read: no change of them leaves the change time of a file alone,
/// which nobody can set back, so a layer of 100,000 files costs a second and not a minute.
#[derive(Debug)]
#[must_use = "dropping this compares the lower layers with what they were"]
pub struct LowersWatch {
    layers: Vec<(PathBuf, Layer)>,
}

type Layer = BTreeMap<PathBuf, Facts>;

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    ino: u64,
    mode: u32,
    ids: (u32, u32),
    nlink: u64,
    rdev: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stack {
    /// Watches the lower layers until the value is dropped, as every [`Mounted`](crate::Mounted)
    /// does; for tests that mount by a command of their own.
    pub fn watch_lowers(&self) -> LowersWatch {
        let layers = self.lowers().iter().filter(|layer| !is_watched(layer));
        LowersWatch {
            layers: layers.map(|l| (l.clone(), facts_below(l))).collect(),
        }
    }
}

/// A layer that is a mount of a daemon is asked by nobody but the test: what lies below it is
/// watched by that mount.
fn is_watched(layer: &Path) -> bool {
    mounted_at(layer).is_some_and(|kind| kind.starts_with("fuse"))
}

impl LowersWatch {
    /// Compares nothing at the end: for tests that change a lower layer themselves.
    pub fn look_away(&mut self) {
        self.layers.clear();
    }

    /// What is not as it was, one line an object.
    fn changes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (layer, before) in &self.layers {
            let now = facts_below(layer);
            let paths: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
            for path in paths {
                let (was, is) = (before.get(path), now.get(path));
                if was != is {
                    lines.push(format!("{}: was {was:?}, is {is:?}", path.display()));
                }
            }
        }
        lines
    }
}

impl Drop for LowersWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let lines = self.changes();
        assert!(
            lines.is_empty(),
            "a lower layer changed while it was mounted:\n{}",
            lines.join("\n")
        );
    }
}

fn facts_below(layer: &Path) -> Layer {
    let mut found = Layer::new();
    let dev = std::fs::symlink_metadata(layer).map(|meta| meta.dev()).ok();
    let mut todo = vec![layer.to_owned()];
    while let Some(path) = todo.pop() {
        // What is gone or cannot be read shows as a change, or was never seen.
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if Some(meta.dev()) != dev {
            continue;
        }
        if meta.is_dir()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            todo.extend(entries.flatten().map(|entry| entry.path()));
        }
        found.insert(path, Facts::of(&meta));
    }
    found
}

impl Facts {
    fn of(meta: &Metadata) -> Self {
        Self {
            ino: meta.ino(),
            mode: meta.mode(),
            ids: (meta.uid(), meta.gid()),
            nlink: meta.nlink(),
            rdev: meta.rdev(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
