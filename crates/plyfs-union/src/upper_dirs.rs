//! One object for each upper directory, for as long as anything is reached through it.
//!
//! A file's place points at the object of its directory, and may do so longer than the
//! directory's inode is known: a hard link keeps a file known under another name. A rename
//! updates the object of the directory that moves, so there must not be a second one.
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::NameBuf;
use plyfs_sys::stat::LayerIno;

/// Below this many entries nobody looks for dead ones.
const FEW: usize = 1024;

/// The objects of upper directories that are in use.
#[derive(Debug, Default)]
pub(crate) struct UpperDirs {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    objs: HashMap<LayerIno, Weak<Obj>>,
    /// Entries after the last clearing; at twice that many the dead ones go.
    cleared: usize,
}

impl UpperDirs {
    /// The object of the directory `id`, which has just been found as `name` in `dir`.
    pub(crate) fn obj(&self, id: LayerIno, dir: &Arc<Obj>, name: NameBuf) -> Arc<Obj> {
        let mut known = self.known.lock();
        if let Some(obj) = known.objs.get(&id).and_then(Weak::upgrade) {
            drop(known);
            note_place(&obj, dir, name);
            return obj;
        }
        let obj = Obj::found(LayerIdx::UPPER, id, dir, name);
        known.objs.insert(id, Arc::downgrade(&obj));
        if known.objs.len() > FEW.max(2 * known.cleared) {
            known.objs.retain(|_, obj| obj.strong_count() > 0);
            known.cleared = known.objs.len();
        }
        obj
    }

    /// The directory has been removed: its number may be used again.
    pub(crate) fn removed(&self, id: LayerIno) {
        self.known.lock().objs.remove(&id);
    }
}

/// A directory has one name: where it was found is where it is.
fn note_place(obj: &Obj, dir: &Arc<Obj>, name: NameBuf) {
    let right = obj
        .place()
        .names
        .iter()
        .any(|(d, n)| d.id() == dir.id() && *n == name);
    if !right {
        let mut place = obj.place_mut();
        place.names.clear();
        place.add_name(dir, name);
    }
}
