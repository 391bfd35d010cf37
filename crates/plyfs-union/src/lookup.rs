//! The merge rule for one name.
use std::os::fd::AsFd;
use std::sync::Arc;

use plyfs_format::opaque::Opaque;
use plyfs_format::redirect::Redirect;
use plyfs_layer::{FileMarks, LayerIdx, Obj, Probe, dir_marks, file_marks, probe};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Name, NameBuf, stat};

use crate::attr::Attr;
use crate::config::RedirectDir;
use crate::inode::{Inode, Key, Link, Lowers, NodeId, Parts};
use crate::table::InodeRef;
use crate::{Error, Result, Union};

/// An inode found or made, with its attributes.
#[derive(Debug)]
pub struct Entry {
    /// The inode, counted.
    pub node: InodeRef,
    /// Its attributes.
    pub attr: Attr,
}

/// What a name means after all layers have been asked.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) upper: Option<Stat>,
    pub(crate) lowers: Lowers,
    pub(crate) top: Stat,
    pub(crate) metacopy: bool,
    pub(crate) impure: bool,
    pub(crate) marks: FileMarks,
}

impl Merged {
    pub(crate) fn kind(&self) -> Kind {
        self.top.kind()
    }
}

/// Where the layers below have what was found so far.
#[derive(Debug, Clone)]
enum Chase {
    /// Under the same name in the lower directories of the parent.
    SameName,
    /// Under another name there (relative redirect).
    OtherName(NameBuf),
    /// At a path from the root of the layer (absolute redirect).
    Path(Vec<NameBuf>),
}

/// The state of asking one layer after the other.
#[derive(Debug)]
struct Search {
    upper: Option<Stat>,
    lowers: Lowers,
    top: Option<Stat>,
    want_dir: bool,
    metacopy: bool,
    impure: bool,
    marks: FileMarks,
    chase: Chase,
    stop: bool,
}

impl Search {
    fn new() -> Self {
        Self {
            upper: None,
            lowers: Lowers::new(),
            top: None,
            want_dir: false,
            metacopy: false,
            impure: false,
            marks: FileMarks::default(),
            chase: Chase::SameName,
            stop: false,
        }
    }

    fn finish(self) -> Result<Option<Merged>> {
        let Some(top) = self.top else { return Ok(None) };
        if self.metacopy {
            return Err(Error::Malformed(
                "a metacopy file without data in any lower",
            ));
        }
        let metacopy = self.marks.metacopy && self.upper.is_some();
        Ok(Some(Merged {
            upper: self.upper,
            lowers: self.lowers,
            top,
            metacopy,
            impure: self.impure,
            marks: self.marks,
        }))
    }
}

/// A file that has as many blocks as its size needs and more than an xattr block could explain
/// holds its data, so it is no metacopy (which is all hole).
fn may_be_metacopy(found: &Stat) -> bool {
    found.size <= 8192 || found.blocks * 512 < found.size
}

