//! The order in which locks are taken.
//!
//! 1. `Inode::copy_up` of one inode (never two; parents are copied up and let go first);
//! 2. `DirState::names` of the directories an operation changes, in ascending `NodeId`, by
//!    [`lock_dirs`] alone where there are several;
//! 3. `Obj::place` of an object whose names change, ascending serial where there are two;
//! 4. leaves: `Inode::link`, `Inode::key`, table shards, caches. A leaf calls nothing.
//!
//! Data is copied with lock 1 alone, so readers and other names are not held up.
use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use smallvec::SmallVec;

use crate::Result;
use crate::inode::Inode;

/// The name locks of several directories.
pub(crate) type DirGuards<'a> = SmallVec<[RwLockWriteGuard<'a, ()>; 3]>;

/// Locks the names of all `dirs` for writing; the same directory may be given twice.
pub(crate) fn lock_dirs<'a>(dirs: &[&'a Arc<Inode>]) -> Result<DirGuards<'a>> {
    let mut sorted: SmallVec<[&'a Arc<Inode>; 3]> = dirs.iter().copied().collect();
    sorted.sort_by_key(|d| d.id);
    sorted.dedup_by_key(|d| d.id);
    let mut guards = DirGuards::new();
    for dir in sorted {
        guards.push(dir.dir_state()?.names.write());
    }
    Ok(guards)
}
