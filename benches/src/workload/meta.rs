//! Names and attributes: find, stat, failed opens, listings, chown.
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{MetadataExt, lchown};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Done;
use super::clients::share_files;
use crate::site::Site;

/// Whom [`chown`] gives files to.
const OWNER: u32 = 1234;

/// `find -ls`; its lines are counted.
pub(super) fn find(site: &Site) -> Result<Done> {
    let mut find = Command::new("find")
        .arg(&site.root)
        .arg("-ls")
        .stdout(Stdio::piped())
        .spawn()
        .context("start find")?;
    let out = find.stdout.take().context("the output of find")?;
    let mut reader = BufReader::with_capacity(64 << 10, out);
    let mut lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        lines += buffer.iter().filter(|&&byte| byte == b'\n').count();
        let length = buffer.len();
        reader.consume(length);
    }
    let status = find.wait()?;
    ensure!(status.success(), "find ended with {status}");
    Ok(Done::units(lines as u64))
}

/// Every entry, and the root itself.
pub(super) fn find_expect(site: &Site) -> Done {
    Done::units(site.built.entries + 1)
}

/// lstat of every file.
pub(super) fn stat(site: &Site) -> Result<Done> {
    let mut units = 0;
    for file in &site.built.files {
        let path = site.path(file);
        let stat = fs::symlink_metadata(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(
            stat.is_file() && stat.len() > 0,
            "{} is not as it was made",
            path.display()
        );
        units += 1;
    }
    Ok(Done::units(units))
}

/// The same lookups by many clients, each with files of its own.
pub(super) fn stat_shared<const CLIENTS: usize>(site: &Site) -> Result<Done> {
    share_files::<CLIENTS>(site, |site, files| {
        for file in files {
            let path = site.path(file);
            fs::symlink_metadata(&path).with_context(|| format!("{}", path.display()))?;
        }
        Ok(Done::units(files.len() as u64))
    })
}

/// One unit for each file.
pub(super) fn each_file(site: &Site) -> Done {
    Done::units(site.built.files.len() as u64)
}

/// Opens a name that does not exist beside every file.
pub(super) fn missing(site: &Site) -> Result<Done> {
    let mut units = 0;
    for file in &site.built.files {
        let path = site.path(file).with_extension("so");
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => units += 1,
            Err(error) => return Err(error).context(path.display().to_string()),
            Ok(_) => bail!("{} exists", path.display()),
        }
    }
    Ok(Done::units(units))
}

/// Lists every directory.
pub(super) fn readdir(site: &Site) -> Result<Done> {
    let mut units = list(site, "")?;
    for dir in &site.built.dirs {
        units += list(site, dir)?;
    }
    Ok(Done::units(units))
}

fn list(site: &Site, dir: impl AsRef<std::path::Path>) -> Result<u64> {
    let path = site.path(dir);
    let mut units = 0;
    for entry in fs::read_dir(&path).with_context(|| format!("{}", path.display()))? {
        entry.with_context(|| format!("read {}", path.display()))?;
        units += 1;
    }
    Ok(units)
}

/// Every entry is in one listing.
pub(super) fn readdir_expect(site: &Site) -> Done {
    Done::units(site.built.entries)
}

/// Lists the crowded directory.
pub(super) fn crowd(site: &Site) -> Result<Done> {
    list(site, "crowd").map(Done::units)
}

/// Every name of the crowd.
pub(super) fn crowd_expect(site: &Site) -> Done {
    Done::units(site.sizes.crowd as u64)
}

/// chown of everything, depth last, as `chown -R` does.
pub(super) fn chown(site: &Site) -> Result<Done> {
    let mut units = 0;
    for path in site.built.dirs.iter().chain(&site.built.files) {
        let path = site.path(path);
        lchown(&path, Some(OWNER), Some(OWNER)).with_context(|| format!("{}", path.display()))?;
        units += 1;
    }
    Ok(Done::units(units))
}

/// One unit for each entry.
pub(super) fn all_entries(site: &Site) -> Done {
    Done::units(site.built.entries)
}

/// Everything has the new owner, and nothing in the lower layer.
pub(super) fn chown_check(site: &Site) -> Result<()> {
    for path in site.built.dirs.iter().chain(&site.built.files) {
        let stat = fs::symlink_metadata(site.path(path))?;
        ensure!(
            stat.uid() == OWNER,
            "{} has the owner {}",
            path.display(),
            stat.uid()
        );
        let lower = fs::symlink_metadata(site.lowers[0].join(path))?;
        ensure!(
            lower.uid() != OWNER,
            "{} has a new owner in the lower layer",
            path.display()
        );
    }
    Ok(())
}
