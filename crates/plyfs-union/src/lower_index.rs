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
use plyfs_sys::{At, Name, dir, open, stat, xattr};

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
    /// Inode number in the topmost layer that has the name.
    pub(crate) ino: u64,
    name_at: u32,
    /// Position of that layer in the directory's list of lowers.
    place: u16,
    name_len: u8,
    pub(crate) kind: Kind,
}

/// The names of a directory's lower part, in the order of their cookies.
#[derive(Debug, Default)]
pub(crate) struct LowerIndex {
    entries: Vec<IndexEntry>,
    names: Vec<u8>,
    /// The deeper positions of directories that merge, by where the name is.
    deeper: HashMap<u32, Box<[u16]>>,
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
        let may_merge = entry.kind == Kind::Dir && !self.deeper.is_empty();
        let deeper = may_merge.then(|| self.deeper.get(&entry.name_at));
        let deeper = deeper.flatten().into_iter().flatten();
        let all = std::iter::once(entry.place).chain(deeper.copied());
        all.map(usize::from)
    }

    /// Bytes the index takes in memory.
    pub(crate) fn weight(&self) -> usize {
        let deeper = self.deeper.values().map(|places| places.len() * 2 + 32);
        self.entries.len() * size_of::<IndexEntry>() + self.names.len() + deeper.sum::<usize>()
    }
}

/// What one layer says of one name.
struct Record {
    cookie: Cookie,
    ino: u64,
    name_at: u32,
    /// Grows with depth; what a layer hides in those below it comes behind what it has itself.
    order: u32,
    name_len: u8,
    seen: Seen,
}

/// What one layer has under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing that is deeper shows.
    Whiteout,
    Object(Kind),
}

/// Reads all lowers of a directory once: collects what they say, and sorts it by name and depth.
pub(crate) struct Builder<'a> {
    pub(crate) reach: &'a Reach,
    stack: &'a Stack,
    records: Vec<Record>,
    names: Vec<u8>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(reach: &'a Reach, stack: &'a Stack) -> Self {
        Self {
            reach,
            stack,
            records: Vec::new(),
            names: Vec::new(),
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
        self.finish()
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
        let order = u32::from(pos) * 2;
        dir::for_each::<Error>(list.as_fd(), |entry| {
            match aufs::classify(entry.name) {
                AufsName::OpaqueMarker => opaque = true,
                AufsName::Meta => {}
                AufsName::Whiteout(hidden) => {
                    self.note(order + 1, Name::new(hidden)?, 0, Seen::Whiteout)?;
                }
                AufsName::Plain => {
                    let name = Name::new(entry.name)?;
                    if let Some((seen, ino)) = self.classify(lower, fd.as_fd(), name, &entry)? {
                        self.note(order, name, ino, seen)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(opaque)
    }

    fn note(&mut self, order: u32, name: &Name, ino: u64, seen: Seen) -> Result<()> {
        let name = name.as_bytes();
        let too_large = |_| Error::Malformed("too many names in a directory");
        self.records.push(Record {
            cookie: cookie_of(name),
            ino,
            name_at: u32::try_from(self.names.len()).map_err(too_large)?,
            order,
            name_len: u8::try_from(name.len()).map_err(too_large)?,
            seen,
        });
        self.names.extend_from_slice(name);
        Ok(())
    }

    /// None for a name that has gone since it was listed.
    fn classify(
        &self,
        lower: &Obj,
        dir: std::os::fd::BorrowedFd<'_>,
        name: &Name,
        entry: &dir::DirEntry<'_>,
    ) -> Result<Option<(Seen, u64)>> {
        let xwhiteouts = self.stack.may_have_xwhiteouts(lower);
        let by_marks = self.stack.stat_mark(lower.layer()).is_some();
        let sure = match entry.kind {
            None | Some(Kind::Char) => None,
            Some(Kind::File) if xwhiteouts || by_marks => None,
            Some(kind) => Some(kind),
        };
        if let Some(kind) = sure {
            return Ok(Some((Seen::Object(kind), entry.ino)));
        }
        let at = At::entry(dir, name);
        let Some(found) = stat::stat_opt(at)? else {
            return Ok(None);
        };
        if whiteout::is_whiteout_dev(found.mode, found.rdev.0, found.rdev.1) {
            return Ok(Some((Seen::Whiteout, found.ino)));
        }
        if xwhiteouts && whiteout::may_be_xattr_whiteout(found.mode, found.size) {
            let mark = xattr::get(at, self.stack.ns.whiteout().as_bytes())?;
            if mark.is_some() {
                return Ok(Some((Seen::Whiteout, found.ino)));
            }
        }
        let kind = self.stack.seen_kind(lower.layer(), at, &found)?;
        Ok(Some((Seen::Object(kind), found.ino)))
    }

    fn finish(self) -> Result<LowerIndex> {
        let Self {
            mut records, names, ..
        } = self;
        let name = |r: &Record| {
            let at = r.name_at as usize;
            names
                .get(at..at + usize::from(r.name_len))
                .unwrap_or_default()
        };
        records.sort_unstable_by(|a, b| {
            let by_name = || name(a).cmp(name(b)).then(a.order.cmp(&b.order));
            a.cookie.cmp(&b.cookie).then_with(by_name)
        });
        let mut index = LowerIndex::default();
        let mut one_name = records.chunk_by(|a, b| a.cookie == b.cookie && name(a) == name(b));
        one_name.try_for_each(|layers| match layers {
            [top, below @ ..] => index.add(name(top), top, below),
            [] => Ok(()),
        })?;
        index.entries.shrink_to_fit();
        index.names.shrink_to_fit();
        Ok(index)
    }
}

impl LowerIndex {
    /// Adds the next name by what the layers say of it, `top` above all of `below`.
    fn add(&mut self, name: &[u8], top: &Record, below: &[Record]) -> Result<()> {
        let Seen::Object(kind) = top.seen else {
            return Ok(());
        };
        let too_large = |_| Error::Malformed("too many names in a directory");
        let name_at = u32::try_from(self.names.len()).map_err(too_large)?;
        self.names.extend_from_slice(name);
        self.entries.push(IndexEntry {
            cookie: top.cookie,
            ino: top.ino,
            name_at,
            place: top.place(),
            name_len: top.name_len,
            kind,
        });
        // A directory merges with those below it, down to a whiteout or another kind of object.
        let is_dir = |r: &&Record| r.seen == Seen::Object(Kind::Dir);
        let merge = below.iter().take_while(is_dir).map(Record::place);
        let deeper: Box<[u16]> = match kind {
            Kind::Dir => merge.collect(),
            _ => Box::default(),
        };
        if !deeper.is_empty() {
            self.deeper.insert(name_at, deeper);
        }
        Ok(())
    }
}

impl Record {
    /// The position of the layer; positions fit into 16 bits.
    fn place(&self) -> u16 {
        (self.order / 2) as u16
    }
}

#[cfg(test)]
mod tests;
