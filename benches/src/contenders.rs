//! Which contenders does this machine have: plyfs in each data mode, and the rivals installed?
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::subject::{Grammar, Program, Subject};

/// The rivals in PATH; `fuse_overlayfs` is taken instead of the one there.
pub(crate) fn found_here(fuse_overlayfs: Option<&Path>) -> Result<Vec<Box<dyn Subject>>> {
    let mut found: Vec<Box<dyn Subject>> = Vec::new();
    let rivals = [
        ("fuse-overlayfs", "fuse-overlayfs", Grammar::Overlay),
        ("unionfs", "unionfs-fuse", Grammar::Unionfs),
        ("mergerfs", "mergerfs", Grammar::Mergerfs),
    ];
    for (program, name, grammar) in rivals {
        let given = fuse_overlayfs.filter(|_| grammar == Grammar::Overlay);
        let path = match given {
            Some(path) => Some(path.to_owned()),
            None => in_path(program),
        };
        if let Some(path) = path {
            let program = Program::new(name, &path.display().to_string())?;
            found.push(Box::new(program.speaking(grammar)));
        }
    }
    Ok(found)
}

/// plyfs with the data passed through, where the kernel is new enough (Linux 6.9).
pub(crate) fn passing(plyfs: &Path) -> Result<Option<Box<dyn Subject>>> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (6, 9) {
        return Ok(None);
    }
    let command = format!("{} -o data=passthrough", plyfs.display());
    Ok(Some(Box::new(Program::new("plyfs-passthrough", &command)?)))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
