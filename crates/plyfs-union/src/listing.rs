//! Reading a directory: the upper's entries and the lowers' merged in the order of their cookies.
use std::cmp::Ordering;
use std::os::fd::AsFd;
use std::sync::Arc;

use plyfs_format::aufs::{self, AufsName};
use plyfs_format::whiteout;
use plyfs_layer::Obj;
use plyfs_sys::stat::{Kind, LayerIno};
use plyfs_sys::{At, Name, NameBuf, dir, open, stat};

use crate::by_name::is_left_marker;
use crate::inode::{Inode, Key, NodeId};
use crate::lookup::Entry;
use crate::lower_index::{Builder, Cookie, IndexEntry, LowerIndex, cookie_of};
use crate::merge::Ask;
use crate::{Result, Union};

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct ListEntry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// st_ino of what has the name.
    pub ino: u64,
    /// Its type.
    pub kind: Kind,
    /// Pass this to go on behind the entry.
    pub next: Cookie,
}

/// Whether a listing goes on.
pub type Flow = std::ops::ControlFlow<()>;

/// An entry of the upper directory.
#[derive(Debug)]
struct UpperEntry {
    cookie: Cookie,
    name: NameBuf,
    ino: u64,
    /// None for a whiteout.
    kind: Option<Kind>,
}

/// The entries of an upper directory at one version of its names.
#[derive(Debug)]
pub(crate) struct UpperList {
    version: u64,
    entries: Vec<UpperEntry>,
}

impl UpperList {
    /// Whether the upper has anything called `name`.
    fn has(&self, name: &Name) -> bool {
        let cookie = cookie_of(name.as_bytes());
        let from = self.entries.partition_point(|e| e.cookie < cookie);
        self.entries[from..]
            .iter()
            .take_while(|e| e.cookie == cookie)
            .any(|e| *e.name == *name)
    }

    pub(crate) fn weight(&self) -> usize {
        self.entries
            .iter()
            .map(|e| size_of::<UpperEntry>() + e.name.as_bytes().len())
            .sum()
    }
}

/// An entry of the merged listing.
enum Pick<'a> {
    Upper(&'a UpperEntry, Kind, Option<&'a IndexEntry>),
    Lower(&'a IndexEntry),
}

/// The merged listing of a directory.
struct View {
    dev: Option<u64>,
    upper: Option<Arc<UpperList>>,
    lower: Arc<LowerIndex>,
}

impl View {
    /// Whether the upper has what the listing says. The caller holds the names of `dir`, and who
    /// changes a name there holds them for writing until the change is counted.
    fn is_current(&self, dir: &Inode) -> bool {
        match &self.upper {
            Some(list) => list.version == dir.names_version(),
            None => dir.upper().is_none(),
        }
    }
}

/// Cookies of `.` and `..`.
const DOT: Cookie = Cookie(1);
const DOT_DOT: Cookie = Cookie(2);

