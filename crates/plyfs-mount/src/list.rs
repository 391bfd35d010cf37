//! Which mounts of this mount namespace are ours, and how are they?
use std::os::unix::ffi::OsStrExt;

use plyfs_sys::Result;
use plyfs_sys::mount::{self, MountEntry};

use crate::control::{Status, Unanswered, ask_status};
use crate::state::{MountState, Watched, is_fuse};

/// A mount of ours.
#[derive(Debug)]
pub struct Found {
    /// In the tree of mounts.
    pub entry: MountEntry,
    /// The user who mounted it.
    pub owner: Option<u32>,
    /// What its daemon has written down; kept after its death.
    pub state: Option<MountState>,
}

impl Found {
    /// What its daemon says now.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub fn ask(&self) -> std::result::Result<Status, Unanswered> {
        ask_status(self.entry.dev, self.owner)
    }
}

/// All mounts of ours that this process can see, in the order they were mounted. No mount itself
/// is asked anything: one whose daemon hangs would hang the asker.
///
/// # Errors
/// When /proc cannot be read.
pub fn ours() -> Result<Vec<Found>> {
    Ok(mount::mounts()?.into_iter().filter_map(found).collect())
}

/// What is known of one mount; None when it is not ours.
#[must_use]
pub fn found(entry: MountEntry) -> Option<Found> {
    if !is_fuse(&entry.fstype) {
        return None;
    }
    let owner = owner(entry.super_options.as_bytes());
    let state = Watched::open_any(entry.dev, owner).map(|w| w.state);
    // Device numbers are given out again: the file of a dead daemon may speak of another mount.
    let state = state.filter(|s| s.mountpoint.to_path() == entry.target || is_bound(&entry));
    let named_so = entry.fstype == "fuse.plyfs" || entry.source.as_bytes().starts_with(b"plyfs#");
    (named_so || state.is_some()).then_some(Found {
        entry,
        owner,
        state,
    })
}

/// Whether a live daemon serves the device, so that a mount elsewhere is a bind mount of it.
fn is_bound(entry: &MountEntry) -> bool {
    Watched::open(entry.dev).is_some()
}

fn owner(options: &[u8]) -> Option<u32> {
    let mut words = options.split(|b| *b == b',');
    let id = words.find_map(|w| w.strip_prefix(b"user_id="))?;
    std::str::from_utf8(id).ok()?.parse().ok()
}
