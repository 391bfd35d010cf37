//! Removing: files that were just created, files of the lower layer.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Done;
use crate::site::Site;

/// Removes everything that the preparation created.
pub(super) fn created(site: &Site) -> Result<Done> {
    remove_all(site)
}

/// As many directories as were created.
pub(super) fn created_expect(site: &Site) -> Done {
    Done::units(site.sizes.small.div_ceil(100) as u64)
}

/// Nothing is left.
pub(super) fn created_check(site: &Site) -> Result<()> {
    empty(&site.root)
}

/// Removes everything that the lower layer holds.
pub(super) fn lower(site: &Site) -> Result<Done> {
    remove_all(site)
}

/// Every directory of the lower layer.
pub(super) fn lower_expect(site: &Site) -> Done {
    Done::units(site.built.dirs.len() as u64)
}

/// Nothing is left in the view, everything in the lower layer.
pub(super) fn lower_check(site: &Site) -> Result<()> {
    empty(&site.root)?;
    for file in &site.built.files {
        let path = site.lowers[0].join(file);
        ensure!(
            path.exists(),
            "{} is gone from the lower layer",
            path.display()
        );
    }
    Ok(())
}

fn remove_all(site: &Site) -> Result<Done> {
    let mut units = 0;
    for entry in fs::read_dir(&site.root)? {
        let path = entry?.path();
        fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        units += 1;
    }
    Ok(Done::units(units))
}

fn empty(dir: &Path) -> Result<()> {
    let left = fs::read_dir(dir)?.count();
    ensure!(left == 0, "{left} names are left in {}", dir.display());
    Ok(())
}
