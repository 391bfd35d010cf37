//! What all commands on the store share: opening it, and ids for people.
use std::path::{Path, PathBuf};

use plyfs_image::{Digest, Image, Store};

use crate::output;

/// Opens the store at `root`, or where it usually is.
pub(crate) fn open(root: Option<&Path>) -> anyhow::Result<Store> {
    let root = root.map_or_else(Store::default_root, PathBuf::from);
    Ok(Store::open(&root)?)
}

/// The beginning of a digest, long enough to be one of its kind.
pub(crate) fn short(digest: &Digest) -> &str {
    digest.digest().get(..12).unwrap_or(digest.digest())
}

/// Says on stderr what of an image could not be unpacked as it is, for want of privileges.
pub(crate) fn tell_losses(store: &Store, image: &Image, quiet: bool) -> anyhow::Result<()> {
    let (mut owners, mut devices) = (0, 0);
    for diff_id in &image.diff_ids {
        let layer = store.layer(diff_id)?;
        owners += layer.owners_lost;
        devices += layer.devices_lost;
    }
    if !quiet && owners > 0 {
        output::note(format_args!(
            "{owners} files are owned by you and not by whom the image says: only root can give \
             them away, or you in a namespace with subordinate ids ('unshare --map-root-user \
             --map-auto plyfs ...')"
        ));
    }
    if !quiet && devices > 0 {
        output::note(format_args!(
            "{devices} device nodes are left out: only root can make them"
        ));
    }
    Ok(())
}
