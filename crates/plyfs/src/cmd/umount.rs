//! `plyfs umount`.
use plyfs_mount::unmount;
use plyfs_sys::mount::Unmount;

use crate::args::UmountArgs;

/// Unmounts and waits for the daemon.
pub(crate) fn run(args: &UmountArgs) -> anyhow::Result<()> {
    let how = if args.lazy {
        Unmount::Lazy
    } else {
        Unmount::Idle
    };
    Ok(unmount::unmount(&args.mountpoint, how)?)
}
