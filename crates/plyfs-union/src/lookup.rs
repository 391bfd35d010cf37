//! Looking up a name: what it means, and the inode it is.
use std::sync::Arc;

use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{Name, NameBuf};

use crate::attr::Attr;
use crate::inode::{Inode, Key, Link, NodeId, Parts};
use crate::merge::{Ask, Merged};
use crate::table::{InodeRef, Parent};
use crate::{Error, Result, Union};

/// An inode found or made, with its attributes.
#[derive(Debug)]
pub struct Entry {
    /// The inode, counted.
    pub node: InodeRef,
    /// Its attributes.
    pub attr: Attr,
}

impl Union {
    /// Looks up `name` in a directory: None when nothing has it.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE, ENAMETOOLONG; EIO for malformed layers and failing disks.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let dir = self.inode(parent)?;
        let name = Name::new(name)?;
        let _names = dir.live_dir()?.names.read();
        self.lookup_locked(&dir, name)
    }

    /// [`Union::lookup`] for one who holds the directory's names.
    pub(crate) fn lookup_locked(&self, dir: &Arc<Inode>, name: &Name) -> Result<Option<Entry>> {
        let ask = match self.upper_lacks(dir, name) {
            true => Ask::Lowers,
            false => Ask::All,
        };
        self.lookup_asking(dir, name, ask)
    }

    /// [`Union::lookup_locked`] without what need not be asked.
    pub(crate) fn lookup_asking(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        ask: Ask,
    ) -> Result<Option<Entry>> {
        let _index = self.index_guard();
        let Some(merged) = self.merge_asking(dir, name, ask)? else {
            return Ok(None);
        };
        let top = merged.top;
        let node = self.intern(dir, name, merged)?;
        let attr = self.show(&node, &top)?;
        Ok(Some(Entry { node, attr }))
    }

    /// The inode of what [`Union::merge`] found as `name` in `dir`.
    pub(crate) fn intern(&self, dir: &Arc<Inode>, name: &Name, merged: Merged) -> Result<InodeRef> {
        let key = self.key_of(dir, name, &merged)?;
        let has_alias = merged.upper.is_some() && !merged.index.no_alias;
        if let Some(known) = self.table.find(&key) {
            if has_alias {
                self.note_name(dir, name, &known);
            }
            return Ok(known);
        }
        let parts = self.parts_of(dir, name, merged)?;
        let node = self.table.intern(&key, Some((dir, name)), || parts);
        if has_alias {
            self.note_name(dir, name, &node);
        }
        Ok(node)
    }

    /// What an inode is made of that [`Union::merge`] found as `name` in `dir`.
    pub(crate) fn parts_of(&self, dir: &Arc<Inode>, name: &Name, merged: Merged) -> Result<Parts> {
        let st_ino = self.st_ino_of(&merged)?;
        let name = merged.keep_name(name);
        let upper = match (&merged.upper, dir.upper()) {
            (Some(found), _) if merged.index.no_alias => merged
                .index
                .name
                .as_ref()
                .and_then(|n| self.index_obj(found.id(), n)),
            (Some(found), Some(dir_obj)) => Some(self.upper_obj(found, dir_obj, name.clone())),
            _ => None,
        };
        let link = self
            .needs_link(&merged)
            .then(|| self.link_to(dir, name.clone()))
            .transpose()?;
        Ok(Parts {
            kind: merged.kind(),
            st_ino,
            upper,
            lowers: merged.lowers,
            metacopy: merged.metacopy,
            impure: merged.impure,
            link,
            index: merged.index.into_state(),
        })
    }

    /// The object of what was found as `name` in an upper directory.
    pub(crate) fn upper_obj(&self, found: &Stat, dir: &Arc<Obj>, name: NameBuf) -> Arc<Obj> {
        match found.kind() {
            Kind::Dir => self.upper_dirs.obj(found.id(), dir, name),
            _ => Obj::found(LayerIdx::UPPER, found.id(), dir, name),
        }
    }

    /// Directories need to know their parent, and so does what may have to be copied up.
    fn needs_link(&self, merged: &Merged) -> bool {
        merged.kind() == Kind::Dir
            || (merged.upper.is_none() && self.stack.upper.is_some() && !merged.index.wanted)
    }

    pub(crate) fn link_to(&self, dir: &Arc<Inode>, name: NameBuf) -> Result<Link> {
        let parent = Parent::of(dir).ok_or(Error::Stale)?;
        Ok(Link { parent, name })
    }

    /// A known upper object may have been found under a further name.
    fn note_name(&self, dir: &Arc<Inode>, name: &Name, node: &Arc<Inode>) {
        if node.kind == Kind::Dir {
            return;
        }
        if let (Some(obj), Some(dir_obj)) = (node.upper(), dir.upper()) {
            let known = obj
                .place()
                .names
                .iter()
                .any(|(d, n)| d.id() == dir_obj.id() && **n == *name);
            if !known {
                let mut place = obj.place_mut();
                place.add_name(dir_obj, name.to_owned());
                self.journal_name(dir, name, node);
                place.pinned = None;
            }
        }
    }

    pub(crate) fn key_of(&self, dir: &Inode, name: &Name, merged: &Merged) -> Result<Key> {
        if let Some(found) = &merged.upper {
            return Ok(Key::Obj(LayerIdx::UPPER, found.id()));
        }
        let lower = merged
            .lowers
            .first()
            .ok_or(Error::Malformed("nothing was merged"))?;
        let hard_link = merged.kind() != Kind::Dir && merged.top.nlink > 1;
        if hard_link && self.stack.upper.is_some() && !merged.index.wanted {
            let parent = dir
                .lowers
                .dirs()
                .iter()
                .find(|o| o.layer() == lower.layer());
            let parent = parent.map_or(lower.id(), |o| o.id());
            return Ok(Key::Alias(lower.layer(), parent, name.to_owned()));
        }
        Ok(Key::Obj(lower.layer(), lower.id()))
    }

    /// st_ino by the rule of `ovl_getattr()`: that of the lower object it was copied up from,
    /// unless that is a hard link, whose names become different files.
    pub(crate) fn st_ino_of(&self, merged: &Merged) -> Result<u64> {
        let Some(upper) = &merged.upper else {
            let id = merged.lowers.first().map_or(merged.top.id(), |o| o.id());
            return Ok(self.stack.st_ino(id));
        };
        if merged.kind() == Kind::Dir {
            let id = merged.lowers.first().map_or(upper.id(), |o| o.id());
            return Ok(self.stack.st_ino(id));
        }
        if let (Some(_), Some(lower)) = (&merged.index.name, merged.index.lower) {
            return Ok(self.stack.st_ino(lower));
        }
        if let Some(origin) = &merged.marks.origin
            && let Some(lower) = self.stack.resolve_origin(origin)?
            && lower.nlink == 1
            && lower.kind() == merged.kind()
        {
            return Ok(self.stack.st_ino(lower.id()));
        }
        Ok(self.stack.st_ino(upper.id()))
    }
}
