//! The index: with `index=on` the names of a lower hard link stay one file after copy-up.
//!
//! The copy is published in the directory `index` of the workdir, under the file handle of the
//! lower file it was made from. Every name a lower has finds it there; a name gets a link in the
//! upper when it is renamed or removed. The mark `nlink` holds how many names the view shows,
//! relative to a real link count, so that it is right if we die between two steps (kernel
//! `ovl_nlink_start()`).
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockReadGuard};
use plyfs_format::index::{index_name, is_temporary};
use plyfs_format::names::{INDEX_DIR, XattrNamespace};
use plyfs_format::nlink::{self, Base, Nlink};
use plyfs_format::origin::Origin;
use plyfs_layer::{LayerIdx, LayerRoot, Obj, Staged, file_marks, set_mark};
use plyfs_sys::attr::{self as sys_attr, SetTime};
use plyfs_sys::stat::{LayerIno, Stat};
use plyfs_sys::{At, Errno, Name, NameBuf, SysError, dir, make, open, stat, xattr};

use crate::inode::{Inode, KnownBy};
use crate::merge::Merged;
use crate::{Error, Result, Union};

/// The directory of the index.
#[derive(Debug)]
pub(crate) struct Index {
    dir: Arc<Obj>,
    /// Held for writing while a copy is published, for reading while a lower hard link is looked
    /// up: a lookup must not make an inode of the lower file when the copy has just appeared.
    publish: RwLock<()>,
}

/// What an inode knows of the index, where its copy is or would be there.
#[derive(Debug, Default)]
pub(crate) struct IndexState {
    /// The name in the index, once there is a copy.
    pub(crate) name: OnceLock<NameBuf>,
    /// Link count of the lower file; it never changes.
    pub(crate) lower_nlink: u32,
}

/// What a lookup found in the index.
#[derive(Debug, Clone, Default)]
pub(crate) struct IndexFound {
    pub(crate) name: Option<NameBuf>,
    pub(crate) lower: Option<LayerIno>,
    pub(crate) lower_nlink: u32,
    pub(crate) wanted: bool,
    /// The looked-up name itself has no link in the upper.
    pub(crate) no_alias: bool,
}

impl IndexFound {
    /// What an inode keeps of it, if there is anything to keep.
    pub(crate) fn into_state(self) -> Option<IndexState> {
        if !self.wanted {
            return None;
        }
        let name = OnceLock::new();
        if let Some(n) = self.name {
            name.get_or_init(|| n);
        }
        Some(IndexState {
            name,
            lower_nlink: self.lower_nlink,
        })
    }
}

impl Index {
    /// Opens the index beneath `work` and ties it to the upper and the topmost lower, as
    /// `ovl_get_indexdir()` does: an index of other layers would give wrong files.
    pub(crate) fn open(
        work: BorrowedFd<'_>,
        upper: &LayerRoot,
        lower: Option<Origin>,
        own: Option<Origin>,
        ns: XattrNamespace,
    ) -> Result<Option<Self>> {
        let (Some(lower), Some(own)) = (lower, own) else {
            return Ok(None);
        };
        let name = Name::new(INDEX_DIR.as_bytes())?;
        match make::mkdir(work, name, 0o700) {
            Err(e) if e.errno() == Errno::EEXIST => {}
            other => other?,
        }
        let fd = open::open_dir(work, name)?;
        verify(At::object(upper), ns.origin(), &lower)?;
        verify(At::object(&fd), ns.upper(), &own)?;
        remove_temporaries(fd.as_fd())?;
        let id = stat::stat_fd(fd.as_fd())?.id();
        let dir = Obj::pinned(LayerIdx::UPPER, id, Arc::new(fd));
        Ok(Some(Self {
            dir,
            publish: RwLock::new(()),
        }))
    }
}

fn lower_nlink(inode: &Inode) -> u32 {
    inode.indexed().map_or(0, |index| index.lower_nlink)
}

/// Checks that a mark names the right object, or sets it where there is none.
fn verify(at: At<'_>, mark: &str, right: &Origin) -> Result<()> {
    let right = right.encode();
    match xattr::get(at, mark.as_bytes())? {
        Some(found) if found == right => Ok(()),
        Some(_) => Err(SysError::new("index belongs to other layers", Errno::ESTALE).into()),
        None => Ok(set_mark(at, mark, &right)?),
    }
}

