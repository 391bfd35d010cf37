//! The lower objects an inode is made of, in as little memory as is possible.
//!
//! Most inodes are lower files that are listed once and never touched. Such a file keeps no object
//! of its own: the directory, the name and the number say all, and the object is made when somebody
//! works on it. That is right because the place of a lower object never changes.
use std::sync::Arc;

use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::NameBuf;
use plyfs_sys::stat::{Kind, LayerIno};
use smallvec::SmallVec;

/// Lower objects, topmost first, as the layers were asked.
pub(crate) type LowerObjs = SmallVec<[Arc<Obj>; 1]>;

/// The lower objects of an inode, topmost first.
#[derive(Debug)]
pub(crate) enum Lowers {
    /// A single object that is no directory, on the file system of its directory.
    File(LowerFile),
    /// All that merge, for a directory; for a file a metacopy and what it takes its data from.
    Objs(LowerObjs),
}

/// A lower object that is no directory, by the place where it is for ever. Its device is that of
/// the directory.
#[derive(Debug)]
pub(crate) struct LowerFile {
    dir: Arc<Obj>,
    name: NameBuf,
    ino: u64,
}

impl LowerFile {
    fn of(obj: &Obj) -> Option<Self> {
        let place = obj.place();
        let (dir, name) = place.names.first().filter(|_| place.pinned.is_none())?;
        (dir.id().dev == obj.id().dev).then(|| Self {
            dir: Arc::clone(dir),
            name: name.clone(),
            ino: obj.id().ino,
        })
    }

    fn id(&self) -> LayerIno {
        LayerIno {
            dev: self.dir.id().dev,
            ino: self.ino,
        }
    }

    fn obj(&self) -> Arc<Obj> {
        Obj::found(self.dir.layer(), self.id(), &self.dir, self.name.clone())
    }
}

impl Lowers {
    /// The lowers of an inode of type `kind`.
    pub(crate) fn new(kind: Kind, objs: LowerObjs) -> Self {
        if kind != Kind::Dir
            && let [only] = &objs[..]
            && let Some(file) = LowerFile::of(only)
        {
            return Self::File(file);
        }
        Self::Objs(objs)
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Objs(objs) if objs.is_empty())
    }

    /// The topmost.
    pub(crate) fn first(&self) -> Option<Arc<Obj>> {
        match self {
            Self::File(file) => Some(file.obj()),
            Self::Objs(objs) => objs.first().cloned(),
        }
    }

    /// The deepest.
    pub(crate) fn last(&self) -> Option<Arc<Obj>> {
        match self {
            Self::File(file) => Some(file.obj()),
            Self::Objs(objs) => objs.last().cloned(),
        }
    }

    /// The lowers of a directory; of no other inode they can be had as a list.
    pub(crate) fn dirs(&self) -> &[Arc<Obj>] {
        match self {
            Self::File(_) => &[],
            Self::Objs(objs) => objs,
        }
    }

    /// Which object the topmost is.
    pub(crate) fn first_id(&self) -> Option<(LayerIdx, LayerIno)> {
        match self {
            Self::File(file) => Some((file.dir.layer(), file.id())),
            Self::Objs(objs) => objs.first().map(|obj| (obj.layer(), obj.id())),
        }
    }

    /// The directory and the name by which the topmost was found.
    pub(crate) fn first_place(&self) -> Option<(Arc<Obj>, NameBuf)> {
        match self {
            Self::File(file) => Some((Arc::clone(&file.dir), file.name.clone())),
            Self::Objs(objs) => objs.first()?.place().names.first().cloned(),
        }
    }
}
