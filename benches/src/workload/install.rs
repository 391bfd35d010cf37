//! dpkg unpacks and configures a package in the merged view.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Done, programs};
use crate::site::Site;

/// Where dpkg keeps what it knows.
const ADMIN: &str = "var/lib/dpkg";
/// Where the package puts its files.
const TARGET: &str = "usr/share/sources";

/// An empty package database; the package is made when it is first needed.
pub(super) fn prepare(site: &Site) -> Result<()> {
    let admin = site.path(ADMIN);
    for dir in ["info", "updates", "triggers"] {
        fs::create_dir_all(admin.join(dir))?;
    }
    for file in ["status", "available"] {
        fs::write(admin.join(file), "")?;
    }
    if !package(site).exists() {
        pack(site)?;
    }
    Ok(())
}

fn package(site: &Site) -> PathBuf {
    site.archive.path.with_extension("deb")
}

/// Packs the sources of the archive, uncompressed: unpacking is to be the work.
fn pack(site: &Site) -> Result<()> {
    let deb = package(site);
    let dir = deb.with_extension("tree");
    let target = dir.join(TARGET);
    for made in [&dir.join("DEBIAN"), &target] {
        fs::create_dir_all(made)?;
    }
    let control = "Package: sources\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@localhost>\n\
                   Description: sources\n";
    fs::write(dir.join("DEBIAN/control"), control)?;
    let tar = Command::new("tar")
        .arg("-xf")
        .arg(&site.archive.path)
        .arg("-C")
        .arg(&target)
        .status()
        .context("start tar")?;
    ensure!(tar.success(), "tar ended with {tar}");
    let partial = deb.with_extension("partial");
    let mut build = Command::new("dpkg-deb");
    build.args(["-Znone", "--root-owner-group", "--build"]);
    programs::run(build.arg(&dir).arg(&partial))?;
    fs::remove_dir_all(&dir)?;
    fs::rename(&partial, &deb).context("rename the package")
}

/// `dpkg -i`.
pub(super) fn install(site: &Site) -> Result<Done> {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", site.root.display()))
        .args(["--force-not-root", "--log=/dev/null", "-i"])
        .arg(package(site));
    programs::run(&mut dpkg)
}

/// dpkg says it is installed, and the files are there.
pub(super) fn check(site: &Site) -> Result<()> {
    let status = fs::read_to_string(site.path(ADMIN).join("status"))?;
    ensure!(
        status.contains("Status: install ok installed"),
        "dpkg says {status:?}"
    );
    let mut found = std::collections::BTreeMap::new();
    crate::fixture::walk(&site.path(TARGET), Path::new(""), &mut found)?;
    let entries = found.len() as u64;
    ensure!(
        entries == site.archive.entries,
        "{entries} entries of {} are installed",
        site.archive.entries
    );
    Ok(())
}
