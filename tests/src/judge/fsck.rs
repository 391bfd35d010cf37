//! What a mount may leave behind: an empty workdir, and marks that kernel overlayfs knows.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::case::has_option;
use super::mounts::Layout;
use super::view::list;

/// Directories that the kernel keeps in a workdir.
const WORKDIR: &[&[u8]] = &[b"work", b"index"];
/// Marks of Linux 6.18 (`fs/overlayfs/overlayfs.h`), and what users' own are escaped to.
const MARKS: &[&[u8]] = &[
    b"opaque",
    b"redirect",
    b"origin",
    b"impure",
    b"nlink",
    b"upper",
    b"uuid",
    b"metacopy",
    b"protattr",
    b"whiteout",
];

/// What is there that should not be, if something is.
pub(crate) fn fsck(layout: &Layout, options: &str) -> Result<Option<String>> {
    for name in names(&layout.work)? {
        if !WORKDIR.contains(&name.as_slice()) {
            return Ok(Some(format!("in the workdir: {}", name.escape_ascii())));
        }
    }
    let volatile = has_option(options, "volatile");
    for name in names(&layout.work.join("work"))? {
        if !(volatile && name == b"incompat") {
            return Ok(Some(format!(
                "in the workdir: work/{}",
                name.escape_ascii()
            )));
        }
    }
    let prefix: &[u8] = match has_option(options, "userxattr") {
        true => b"user.overlay.",
        false => b"trusted.overlay.",
    };
    unknown_mark(&layout.upper, prefix)
}

fn names(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(dir).with_context(|| format!("ls {}", dir.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().as_bytes().to_owned()));
    names.collect()
}

fn unknown_mark(path: &Path, prefix: &[u8]) -> Result<Option<String>> {
    let bytes = path.as_os_str().as_bytes();
    for name in list(|buf| rustix::fs::llistxattr(bytes, buf))? {
        let Some(mark) = name.0.strip_prefix(prefix) else {
            continue;
        };
        if !MARKS.contains(&mark) && !mark.starts_with(b"overlay.") {
            return Ok(Some(format!("{}: {name}", path.display())));
        }
    }
    if !path.symlink_metadata()?.is_dir() {
        return Ok(None);
    }
    for name in names(path)? {
        let found = unknown_mark(&path.join(std::ffi::OsStr::from_bytes(&name)), prefix)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
