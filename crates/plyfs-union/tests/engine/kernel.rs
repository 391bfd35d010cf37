//! The second judge: kernel overlayfs mounts the layers, read-only and nowhere.
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use plyfs_union::RedirectDir;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::view::{View, of_dir};

/// What kernel overlayfs shows of `layers`, topmost first; None where it cannot be asked: there
/// is none, or there are fewer than two layers, which it does not mount.
pub(crate) fn view(layers: &[PathBuf], redirect: RedirectDir) -> Option<View> {
    if layers.len() < 2 || !plyfs_testkit::can_mount_overlay() {
        return None;
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(&fs, key, value)
            .unwrap_or_else(|e| panic!("overlay {key}={}: {e}", value.display()));
    };
    for layer in layers {
        set("lowerdir+", layer);
    }
    let follow = match redirect {
        RedirectDir::NoFollow => "nofollow",
        RedirectDir::On | RedirectDir::Follow => "follow",
    };
    set("redirect_dir", Path::new(follow));
    if follow == "follow" {
        set("metacopy", Path::new("on"));
    }
    fsconfig_create(&fs).expect("kernel overlayfs refuses the layers");
    // The mount is attached nowhere and ends with its descriptor.
    let mount = fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .unwrap();
    Some(of_dir(Path::new(&format!(
        "/proc/self/fd/{}/.",
        mount.as_raw_fd()
    ))))
}
