//! git in a source tree of the upper.
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Done, write};
use crate::site::Site;

/// Whether there is a git to work with.
pub(super) fn is_here() -> bool {
    Command::new("git")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
}

/// Unpacks the sources and commits them.
pub(super) fn prepare(site: &Site) -> Result<()> {
    write::untar(site)?;
    git(site, &["init", "-q"])?;
    git(site, &["add", "-A", "-f"])?;
    git(site, &["commit", "-q", "-m", "all"])?;
    Ok(())
}

/// `git status`, which looks at every file; nothing has changed.
pub(super) fn status(site: &Site) -> Result<Done> {
    let told = git(site, &["status", "--porcelain"])?;
    ensure!(told.is_empty(), "git status tells {told:?}");
    Ok(Done::units(1))
}

/// Checks out all files once more, into a directory of their own.
pub(super) fn checkout(site: &Site) -> Result<Done> {
    git(site, &["worktree", "add", "-q", "--detach", ".git/again"])?;
    Ok(Done::units(1))
}

/// Both have one result.
pub(super) fn one(_: &Site) -> Done {
    Done::units(1)
}

/// What was checked out is what was committed.
pub(super) fn checkout_check(site: &Site) -> Result<()> {
    let told = git(site, &["-C", ".git/again", "status", "--porcelain"])?;
    ensure!(told.is_empty(), "git status tells {told:?}");
    Ok(())
}

/// git without anybody's settings.
fn git(site: &Site, arguments: &[&str]) -> Result<String> {
    let out = Command::new("git")
        .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
        .args(["-c", "gc.auto=0", "-c", "core.autocrlf=false"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .current_dir(&site.root)
        .output()
        .context("start git")?;
    let errors = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "git {arguments:?}: {errors}");
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