impl Union {
    /// Calls `f` for each entry behind `after`; `.` and `..` come first.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE; EIO and the like from the layers.
    pub fn readdir(
        &self,
        node: NodeId,
        after: Cookie,
        mut f: impl FnMut(ListEntry<'_>) -> Flow,
    ) -> Result<()> {
        let dir = self.inode(node)?;
        let _names = dir.live_dir()?.names.read();
        if self.dots(&dir, after, &mut f)?.is_break() {
            return Ok(());
        }
        let view = self.view(&dir, after)?;
        self.walk(&dir, &view, after, |this, entry, pick| {
            let ino = this
                .listed_ino(&dir, &view, entry.name, pick)
                .unwrap_or_else(|e| this.unknown_ino(&dir, &view, &entry, pick, &e));
            Ok(f(ListEntry { ino, ..entry }))
        })
    }

    /// Calls `f` for each entry behind `after` with the looked-up inode; None for `.` and `..`, and
    /// for what cannot be looked up (a redirect that is not to be followed): it is listed all the same.
    /// `f` keeps the count of the inode or drops it with the entry it could not take.
    ///
    /// # Errors
    /// As [`Union::readdir`].
    pub fn readdir_plus(
        &self,
        node: NodeId,
        after: Cookie,
        mut f: impl FnMut(ListEntry<'_>, Option<Entry>) -> Flow,
    ) -> Result<()> {
        let dir = self.inode(node)?;
        let _names = dir.live_dir()?.names.read();
        if self.dots(&dir, after, &mut |e| f(e, None))?.is_break() {
            return Ok(());
        }
        let view = self.view(&dir, after)?;
        let current = view.is_current(&dir);
        self.walk(&dir, &view, after, |this, entry, pick| {
            let ask = match pick {
                Pick::Lower(_) if current => Ask::Lowers,
                _ => Ask::All,
            };
            let found = match this.lookup_asking(&dir, Name::new(entry.name)?, ask) {
                Ok(Some(found)) => found,
                // A stream may be older than the last removal; what is gone is left out.
                Ok(None) => return Ok(Flow::Continue(())),
                Err(e) => {
                    let ino = this.unknown_ino(&dir, &view, &entry, pick, &e);
                    return Ok(f(ListEntry { ino, ..entry }, None));
                }
            };
            Ok(f(
                ListEntry {
                    ino: found.attr.ino,
                    ..entry
                },
                Some(found),
            ))
        })
    }

    /// Whether a directory shows no entry.
    pub(crate) fn is_empty_dir(&self, dir: &Arc<Inode>) -> Result<bool> {
        let view = self.view(dir, Cookie(0))?;
        let mut empty = true;
        self.walk(dir, &view, DOT_DOT, |_, _, _| {
            empty = false;
            Ok(Flow::Break(()))
        })?;
        Ok(empty)
    }

    /// The names a directory shows.
    ///
    /// # Errors
    /// As [`Union::readdir`].
    pub fn names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.readdir(node, DOT_DOT, |e| {
            names.push(e.name.to_vec());
            Flow::Continue(())
        })?;
        Ok(names)
    }

    fn dots(
        &self,
        dir: &Arc<Inode>,
        after: Cookie,
        f: &mut impl FnMut(ListEntry<'_>) -> Flow,
    ) -> Result<Flow> {
        let own = dir.st_ino();
        let parent = dir.link.lock().as_ref().map_or(own, |l| l.parent.st_ino());
        for (cookie, name, ino) in [(DOT, &b"."[..], own), (DOT_DOT, &b".."[..], parent)] {
            let entry = ListEntry {
                name,
                ino,
                kind: Kind::Dir,
                next: cookie,
            };
            if after < cookie && f(entry).is_break() {
                return Ok(Flow::Break(()));
            }
        }
        Ok(Flow::Continue(()))
    }

    /// The merged listing. One that starts shows the present; one that goes on may use a cached
    /// listing, as POSIX leaves open whether it shows what changed since it began.
    fn view(&self, dir: &Arc<Inode>, after: Cookie) -> Result<View> {
        let lower = self.lower_index(dir)?;
        let Some(obj) = dir.upper() else {
            return Ok(View {
                dev: None,
                upper: None,
                lower,
            });
        };
        let upper = self.upper_list(dir, obj, after > DOT_DOT)?;
        Ok(View {
            dev: Some(obj.id().dev),
            upper: Some(upper),
            lower,
        })
    }

    /// The merged listing of the lower part of a directory, from the cache where possible.
    pub(crate) fn lower_index(&self, dir: &Arc<Inode>) -> Result<Arc<LowerIndex>> {
        if !dir.has_lower() {
            return Ok(Arc::clone(&self.no_lower));
        }
        if let Some(index) = self.lower_cache.get(dir.id) {
            return Ok(index);
        }
        let builder = Builder::new(&self.reach, &self.stack);
        let index = builder.build(dir.lowers.dirs())?;
        let index = Arc::new(index);
        self.lower_cache
            .put(dir.id, Arc::clone(&index), index.weight());
        Ok(index)
    }

    fn upper_list(&self, dir: &Arc<Inode>, obj: &Obj, old_will_do: bool) -> Result<Arc<UpperList>> {
        let version = dir.names_version();
        if let Some(list) = self.upper_cache.get(dir.id)
            && (old_will_do || list.version == version)
        {
            return Ok(list);
        }
        let list = Arc::new(UpperList {
            version,
            entries: self.read_upper(obj)?,
        });
        self.upper_cache
            .put(dir.id, Arc::clone(&list), list.weight());
        Ok(list)
    }

    /// Whether a listing of the present says that the upper has nothing called `name`, not even a
    /// whiteout; false where only the disk can tell. The caller holds the names of `dir`.
    pub(crate) fn upper_lacks(&self, dir: &Arc<Inode>, name: &Name) -> bool {
        if dir.upper().is_none() {
            return true;
        }
        let Some(list) = self.upper_cache.get(dir.id) else {
            return false;
        };
        list.version == dir.names_version() && !list.has(name)
    }

    fn read_upper(&self, obj: &Obj) -> Result<Vec<UpperEntry>> {
        let fd = self.reach.dir_fd(obj)?;
        let list = open::open_dir_for_list(fd.as_fd())?;
        let by_name = self.deletes_by_name();
        let mut entries = Vec::new();
        dir::for_each::<crate::Error>(list.as_fd(), |entry| {
            match aufs::classify(entry.name) {
                AufsName::Whiteout(hidden) if by_name => {
                    entries.push(hidden_entry(hidden)?);
                    return Ok(());
                }
                AufsName::OpaqueMarker | AufsName::Meta if by_name => return Ok(()),
                _ => {}
            }
            let name = Name::new(entry.name)?.to_owned();
            let mut kind = entry.kind;
            let mut shown = true;
            let marker = entry.name == aufs::OPAQUE_MARKER;
            let by_mark = kind == Some(Kind::File) && (marker || self.upper_has_marks());
            if by_mark || matches!(kind, None | Some(Kind::Char)) {
                let at = At::entry(fd.as_fd(), &name);
                let Some(found) = stat::stat_opt(at)? else {
                    return Ok(());
                };
                shown = !whiteout::is_whiteout_dev(found.mode, found.rdev.0, found.rdev.1);
                shown &= !is_left_marker(&name, &found);
                kind = Some(self.stack.seen_kind(obj.layer(), at, &found)?);
            }
            let cookie = cookie_of(entry.name);
            let kind = kind.filter(|_| shown);
            entries.push(UpperEntry {
                cookie,
                name,
                ino: entry.ino,
                kind,
            });
            Ok(())
        })?;
        // A name may be there twice: something that has it, and what hides it in the lowers.
        entries.sort_unstable_by(|a, b| (a.cookie, &a.name).cmp(&(b.cookie, &b.name)));
        Ok(entries)
    }

    /// Goes through the merged listing behind `after`.
    fn walk(
        &self,
        _dir: &Arc<Inode>,
        view: &View,
        after: Cookie,
        mut f: impl FnMut(&Self, ListEntry<'_>, &Pick<'_>) -> Result<Flow>,
    ) -> Result<()> {
        let mut merge = MergeIter::new(view, after);
        while let Some((next, pick)) = merge.next() {
            let (name, kind) = match &pick {
                Pick::Upper(e, kind, _) => (e.name.as_bytes(), *kind),
                Pick::Lower(e) => (view.lower.name(e), e.kind),
            };
            let entry = ListEntry {
                name,
                ino: 0,
                kind,
                next,
            };
            if f(self, entry, &pick)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The number under which a name is listed that cannot be looked up. Who asks for the name itself
    /// gets the error.
    fn unknown_ino(
        &self,
        dir: &Arc<Inode>,
        view: &View,
        entry: &ListEntry<'_>,
        pick: &Pick<'_>,
        why: &crate::Error,
    ) -> u64 {
        tracing::warn!(
            "listing {}: number of {}: {why}",
            dir.id.0,
            entry.name.escape_ascii()
        );
        self.stack.st_ino(match pick {
            Pick::Upper(e, ..) => LayerIno {
                dev: view.dev.unwrap_or(0),
                ino: e.ino,
            },
            Pick::Lower(e) => listed_lower(dir, view, e),
        })
    }

    /// st_ino of a listed name by the same rule as lookup, with as little work as is safe: only
    /// an upper object that may have been copied up needs a look at its origin.
    fn listed_ino(
        &self,
        dir: &Arc<Inode>,
        view: &View,
        name: &[u8],
        pick: &Pick<'_>,
    ) -> Result<u64> {
        match pick {
            Pick::Lower(e) => Ok(self.stack.st_ino(listed_lower(dir, view, e))),
            Pick::Upper(e, kind, lower) => {
                let id = LayerIno {
                    dev: view.dev.unwrap_or(0),
                    ino: e.ino,
                };
                let key = Key::Obj(plyfs_layer::LayerIdx::UPPER, id);
                if let Some(known) = self.table.find(&key) {
                    return Ok(known.st_ino());
                }
                let impure = dir
                    .dir_state()?
                    .impure
                    .load(std::sync::atomic::Ordering::Relaxed);
                if lower.is_none() && !impure && (*kind != Kind::Dir || !dir.has_lower()) {
                    return Ok(self.stack.st_ino(id));
                }
                match self.merge(dir, Name::new(name)?)? {
                    Some(merged) => self.st_ino_of(&merged),
                    None => Ok(self.stack.st_ino(id)),
                }
            }
        }
    }
}

/// The entry of a name that `.wh.NAME` hides.
fn hidden_entry(hidden: &[u8]) -> Result<UpperEntry> {
    Ok(UpperEntry {
        cookie: cookie_of(hidden),
        name: Name::new(hidden)?.to_owned(),
        ino: 0,
        kind: None,
    })
}

/// The topmost lower object of a listed name.
fn listed_lower(dir: &Inode, view: &View, entry: &IndexEntry) -> LayerIno {
    let pos = view.lower.positions(entry).next().unwrap_or(0);
    let dev = dir.lowers.dirs().get(pos).map_or(0, |o| o.id().dev);
    LayerIno {
        dev,
        ino: entry.ino,
    }
}

/// Two sorted lists as one; an upper entry hides the lower of the same name.
struct MergeIter<'a> {
    view: &'a View,
    upper: &'a [UpperEntry],
    lower: &'a [IndexEntry],
}

impl<'a> MergeIter<'a> {
    fn new(view: &'a View, after: Cookie) -> Self {
        let upper = view.upper.as_ref().map_or(&[][..], |u| &u.entries);
        let lower = view.lower.entries();
        Self {
            view,
            upper: &upper[upper.partition_point(|e| e.cookie <= after)..],
            lower: &lower[lower.partition_point(|e| e.cookie <= after)..],
        }
    }

    fn next(&mut self) -> Option<(Cookie, Pick<'a>)> {
        loop {
            let order = match (self.upper.first(), self.lower.first()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(u), Some(l)) => {
                    (u.cookie, u.name.as_bytes()).cmp(&(l.cookie, self.view.lower.name(l)))
                }
            };
            if order == Ordering::Greater {
                let (first, rest) = self.lower.split_first()?;
                self.lower = rest;
                return Some((first.cookie, Pick::Lower(first)));
            }
            let (first, rest) = self.upper.split_first()?;
            self.upper = rest;
            let mut hidden = None;
            if order == Ordering::Equal {
                let (lower, rest) = self.lower.split_first()?;
                self.lower = rest;
                hidden = Some(lower);
            }
            if let Some(kind) = first.kind {
                return Some((first.cookie, Pick::Upper(first, kind, hidden)));
            }
        }
    }
}