impl Union {
    /// Looks up `name` in a directory: None when nothing has it.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE, ENAMETOOLONG; EIO for malformed layers and failing disks.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let dir = self.inode(parent)?;
        let name = Name::new(name)?;
        let _names = dir.dir_state()?.names.read();
        self.lookup_locked(&dir, name)
    }

    /// [`Union::lookup`] for one who holds the directory's names.
    pub(crate) fn lookup_locked(&self, dir: &Arc<Inode>, name: &Name) -> Result<Option<Entry>> {
        let Some(merged) = self.merge(dir, name)? else {
            return Ok(None);
        };
        let top = merged.top;
        let node = self.intern(dir, name, merged)?;
        let attr = self.show(&node, &top)?;
        Ok(Some(Entry { node, attr }))
    }

    /// THE merge rule: asks the layers from the top until one decides.
    pub(crate) fn merge(&self, dir: &Arc<Inode>, name: &Name) -> Result<Option<Merged>> {
        let mut search = Search::new();
        if let Some(upper) = dir.upper() {
            let fd = self.reach.dir_fd(upper)?;
            match probe(fd.as_fd(), name, self.stack.ns, false)? {
                Probe::Whiteout => return Ok(None),
                Probe::Absent => {}
                Probe::Found(found) => {
                    let at = At::entry(fd.as_fd(), name);
                    self.take_upper(dir, &mut search, at, found)?;
                }
            }
        }
        if !search.stop && dir.has_lower() {
            self.search_lowers(dir, name, &mut search)?;
        }
        search.finish()
    }

    fn take_upper(&self, dir: &Inode, s: &mut Search, at: At<'_>, found: Stat) -> Result<()> {
        s.upper = Some(found);
        s.top = Some(found);
        match found.kind() {
            Kind::Dir => {
                s.want_dir = true;
                let marks = dir_marks(at, self.stack.ns)?;
                s.impure = marks.impure;
                s.stop = marks.opaque == Opaque::Opaque;
                self.follow(s, marks.redirect)?;
                // A directory that was moved here may have its lowers anywhere.
                s.stop |= !dir.has_lower() && !matches!(s.chase, Chase::Path(_));
                if !s.stop && !dir.has_lower() {
                    return self.search_by_path(s, LayerIdx::UPPER);
                }
            }
            kind => {
                s.stop = true;
                if self.may_have_origin(dir) {
                    s.marks = file_marks(at, self.stack.ns)?;
                    if kind == Kind::File && s.marks.metacopy {
                        s.metacopy = true;
                        s.stop = false;
                        let redirect = s.marks.redirect.take();
                        self.follow(s, redirect)?;
                        if !dir.has_lower() {
                            return self.search_by_path(s, LayerIdx::UPPER);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// An upper directory that is neither merged nor impure holds only what was made there.
    fn may_have_origin(&self, dir: &Inode) -> bool {
        let impure = dir
            .dir
            .as_ref()
            .is_some_and(|d| d.impure.load(std::sync::atomic::Ordering::Relaxed));
        impure || dir.has_lower()
    }

    fn follow(&self, s: &mut Search, redirect: Option<Redirect>) -> Result<()> {
        match redirect {
            None => {}
            Some(_) if self.options.redirect_dir == RedirectDir::NoFollow => s.stop = true,
            Some(Redirect::Relative(name)) => {
                s.chase = Chase::OtherName(Name::new(&name)?.to_owned());
            }
            Some(Redirect::Absolute(parts)) => {
                let parts = parts.iter().map(|p| Ok(Name::new(p)?.to_owned()));
                s.chase = Chase::Path(parts.collect::<Result<Vec<_>>>()?);
            }
        }
        Ok(())
    }

    fn search_lowers(&self, dir: &Arc<Inode>, name: &Name, s: &mut Search) -> Result<()> {
        match s.chase {
            Chase::Path(_) => return self.search_by_path(s, LayerIdx::UPPER),
            Chase::OtherName(_) => return self.search_directly(dir, 0, name, s),
            Chase::SameName => {}
        }
        let index = self.lower_index(dir)?;
        let Some(hit) = index.find(name) else {
            return Ok(());
        };
        for pos in index.positions(hit) {
            let lower_dir = dir
                .lowers
                .get(pos)
                .ok_or(Error::Malformed("listing index"))?;
            if self.ask_lower(lower_dir, name, s)? {
                return Ok(());
            }
            if !matches!(s.chase, Chase::SameName) || s.metacopy {
                return self.search_on(dir, pos, name, s);
            }
        }
        Ok(())
    }

    /// Goes on below position `pos` where the listing index no longer tells the way.
    fn search_on(&self, dir: &Arc<Inode>, pos: usize, name: &Name, s: &mut Search) -> Result<()> {
        match s.chase {
            Chase::Path(_) => {
                let layer = dir.lowers.get(pos).map_or(LayerIdx::UPPER, |o| o.layer());
                self.search_by_path(s, layer)
            }
            _ => self.search_directly(dir, pos + 1, name, s),
        }
    }

    /// Asks the lower directories of `dir` from position `from` without the index.
    fn search_directly(
        &self,
        dir: &Arc<Inode>,
        from: usize,
        name: &Name,
        s: &mut Search,
    ) -> Result<()> {
        for lower_dir in dir.lowers.iter().skip(from) {
            let wanted = match &s.chase {
                Chase::SameName => name.to_owned(),
                Chase::OtherName(other) => other.clone(),
                Chase::Path(_) => return self.search_by_path(s, previous(lower_dir.layer())),
            };
            if self.ask_lower(lower_dir, &wanted, s)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Asks the layers below `above` at an absolute path.
    fn search_by_path(&self, s: &mut Search, above: LayerIdx) -> Result<()> {
        let roots = self.stack.lowers.iter().filter(|r| r.layer() > above);
        for root in roots {
            let Chase::Path(parts) = s.chase.clone() else {
                return Ok(());
            };
            let Some((last, dirs)) = parts.split_last() else {
                return Ok(());
            };
            let Some(dir) = self.walk_layer(root, dirs)? else {
                continue;
            };
            if self.ask_lower(&dir, last, s)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The directory at `parts` beneath the root of one layer; None where the path is not there.
    fn walk_layer(&self, root: &Arc<Obj>, parts: &[NameBuf]) -> Result<Option<Arc<Obj>>> {
        let mut dir = Arc::clone(root);
        for part in parts {
            let fd = self.reach.dir_fd(&dir)?;
            let found = match stat::stat_opt(At::entry(fd.as_fd(), part))? {
                Some(found) if found.kind() == Kind::Dir => found,
                _ => return Ok(None),
            };
            dir = Obj::found(root.layer(), found.id(), &dir, part.clone());
        }
        Ok(Some(dir))
    }

    /// Asks one lower directory; true when it decided and no deeper layer is to be asked.
    fn ask_lower(&self, dir: &Arc<Obj>, name: &Name, s: &mut Search) -> Result<bool> {
        // Below the bottom layer there is nothing a mark could hide or lead to.
        let last = usize::from(dir.layer().0) == self.stack.lowers.len();
        let fd = self.reach.dir_fd(dir)?;
        let xwhiteouts = self.stack.may_have_xwhiteouts(dir.layer());
        let found = match probe(fd.as_fd(), name, self.stack.ns, xwhiteouts)? {
            Probe::Absent => return Ok(false),
            Probe::Whiteout => return Ok(true),
            Probe::Found(found) => found,
        };
        let at = At::entry(fd.as_fd(), name);
        if found.kind() != Kind::Dir {
            return self.take_lower_file(s, at, found, dir, name, last);
        }
        if s.top.is_some() && !s.want_dir {
            return Ok(true);
        }
        s.want_dir = true;
        s.top.get_or_insert(found);
        s.lowers
            .push(Obj::found(dir.layer(), found.id(), dir, name.to_owned()));
        if last {
            return Ok(true);
        }
        let marks = dir_marks(at, self.stack.ns)?;
        self.follow(s, marks.redirect)?;
        Ok(marks.opaque == Opaque::Opaque || s.stop)
    }

    fn take_lower_file(
        &self,
        s: &mut Search,
        at: At<'_>,
        found: Stat,
        dir: &Arc<Obj>,
        name: &Name,
        last: bool,
    ) -> Result<bool> {
        if s.want_dir || (s.metacopy && found.kind() != Kind::File) {
            return Ok(true);
        }
        let marks = if found.kind() == Kind::File && !last && may_be_metacopy(&found) {
            file_marks(at, self.stack.ns)?
        } else {
            FileMarks::default()
        };
        s.top.get_or_insert(found);
        if marks.metacopy {
            s.metacopy = true;
            self.follow(s, marks.redirect)?;
            s.lowers
                .push(Obj::found(dir.layer(), found.id(), dir, name.to_owned()));
            return Ok(s.stop);
        }
        let obj = Obj::found(dir.layer(), found.id(), dir, name.to_owned());
        s.metacopy = false;
        s.lowers.push(obj);
        Ok(true)
    }

    /// The inode of what [`Union::merge`] found as `name` in `dir`.
    pub(crate) fn intern(&self, dir: &Arc<Inode>, name: &Name, merged: Merged) -> Result<InodeRef> {
        let key = self.key_of(dir, name, &merged)?;
        if let Some(known) = self.table.find(&key) {
            self.note_name(dir, name, &known);
            return Ok(known);
        }
        let st_ino = self.st_ino_of(&merged)?;
        let upper = match (&merged.upper, dir.upper()) {
            (Some(found), Some(dir_obj)) => Some(Obj::found(
                LayerIdx::UPPER,
                found.id(),
                dir_obj,
                name.to_owned(),
            )),
            _ => None,
        };
        let link = self
            .needs_link(&merged)
            .then(|| self.link_to(dir, name))
            .transpose()?;
        let node = self.table.intern(key, || Parts {
            kind: merged.kind(),
            st_ino,
            upper,
            lowers: merged.lowers,
            metacopy: merged.metacopy,
            impure: merged.impure,
            link,
        });
        self.note_name(dir, name, &node);
        Ok(node)
    }

    /// Directories need to know their parent, and so does what may have to be copied up.
    fn needs_link(&self, merged: &Merged) -> bool {
        merged.kind() == Kind::Dir || (merged.upper.is_none() && self.stack.upper.is_some())
    }

    pub(crate) fn link_to(&self, dir: &Arc<Inode>, name: &Name) -> Result<Link> {
        let parent = self.table.again(dir).ok_or(Error::Stale)?;
        Ok(Link {
            parent,
            name: name.to_owned(),
        })
    }

    /// A known upper object may have been found under a further name.
    fn note_name(&self, dir: &Arc<Inode>, name: &Name, node: &Inode) {
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
        if hard_link && self.stack.upper.is_some() {
            let parent = dir.lowers.iter().find(|o| o.layer() == lower.layer());
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

/// The layer above, so that a search "below" it begins with `layer` itself.
fn previous(layer: LayerIdx) -> LayerIdx {
    LayerIdx(layer.0.saturating_sub(1))
}