/// The kernel stages in the index; what a crash of it left there goes.
fn remove_temporaries(fd: BorrowedFd<'_>) -> Result<()> {
    let list = open::open_dir_for_list(fd)?;
    let mut litter = Vec::new();
    dir::for_each::<Error>(list.as_fd(), |entry| {
        if is_temporary(entry.name) {
            litter.push(Name::new(entry.name)?.to_owned());
        }
        Ok(())
    })?;
    for name in litter {
        plyfs_layer::remove_tree(fd, &name)?;
    }
    Ok(())
}

impl Union {
    /// Keeps copies from appearing in the index while a lookup is in progress.
    pub(crate) fn index_guard(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.stack.index.as_ref().map(|i| i.publish.read())
    }

    fn index_name_of(&self, lower: &Obj) -> Result<Option<NameBuf>> {
        let origin = self
            .reach
            .with(lower, |at| self.stack.make_origin(at, lower.id().dev))?;
        let Some(name) = origin.as_ref().and_then(index_name) else {
            return Ok(None);
        };
        Ok(Some(Name::new(&name)?.to_owned()))
    }

    /// Completes what the layers say about a file by what the index says.
    pub(crate) fn ask_index(&self, merged: &mut Merged) -> Result<()> {
        let Some(index) = &self.stack.index else {
            return Ok(());
        };
        if merged.kind() == plyfs_sys::stat::Kind::Dir {
            return Ok(());
        }
        if merged.upper.is_some() {
            self.check_alias(index, merged)
        } else {
            self.find_copy(index, merged)
        }
    }

    /// A lower hard link may have been copied up under another of its names.
    fn find_copy(&self, index: &Index, merged: &mut Merged) -> Result<()> {
        let Some(lower) = merged.lowers.first().cloned() else {
            return Ok(());
        };
        if merged.top.nlink < 2 {
            return Ok(());
        }
        let Some(name) = self.index_name_of(&lower)? else {
            return Ok(());
        };
        merged.index = IndexFound {
            name: None,
            lower: Some(lower.id()),
            lower_nlink: merged.top.nlink,
            wanted: true,
            no_alias: true,
        };
        if let Some(found) = self.index_entry(index, &name)? {
            if found.kind() != merged.kind() {
                return Err(Error::Malformed("index entry of another type"));
            }
            let fd = self.reach.dir_fd(&index.dir)?;
            merged.marks = file_marks(At::entry(fd.as_fd(), &name), self.stack.ns)?;
            merged.metacopy = merged.marks.metacopy;
            merged.upper = Some(found);
            merged.top = found;
            merged.index.name = Some(name);
        }
        Ok(())
    }

    /// An upper file may be a link of a copy in the index.
    fn check_alias(&self, index: &Index, merged: &mut Merged) -> Result<()> {
        let Some(origin) = &merged.marks.origin else {
            return Ok(());
        };
        let Some(name) = index_name(origin) else {
            return Ok(());
        };
        let name = Name::new(&name)?.to_owned();
        let Some(found) = self.index_entry(index, &name)? else {
            return Ok(());
        };
        if Some(found.id()) != merged.upper.map(|u| u.id()) {
            return Ok(());
        }
        if let Some(lower) = self.stack.resolve_origin(origin)? {
            merged.index = IndexFound {
                name: Some(name),
                lower: Some(lower.id()),
                lower_nlink: lower.nlink,
                wanted: true,
                no_alias: false,
            };
        }
        Ok(())
    }

    fn index_entry(&self, index: &Index, name: &Name) -> Result<Option<Stat>> {
        let fd = self.reach.dir_fd(&index.dir)?;
        let at = At::entry(fd.as_fd(), name);
        // A whiteout in the index says that all names are gone.
        let found = stat::stat_opt(at)?
            .filter(|f| !plyfs_format::whiteout::is_whiteout_dev(f.mode, f.rdev.0, f.rdev.1));
        let seen = found.map(|f| self.stack.seen(LayerIdx::UPPER, at, f));
        Ok(seen.transpose()?)
    }

    /// The upper object of a copy in the index.
    pub(crate) fn index_obj(&self, id: LayerIno, name: &NameBuf) -> Option<Arc<Obj>> {
        let index = self.stack.index.as_ref()?;
        Some(Obj::found(LayerIdx::UPPER, id, &index.dir, name.clone()))
    }

