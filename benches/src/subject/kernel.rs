//! Kernel overlayfs, mounted by the new mount calls: one page of options is too short for 120 layers.
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::{Mounted, Subject};
use crate::site::Stack;

/// The reference.
#[derive(Debug)]
pub struct KernelOverlay;

/// The name of the reference in tables; ratios are to it.
pub(crate) const NAME: &str = "overlayfs";

impl Subject for KernelOverlay {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        let release = nix::sys::utsname::uname();
        let release = release.map(|name| name.release().display().to_string());
        format!(
            "kernel {}",
            release.unwrap_or_else(|_| "unknown".to_owned())
        )
    }

    fn mount(&self, stack: &Stack) -> Result<Mounted> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen(overlay)")?;
        let set = |key: &str, value: &Path| {
            fsconfig_set_string(&fs, key, value)
                .with_context(|| format!("overlay {key}={}", value.display()))
        };
        for lower in &stack.lowers {
            set("lowerdir+", lower)?;
        }
        set("upperdir", &stack.upper)?;
        set("workdir", &stack.work)?;
        for (key, value) in stack.options {
            set(key, Path::new(value))?;
        }
        fsconfig_create(&fs).context("create the overlay")?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .context("fsmount(overlay)")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", CWD, &stack.mountpoint, flags)
            .with_context(|| format!("move_mount to {}", stack.mountpoint.display()))?;
        Ok(Mounted::kernel(stack.mountpoint.clone()))
    }
}
