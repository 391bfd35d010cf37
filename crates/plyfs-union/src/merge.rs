//! THE merge rule: what one name means when all layers have been asked, from the top.
use std::os::fd::AsFd;
use std::sync::Arc;

use plyfs_format::opaque::Opaque;
use plyfs_format::redirect::Redirect;
use plyfs_layer::{FileMarks, LayerIdx, Obj, Probe, dir_marks, file_marks, probe};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Name, NameBuf, stat};

use crate::by_name::is_left_marker;
use crate::config::RedirectDir;
use crate::index::IndexFound;
use crate::inode::Inode;
use crate::lowers::LowerObjs;
use crate::{Error, Result, Union};

/// What a name means after all layers have been asked.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) upper: Option<Stat>,
    pub(crate) lowers: LowerObjs,
    pub(crate) top: Stat,
    pub(crate) metacopy: bool,
    pub(crate) impure: bool,
    pub(crate) marks: FileMarks,
    pub(crate) index: IndexFound,
}

impl Merged {
    pub(crate) fn kind(&self) -> Kind {
        self.top.kind()
    }

    /// `name` to keep, sharing the bytes with the lower object that was found by it.
    pub(crate) fn keep_name(&self, name: &Name) -> NameBuf {
        let lower = self.lowers.first().map(|obj| obj.place());
        let found = lower.as_ref().and_then(|place| place.names.first());
        match found {
            Some((_, own)) if **own == *name => own.clone(),
            _ => name.to_owned(),
        }
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
    lowers: LowerObjs,
    top: Option<Stat>,
    want_dir: bool,
    metacopy: bool,
    impure: bool,
    marks: FileMarks,
    chase: Chase,
    stop: bool,
    /// The upper says by a name that lowers have no say.
    hidden: bool,
    no_marks: bool,
    /// Whether the directory asked is the deepest of those that merge here.
    deepest: bool,
}

impl Search {
    fn new() -> Self {
        Self {
            upper: None,
            lowers: LowerObjs::new(),
            top: None,
            want_dir: false,
            metacopy: false,
            impure: false,
            marks: FileMarks::default(),
            chase: Chase::SameName,
            stop: false,
            hidden: false,
            no_marks: false,
            deepest: false,
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
            index: IndexFound::default(),
        }))
    }
}

/// A file that has as many blocks as its size needs and more than an xattr block could explain
/// holds its data, so it is no metacopy (which is all hole).
fn may_be_metacopy(found: &Stat) -> bool {
    found.size <= 8192 || found.blocks * 512 < found.size
}

/// What need not be asked, as the caller knows it or has no use for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Ask everything.
    All,
    /// The upper has nothing under this name.
    Lowers,
    /// The name is about to go: where a file came from and where its data is do not matter.
    NoMarks,
}

impl Union {
    /// THE merge rule: asks the layers from the top until one decides.
    pub(crate) fn merge(&self, dir: &Arc<Inode>, name: &Name) -> Result<Option<Merged>> {
        self.merge_asking(dir, name, Ask::All)
    }

    /// [`Union::merge`] without what need not be asked.
    pub(crate) fn merge_asking(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        ask: Ask,
    ) -> Result<Option<Merged>> {
        let mut search = Search::new();
        search.no_marks = ask == Ask::NoMarks && self.stack.index.is_none();
        if let Some(upper) = dir.upper().filter(|_| ask != Ask::Lowers) {
            if self.is_reserved(name) {
                return Ok(None);
            }
            let fd = self.reach.dir_fd(upper)?;
            search.hidden = self.is_hidden_by_name(fd.as_fd(), name)?;
            match probe(fd.as_fd(), name, self.stack.ns, false)? {
                Probe::Whiteout => return Ok(None),
                Probe::Absent if search.hidden => return Ok(None),
                Probe::Found(found) if is_left_marker(name, &found) => return Ok(None),
                Probe::Absent => {}
                Probe::Found(found) => {
                    let at = At::entry(fd.as_fd(), name);
                    let found = self.stack.seen(LayerIdx::UPPER, at, found)?;
                    self.take_upper(dir, &mut search, at, found)?;
                }
            }
        }
        self.merge_below(dir, name, search)
    }

    /// The merge of an upper object that has lost the name `name` in `dir`.
    pub(crate) fn merge_given(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        at: At<'_>,
        found: Stat,
    ) -> Result<Merged> {
        let mut search = Search::new();
        self.take_upper(dir, &mut search, at, found)?;
        let merged = self.merge_below(dir, name, search)?;
        merged.ok_or(Error::NotFound)
    }

