//! Turns the entries of a layer into real files.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::case::{Entry, Kind};
use super::text::{Bytes, pattern};

/// Builds one layer in the existing empty directory `root`.
///
/// Entries whose parent (or link source) is missing are left out, so that any subset of a
/// layer's entries is a layer: that is what shrinking needs.
pub(crate) fn build(root: &Path, entries: &[Entry]) -> Result<()> {
    let mut dirs = HashSet::from([Bytes::default()]);
    let mut made = HashSet::from([Bytes::default()]);
    let mut used = Vec::new();
    for entry in entries {
        let top = entry.path.0.is_empty();
        if !top && (!dirs.contains(&entry.path.parent()) || made.contains(&entry.path)) {
            continue;
        }
        if let Kind::Link { to } = &entry.kind
            && (!made.contains(to) || dirs.contains(to))
        {
            continue;
        }
        let path = locate(root, &entry.path);
        if !top {
            create(root, &path, &entry.kind)
                .with_context(|| format!("building {} in {}", entry.path, root.display()))?;
            made.insert(entry.path.clone());
            if entry.kind == Kind::Dir {
                dirs.insert(entry.path.clone());
            }
        }
        if !matches!(entry.kind, Kind::Link { .. } | Kind::Whiteout) {
            attributes(&path, entry).with_context(|| format!("attributes of {}", entry.path))?;
        }
        used.push(entry);
    }
    // Making an entry moves its parent's time, so times come last.
    for entry in used
        .iter()
        .rev()
        .filter(|entry| !matches!(entry.kind, Kind::Link { .. }))
    {
        set_time(&locate(root, &entry.path), entry.mtime)?;
    }
    if !used.iter().any(|entry| entry.path.0.is_empty()) {
        set_time(root, (1_000_000_000, 0))?;
    }
    Ok(())
}

fn locate(root: &Path, path: &Bytes) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(&path.0))
}

fn set_time(path: &Path, (sec, nsec): (i64, u32)) -> Result<()> {
    let stamp = Timespec {
        tv_sec: sec,
        tv_nsec: i64::from(nsec),
    };
    let times = Timestamps {
        last_access: stamp,
        last_modification: stamp,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("utimensat {}", path.display()))
}

fn create(root: &Path, path: &Path, kind: &Kind) -> Result<()> {
    let node = |kind, dev| rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), dev);
    match kind {
        Kind::Dir => fs::create_dir(path)?,
        Kind::File { size, data } => {
            let file = fs::File::create_new(path)?;
            for (offset, len, seed) in data {
                file.write_all_at(&pattern(*seed, *offset, *len as usize), *offset)?;
            }
            file.set_len(*size)?;
        }
        Kind::Link { to } => fs::hard_link(locate(root, to), path)?,
        Kind::Symlink { target } => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&target.0), path)?;
        }
        Kind::Fifo => node(FileType::Fifo, 0)?,
        Kind::Socket => node(FileType::Socket, 0)?,
        Kind::Char { major, minor } => node(FileType::CharacterDevice, dev(*major, *minor))?,
        Kind::Block { major, minor } => node(FileType::BlockDevice, dev(*major, *minor))?,
        Kind::Whiteout => node(FileType::CharacterDevice, 0)?,
        Kind::Xwhiteout => node(FileType::RegularFile, 0)?,
    }
    Ok(())
}

/// A device number from its parts.
pub(crate) fn dev(major: u32, minor: u32) -> Dev {
    rustix::fs::makedev(major, minor)
}

/// Owner first (it clears capabilities and setuid), then mode, then attributes (ACLs refine the mode).
fn attributes(path: &Path, entry: &Entry) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(entry.uid), Some(entry.gid)).context("chown")?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        let mode = Mode::from_raw_mode(entry.mode.0);
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).context("chmod")?;
    }
    for (name, value) in &entry.xattrs {
        rustix::fs::lsetxattr(path, name.0.as_slice(), &value.0, XattrFlags::empty())
            .with_context(|| format!("setxattr {name}"))?;
    }
    Ok(())
}