    /// Publishes a copy in the index; from then on all names of the lower file find it.
    pub(crate) fn publish_in_index(&self, inode: &Arc<Inode>, staged: Staged<'_>) -> Result<()> {
        let index = self.stack.index.as_ref().ok_or(Error::Stale)?;
        let lower = inode.lowers.first().ok_or(Error::Stale)?;
        let name = self.index_name_of(&lower)?.ok_or(Error::Stale)?;
        let start = Nlink {
            base: Base::Lower,
            diff: 0,
        };
        set_mark(staged.at(), self.stack.ns.nlink(), &start.encode())?;
        let fd = self.reach.dir_fd(&index.dir)?;
        let _appears = index.publish.write();
        let found = stat::stat(staged.at())?;
        let file = staged.publish_new(fd.as_fd(), &name)?;
        let obj = Obj::found(LayerIdx::UPPER, found.id(), &index.dir, name.clone());
        if let Some(index) = inode.indexed() {
            index.name.get_or_init(|| name);
        }
        self.rise(inode, obj, file, None);
        self.table.rekey(inode, KnownBy::Upper);
        Ok(())
    }

    /// How many names the view shows of an indexed file whose copy has the attributes `found`.
    pub(crate) fn union_nlink(&self, inode: &Inode, found: &Stat) -> Result<u32> {
        let mark = self.raw_xattr(inode, self.stack.ns.nlink().as_bytes())?;
        let parsed = mark.and_then(|m| nlink::parse(&m).ok());
        let shown = parsed.and_then(|n| n.apply(found.nlink, lower_nlink(inode)));
        Ok(shown.unwrap_or(found.nlink.saturating_sub(1)))
    }

    /// Writes the count of names relative to `base`, before a change of the other base's count:
    /// to [`Base::Upper`] where a name comes or goes with its link in the upper, to
    /// [`Base::Lower`] where a name that shows already gets one.
    pub(crate) fn count_from(&self, inode: &Inode, base: Base) -> Result<u32> {
        let obj = inode.upper().ok_or(Error::Stale)?;
        let found = self.stat_obj(obj)?;
        let union = self.union_nlink(inode, &found)?;
        let real = match base {
            Base::Upper => found.nlink,
            Base::Lower => lower_nlink(inode),
        };
        let mark = Nlink::relative(base, union, real).ok_or(Error::Malformed("link count"))?;
        self.reach.with(obj, |at| {
            set_mark(at, self.stack.ns.nlink(), &mark.encode())
        })?;
        Ok(union)
    }

    /// Gives a name that shows an indexed file its link in the upper (`ovl_link_up()`). The
    /// caller holds the names of `dir` for writing.
    pub(crate) fn link_up(&self, dir: &Arc<Inode>, name: &Name, inode: &Inode) -> Result<()> {
        let obj = inode.upper().ok_or(Error::Stale)?;
        let dir_obj = dir.upper().ok_or(Error::ReadOnly)?;
        let fd = self.reach.dir_fd(dir_obj)?;
        let before = stat::stat_fd(fd.as_fd())?;
        self.count_from(inode, Base::Lower)?;
        self.set_impure(dir)?;
        self.reach
            .with(obj, |at| make::link(at, fd.as_fd(), name))?;
        obj.place_mut().add_name(dir_obj, name.to_owned());
        let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
        sys_attr::utimens(At::object(&fd), atime, mtime)?;
        dir.touch_names();
        Ok(())
    }

    /// Takes a file whose last name has gone out of the index (`ovl_cleanup_index()`).
    pub(crate) fn drop_from_index(&self, inode: &Arc<Inode>) -> Result<()> {
        let (Some(index), Some(name)) = (&self.stack.index, inode.index_name()) else {
            return Ok(());
        };
        let obj = inode.upper().ok_or(Error::Stale)?;
        let pin = self.reach.open_pin(obj)?;
        let fd = self.reach.dir_fd(&index.dir)?;
        let mut place = obj.place_mut();
        self.journal_pin(inode, &pin);
        make::unlink(fd.as_fd(), name)?;
        place.remove_name(&index.dir, name);
        place.pinned = Some(pin);
        drop(place);
        self.table.rekey(inode, KnownBy::Nothing);
        Ok(())
    }
}