    fn merge_below(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        mut search: Search,
    ) -> Result<Option<Merged>> {
        if !search.stop && dir.has_lower() {
            self.search_lowers(dir, name, &mut search)?;
        }
        if search.metacopy {
            self.search_data_only(&mut search)?;
        }
        let mut merged = search.finish()?;
        if let Some(merged) = &mut merged {
            self.ask_index(merged)?;
        }
        Ok(merged)
    }

    fn take_upper(&self, dir: &Inode, s: &mut Search, at: At<'_>, found: Stat) -> Result<()> {
        s.upper = Some(found);
        s.top = Some(found);
        match found.kind() {
            Kind::Dir => {
                s.want_dir = true;
                let marks = dir_marks(at, self.stack.ns)?;
                s.impure = marks.impure;
                s.stop =
                    marks.opaque == Opaque::Opaque || s.hidden || self.is_opaque_by_name(at)?;
                if dir.has_lower() || self.options.redirect_dir != RedirectDir::NoFollow {
                    self.follow(s, marks.redirect)?;
                }
                // A directory that was moved here may have its lowers anywhere.
                s.stop |= !dir.has_lower() && !matches!(s.chase, Chase::Path(_));
                if !s.stop && !dir.has_lower() {
                    return self.search_by_path(s, LayerIdx::UPPER);
                }
            }
            kind => {
                s.stop = true;
                // A link of a metacopy may be in a directory that is not marked impure.
                let linked_in = kind == Kind::File && may_be_metacopy(&found);
                if !s.no_marks && (linked_in || self.may_have_origin(dir)) {
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
            .dir()
            .is_some_and(|d| d.impure.load(std::sync::atomic::Ordering::Relaxed));
        impure || dir.has_lower()
    }

    /// `ovl_lookup()`: "refusing to follow redirect"; half a directory would be worse.
    fn may_follow(&self) -> Result<()> {
        match self.options.redirect_dir {
            RedirectDir::NoFollow => Err(Error::NotPermitted),
            _ => Ok(()),
        }
    }

    /// Where the layers below have what carries this redirect.
    fn follow(&self, s: &mut Search, redirect: Option<Redirect>) -> Result<()> {
        let Some(redirect) = redirect else {
            return Ok(());
        };
        self.may_follow()?;
        let absolute = matches!(redirect, Redirect::Absolute(_));
        let mut parts = names(redirect)?;
        s.chase = match (&s.chase, absolute) {
            (_, true) => Chase::Path(parts),
            (Chase::Path(path), false) => {
                let siblings = path.len().saturating_sub(1);
                Chase::Path(path[..siblings].iter().cloned().chain(parts).collect())
            }
            (_, false) => match parts.pop() {
                Some(name) => Chase::OtherName(name),
                None => return Err(Error::Malformed("empty redirect")),
            },
        };
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
                .dirs()
                .get(pos)
                .ok_or(Error::Malformed("listing index"))?;
            s.deepest = pos + 1 == dir.lowers.dirs().len();
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
                let layer = dir
                    .lowers
                    .dirs()
                    .get(pos)
                    .map_or(LayerIdx::UPPER, |o| o.layer());
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
        for (pos, lower_dir) in dir.lowers.dirs().iter().enumerate().skip(from) {
            s.deepest = pos + 1 == dir.lowers.dirs().len();
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
            if let Some(dir) = self.walk_layer(root, dirs, last, s)?
                && self.ask_lower(&dir, last, s)?
            {
                return Ok(());
            }
            if s.stop {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A metacopy whose data no lower has may find it in a data-only layer, by an absolute
    /// redirect alone (`ovl_lookup_data_layers()`). Marks do not count there.
    fn search_data_only(&self, s: &mut Search) -> Result<()> {
        let Chase::Path(parts) = s.chase.clone() else {
            return Ok(());
        };
        let Some((last, dirs)) = parts.split_last() else {
            return Ok(());
        };
        for root in &self.stack.data_only {
            let Some(dir) = self.walk_data(root, dirs)? else {
                continue;
            };
            let fd = self.reach.dir_fd(&dir)?;
            let found = stat::stat_opt(At::entry(fd.as_fd(), last))?;
            if let Some(found) = found.filter(|f| f.kind() == Kind::File) {
                s.metacopy = false;
                s.lowers
                    .push(Obj::found(root.layer(), found.id(), &dir, last.clone()));
                return Ok(());
            }
        }
        Ok(())
    }

    fn walk_data(&self, root: &Arc<Obj>, dirs: &[NameBuf]) -> Result<Option<Arc<Obj>>> {
        let mut dir = Arc::clone(root);
        for name in dirs {
            let fd = self.reach.dir_fd(&dir)?;
            let found = stat::stat_opt(At::entry(fd.as_fd(), name))?;
            let Some(found) = found.filter(|f| f.kind() == Kind::Dir) else {
                return Ok(None);
            };
            dir = Obj::found(root.layer(), found.id(), &dir, name.clone());
        }
        Ok(Some(dir))
    }

    /// The directory at `parts` beneath the root of one layer; None where the path is not there.
    /// What stands on the way counts (`ovl_lookup_layer()`): a whiteout, a non-directory or an
    /// opaque directory ends the search below this layer, a redirect bends the path for it.
    fn walk_layer(
        &self,
        root: &Arc<Obj>,
        parts: &[NameBuf],
        last: &NameBuf,
        s: &mut Search,
    ) -> Result<Option<Arc<Obj>>> {
        let mut dir = Arc::clone(root);
        for (i, part) in parts.iter().enumerate() {
            let fd = self.reach.dir_fd(&dir)?;
            let xwhiteouts = self.stack.may_have_xwhiteouts(&dir);
            let found = match probe(fd.as_fd(), part, self.stack.ns, xwhiteouts)? {
                Probe::Absent => return Ok(None),
                Probe::Found(found) if found.kind() == Kind::Dir => found,
                _ => {
                    s.stop = true;
                    return Ok(None);
                }
            };
            let marks = dir_marks(At::entry(fd.as_fd(), part), self.stack.ns)?;
            s.stop |= marks.opaque == Opaque::Opaque;
            if let Some(redirect) = marks.redirect {
                let rest: Vec<NameBuf> = parts[i + 1..].iter().chain([last]).cloned().collect();
                self.bend(s, &parts[..i], redirect, rest)?;
            }
            dir = Obj::found(root.layer(), found.id(), &dir, part.clone());
            if marks.opaque == Opaque::XWhiteouts {
                dir.set_xwhiteouts();
            }
        }
        Ok(Some(dir))
    }

    /// A directory on the way of a path is elsewhere in the layers below.
    fn bend(
        &self,
        s: &mut Search,
        before: &[NameBuf],
        redirect: Redirect,
        rest: Vec<NameBuf>,
    ) -> Result<()> {
        self.may_follow()?;
        let mut path = match &redirect {
            Redirect::Relative(_) => before.to_vec(),
            Redirect::Absolute(_) => Vec::new(),
        };
        path.extend(names(redirect)?);
        path.extend(rest);
        s.chase = Chase::Path(path);
        Ok(())
    }

    /// Asks one lower directory; true when it decided and no deeper layer is to be asked.
    fn ask_lower(&self, dir: &Arc<Obj>, name: &Name, s: &mut Search) -> Result<bool> {
        // Below the bottom layer there is nothing a mark could hide or lead to.
        let bottom = usize::from(dir.layer().0) == self.stack.lowers.len();
        let last = bottom && self.stack.data_only.is_empty();
        let fd = self.reach.dir_fd(dir)?;
        let xwhiteouts = self.stack.may_have_xwhiteouts(dir);
        let found = match probe(fd.as_fd(), name, self.stack.ns, xwhiteouts)? {
            Probe::Absent => return Ok(false),
            Probe::Whiteout => return Ok(true),
            Probe::Found(found) => found,
        };
        let at = At::entry(fd.as_fd(), name);
        let found = self.stack.seen(dir.layer(), at, found)?;
        if found.kind() != Kind::Dir {
            return self.take_lower_file(s, at, found, dir, name, last);
        }
        if s.top.is_some() && !s.want_dir {
            return Ok(true);
        }
        s.want_dir = true;
        s.top.get_or_insert(found);
        let obj = Obj::found(dir.layer(), found.id(), dir, name.to_owned());
        s.lowers.push(Arc::clone(&obj));
        if last {
            return Ok(true);
        }
        let marks = dir_marks(at, self.stack.ns)?;
        if marks.opaque == Opaque::XWhiteouts {
            obj.set_xwhiteouts();
        }
        // Without redirects nothing below is asked, so its marks are not looked at (`d.last`).
        if s.deepest && self.options.redirect_dir == RedirectDir::NoFollow {
            return Ok(true);
        }
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
}

/// The layer above, so that a search "below" it begins with `layer` itself.
fn previous(layer: LayerIdx) -> LayerIdx {
    LayerIdx(layer.0.saturating_sub(1))
}

/// The components of a redirect.
fn names(redirect: Redirect) -> Result<Vec<NameBuf>> {
    let parts = match redirect {
        Redirect::Relative(name) => vec![name],
        Redirect::Absolute(parts) => parts,
    };
    parts.iter().map(|p| Ok(Name::new(p)?.to_owned())).collect()
}
