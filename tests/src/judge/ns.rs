//! The process's surroundings: a private mount namespace, and acting as an unprivileged user for one step.

use std::path::Path;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgroups};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::ops::Who;

/// Gives the calling thread a mount namespace of its own, so that nothing mounted outlives it.
///
/// Call it before any other thread starts: threads and children inherit the namespace.
pub(crate) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .context("unshare(CLONE_NEWNS): the judge needs root (CAP_SYS_ADMIN)")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("making / private")?;
    setgroups(&[]).context("dropping supplementary groups")?;
    let control = "/sys/fs/fuse/connections";
    let mounted = std::fs::read_to_string("/proc/self/mounts")
        .context("reading /proc/self/mounts")?
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(control));
    if !mounted && Path::new(control).exists() {
        rustix::mount::mount("fusectl", control, "fusectl", MountFlags::empty(), None)
            .context("mounting fusectl")?;
    }
    Ok(())
}

/// Acts as somebody until dropped.
#[derive(Debug)]
pub(crate) struct Acting(Option<CapabilitySets>);

impl Acting {
    /// Changes this thread's file system ids and drops its effective capabilities for users.
    pub(crate) fn begin(who: Who) -> Result<Self> {
        let id = match who {
            Who::Root => return Ok(Self(None)),
            Who::Alice => 1000,
            Who::Bob => 1001,
        };
        let all = capabilities(None).context("capget")?;
        setfsgid(Gid::from_raw(id));
        setfsuid(Uid::from_raw(id));
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            ..all
        };
        set_capabilities(None, none).context("capset")?;
        Ok(Self(Some(all)))
    }

    /// Becomes root again.
    pub(crate) fn end(mut self) -> Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> Result<()> {
        let Some(all) = self.0.take() else {
            return Ok(());
        };
        set_capabilities(None, all).context("capset")?;
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        Ok(())
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            eprintln!("judge: cannot become root again: {error:#}");
            std::process::abort();
        }
    }
}
