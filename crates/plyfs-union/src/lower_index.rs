//! The merged listing of a directory's lower part: which names, and which layers have them.
//!
//! Lowers never change, so an index is right for ever; it sits in a cache and can be built again.
//! It answers listings, cold lookups and "does any lower have this name" without a system call.
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use plyfs_format::aufs::{self, AufsName};
use plyfs_format::whiteout;
use plyfs_layer::{Obj, Reach};
use plyfs_sys::stat::Kind;
use plyfs_sys::{At, Name, NameBuf, dir, open, stat, xattr};

use crate::stack::Stack;
use crate::{Error, Result};

/// A place in a listing that stays the same however often the listing is built: a hash of the
/// name and of nothing else. So a stream goes on exactly where it was, after any change and any restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(pub u64);

/// Bits of a cookie that come from a second hash: names with one first hash can be made on
/// purpose, and two that share a cookie could not be told apart by a stream that stops between.
const SECOND_BITS: u32 = 8;
/// Cookies below this are `.` and `..`.
const FIRST_COOKIE: u64 = 1 << SECOND_BITS;
/// The offset basis of FNV-1a.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// Where the second hash starts instead.
const SECOND_BASIS: u64 = 0x9e37_79b9_7f4a_7c15;

fn fnv(basis: u64, name: &[u8]) -> u64 {
    let mut h = basis;
    for b in name {
        h = (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h ^= h >> 32;
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^ (h >> 32)
}

/// The cookie of a name: FNV-1a twice, fixed for all time, as cookies outlive the process. 63 bits,
/// as the kernel keeps offsets in a signed number.
pub(crate) fn cookie_of(name: &[u8]) -> Cookie {
    let first = fnv(FNV_BASIS, name) >> (SECOND_BITS + 1) << SECOND_BITS;
    let second = fnv(SECOND_BASIS, name) >> (u64::BITS - SECOND_BITS);
    Cookie((first | second).max(FIRST_COOKIE))
}

/// One name of the lower part of a directory.
#[derive(Debug, Clone)]
pub(crate) struct IndexEntry {
    pub(crate) cookie: Cookie,
    name_at: u32,
    name_len: u8,
    pub(crate) kind: Kind,
    /// Inode number in the topmost layer that has the name.
    pub(crate) ino: u64,
    /// Positions in the directory's list of lowers, in [`LowerIndex::places`].
    places_at: u32,
    places: u16,
}

/// The names of a directory's lower part, in the order of their cookies.
#[derive(Debug, Default)]
pub(crate) struct LowerIndex {
    entries: Vec<IndexEntry>,
    names: Vec<u8>,
    places: Vec<u16>,
}

impl LowerIndex {
    /// All names, by cookie.
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// The bytes of an entry's name.
    pub(crate) fn name(&self, entry: &IndexEntry) -> &[u8] {
        let at = entry.name_at as usize;
        self.names
            .get(at..at + usize::from(entry.name_len))
            .unwrap_or_default()
    }

    /// The entry called `name`, if any lower shows one.
    pub(crate) fn find(&self, name: &Name) -> Option<&IndexEntry> {
        let cookie = cookie_of(name.as_bytes());
        let from = self.entries.partition_point(|e| e.cookie < cookie);
        self.entries[from..]
            .iter()
            .take_while(|e| e.cookie == cookie)
            .find(|e| self.name(e) == name.as_bytes())
    }

    /// Whether any lower shows `name`.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.find(name).is_some()
    }

    /// The positions in the directory's list of lowers that have the entry: one for a file, all
    /// that may merge for a directory.
    pub(crate) fn positions(&self, entry: &IndexEntry) -> impl Iterator<Item = usize> + '_ {
        let at = entry.places_at as usize;
        let list = self
            .places
            .get(at..at + usize::from(entry.places))
            .unwrap_or_default();
        list.iter().map(|p| usize::from(*p))
    }

    /// Bytes the index takes in memory.
    pub(crate) fn weight(&self) -> usize {
        self.entries.len() * size_of::<IndexEntry>() + self.names.len() + self.places.len() * 2
    }
}

/// What is known of a name while the layers are read from the top.
struct Slot {
    kind: Kind,
    ino: u64,
    places: Vec<u16>,
    /// A whiteout or another kind of object hides all that is deeper.
    closed: bool,
    /// The topmost thing under this name is a whiteout: the name does not show.
    hidden: bool,
}

/// Reads all lowers of a directory once.
pub(crate) struct Builder<'a> {
    pub(crate) reach: &'a Reach,
    stack: &'a Stack,
    slots: HashMap<NameBuf, Slot>,
}

/// What one layer has under one name.
enum Seen {
    Whiteout,
    Object(Kind, u64),
}

impl<'a> Builder<'a> {
    pub(crate) fn new(reach: &'a Reach, stack: &'a Stack) -> Self {
        Self {
            reach,
            stack,
            slots: HashMap::new(),
        }
    }

    /// The index of a directory with these lowers.
    pub(crate) fn build(mut self, lowers: &[Arc<Obj>]) -> Result<LowerIndex> {
        for (pos, lower) in lowers.iter().enumerate() {
            let pos = u16::try_from(pos).map_err(|_| Error::Malformed("too many layers"))?;
            if self.read_layer(pos, lower)? {
                break;
            }
        }
        Ok(self.finish())
    }

    /// Reads one layer; true when it hides all deeper ones (`.wh..wh..opq`).
    fn read_layer(&mut self, pos: u16, lower: &Obj) -> Result<bool> {
        // What is written though it lies in a lower, upper and workdir, is read as empty, since
        // what is in it changes.
        if self.stack.written.contains(&lower.id()) {
            return Ok(false);
        }
        let fd = self.reach.dir_fd(lower)?;
        let list = open::open_dir_for_list(fd.as_fd())?;
        let mut opaque = false;
        let mut aufs_whiteouts: Vec<NameBuf> = Vec::new();
        let mut seen: Vec<(NameBuf, Seen)> = Vec::new();
        dir::for_each::<Error>(list.as_fd(), |entry| {
            match aufs::classify(entry.name) {
                AufsName::OpaqueMarker => opaque = true,
                AufsName::Meta => {}
                AufsName::Whiteout(hidden) => aufs_whiteouts.push(Name::new(hidden)?.to_owned()),
                AufsName::Plain => {
                    let name = Name::new(entry.name)?.to_owned();
                    let what = self.classify(lower, fd.as_fd(), &name, &entry)?;
                    seen.extend(what.map(|what| (name, what)));
                }
            }
            Ok(())
        })?;
        for (name, what) in seen {
            self.add(pos, name, &what);
        }
        for name in aufs_whiteouts {
            self.close(name);
        }
        Ok(opaque)
    }

    /// None for a name that has gone since it was listed.
    fn classify(
        &self,
        lower: &Obj,
        dir: std::os::fd::BorrowedFd<'_>,
        name: &Name,
        entry: &dir::DirEntry<'_>,
    ) -> Result<Option<Seen>> {
        let xwhiteouts = self.stack.may_have_xwhiteouts(lower);
        let by_marks = self.stack.stat_mark(lower.layer()).is_some();
        let sure = match entry.kind {
            None | Some(Kind::Char) => None,
            Some(Kind::File) if xwhiteouts || by_marks => None,
            Some(kind) => Some(kind),
        };
        if let Some(kind) = sure {
            return Ok(Some(Seen::Object(kind, entry.ino)));
        }
        let at = At::entry(dir, name);
        let Some(found) = stat::stat_opt(at)? else {
            return Ok(None);
        };
        if whiteout::is_whiteout_dev(found.mode, found.rdev.0, found.rdev.1) {
            return Ok(Some(Seen::Whiteout));
        }
        if xwhiteouts && whiteout::may_be_xattr_whiteout(found.mode, found.size) {
            let mark = xattr::get(at, self.stack.ns.whiteout().as_bytes())?;
            if mark.is_some() {
                return Ok(Some(Seen::Whiteout));
            }
        }
        let kind = self.stack.seen_kind(lower.layer(), at, &found)?;
        Ok(Some(Seen::Object(kind, found.ino)))
    }

    fn add(&mut self, pos: u16, name: NameBuf, what: &Seen) {
        match (self.slots.get_mut(&name), what) {
            (Some(slot), _) if slot.closed => {}
            (Some(slot), Seen::Object(Kind::Dir, _)) => slot.places.push(pos),
            // Deeper non-directories are hidden by the directory above.
            (Some(slot), _) => slot.closed = true,
            (None, Seen::Whiteout) => self.close(name),
            (None, Seen::Object(kind, ino)) => {
                let slot = Slot {
                    kind: *kind,
                    ino: *ino,
                    places: vec![pos],
                    closed: *kind != Kind::Dir,
                    hidden: false,
                };
                self.slots.insert(name, slot);
            }
        }
    }

    /// Hides `name` in all deeper layers.
    fn close(&mut self, name: NameBuf) {
        let hidden = Slot {
            kind: Kind::File,
            ino: 0,
            places: Vec::new(),
            closed: true,
            hidden: true,
        };
        self.slots
            .entry(name)
            .and_modify(|slot| slot.closed = true)
            .or_insert(hidden);
    }

    fn finish(self) -> LowerIndex {
        let mut list: Vec<(Cookie, NameBuf, Slot)> = self
            .slots
            .into_iter()
            .filter(|(_, slot)| !slot.hidden)
            .map(|(name, slot)| (cookie_of(name.as_bytes()), name, slot))
            .collect();
        list.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut index = LowerIndex::default();
        for (cookie, name, slot) in list {
            let entry = IndexEntry {
                cookie,
                name_at: u32::try_from(index.names.len()).unwrap_or(u32::MAX),
                name_len: u8::try_from(name.as_bytes().len()).unwrap_or(u8::MAX),
                kind: slot.kind,
                ino: slot.ino,
                places_at: u32::try_from(index.places.len()).unwrap_or(u32::MAX),
                places: u16::try_from(slot.places.len()).unwrap_or(u16::MAX),
            };
            index.names.extend_from_slice(name.as_bytes());
            index.places.extend_from_slice(&slot.places);
            index.entries.push(entry);
        }
        index
    }
}

#[cfg(test)]
mod tests;
