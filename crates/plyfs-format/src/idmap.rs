//! Id maps: which owner the mount shows for the one on disk, and back.
//!
//! A range says (container, host, length). Layers store container ids, the mount shows host ids: what is shown is
//! `to_host(on disk)`, what a caller sets is stored as `to_container(asked for)`. This is how `uidmapping=` and
//! `gidmapping=` of fuse-overlayfs work, so that one layer serves containers with different maps without a chown.

use thiserror::Error;

/// What the kernel shows for an id without mapping (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

/// Consecutive ids of the container mapped to as many of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// First id on disk.
    pub container: u32,
    /// First id shown.
    pub host: u32,
    /// How many; never 0 in an [`IdMap`].
    pub len: u32,
}

/// A one-to-one map of ids, of any number of ranges in any order. The empty one is the identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    /// Sorted by `container`, apart from each other on both sides.
    by_container: Vec<IdRange>,
    /// The same ranges sorted by `host`.
    by_host: Vec<IdRange>,
}

/// Why a text or a list of ranges is no id map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadIdMap {
    /// The number of fields is not a multiple of three.
    #[error("id map has {0} fields, but it is made of triples CONTAINER:HOST:LENGTH")]
    NotTriples(usize),
    /// A field is no number.
    #[error("id map: `{0}` is not a number from 0 to 4294967295")]
    NotANumber(String),
    /// A range maps nothing.
    #[error("id map: range {}:{}:{} is empty; its length must be at least 1", .0.container, .0.host, .0.len)]
    Empty(IdRange),
    /// A range reaches past the last id.
    #[error("id map: range {}:{}:{} goes past the highest id, 4294967294", .0.container, .0.host, .0.len)]
    Overflow(IdRange),
    /// Two ranges share an id, so that one of the two directions would be ambiguous.
    #[error(
        "id map: ranges {}:{}:{} and {}:{}:{} overlap on the {side} side",
        .first.container, .first.host, .first.len, .second.container, .second.host, .second.len
    )]
    Overlap {
        /// The range that begins lower.
        first: IdRange,
        /// The range that begins inside it.
        second: IdRange,
        /// "container" or "host".
        side: &'static str,
    },
}

impl IdMap {
    /// A map of these ranges, in any order.
    pub fn new(ranges: impl IntoIterator<Item = IdRange>) -> Result<Self, BadIdMap> {
        let mut by_container: Vec<IdRange> = ranges.into_iter().collect();
        for range in &by_container {
            range.check()?;
        }
        let mut by_host = by_container.clone();
        by_container.sort_unstable_by_key(|r| r.container);
        by_host.sort_unstable_by_key(|r| r.host);
        check_apart(&by_container, "container", |r| r.container)?;
        check_apart(&by_host, "host", |r| r.host)?;
        Ok(Self {
            by_container,
            by_host,
        })
    }

    /// Reads `CONTAINER:HOST:LENGTH[:CONTAINER:HOST:LENGTH…]`. One colon in front is allowed: containers/storage puts
    /// it there.
    pub fn parse(text: &str) -> Result<Self, BadIdMap> {
        let fields: Vec<&str> = text.strip_prefix(':').unwrap_or(text).split(':').collect();
        let (triples, rest) = fields.as_chunks::<3>();
        if !rest.is_empty() {
            return Err(BadIdMap::NotTriples(fields.len()));
        }
        let ranges = triples.iter().map(|[container, host, len]| {
            Ok(IdRange {
                container: number(container)?,
                host: number(host)?,
                len: number(len)?,
            })
        });
        Self::new(ranges.collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether nothing is mapped and every id stays what it is.
    pub fn is_identity(&self) -> bool {
        self.by_container.is_empty()
    }

    /// The ranges, sorted by container id.
    pub fn ranges(&self) -> &[IdRange] {
        &self.by_container
    }

    /// The id to show for `container` on disk, `None` if it is not mapped.
    pub fn to_host(&self, container: u32) -> Option<u32> {
        if self.is_identity() {
            return Some(container);
        }
        find(&self.by_container, container, |r| r.container, |r| r.host)
    }

    /// The id to store for `host` as a caller knows it, `None` if it is not mapped: such an owner cannot be stored, and
    /// the operation answers EOVERFLOW or EINVAL as the kernel's does.
    pub fn to_container(&self, host: u32) -> Option<u32> {
        if self.is_identity() {
            return Some(host);
        }
        find(&self.by_host, host, |r| r.host, |r| r.container)
    }

    /// [`IdMap::to_host`] for `stat`, which must show something: [`OVERFLOW_ID`] if it is not mapped.
    pub fn to_host_or_overflow(&self, container: u32) -> u32 {
        self.to_host(container).unwrap_or(OVERFLOW_ID)
    }

    /// [`IdMap::to_container`] with [`OVERFLOW_ID`] for what is not mapped.
    pub fn to_container_or_overflow(&self, host: u32) -> u32 {
        self.to_container(host).unwrap_or(OVERFLOW_ID)
    }
}

impl IdRange {
    /// The range maps at least one id and never reaches `(uid_t)-1`, which is no id.
    fn check(&self) -> Result<(), BadIdMap> {
        let fits = |first: u32| first.checked_add(self.len).is_some();
        match self.len {
            0 => Err(BadIdMap::Empty(*self)),
            _ if !fits(self.container) || !fits(self.host) => Err(BadIdMap::Overflow(*self)),
            _ => Ok(()),
        }
    }
}

fn check_apart(
    sorted: &[IdRange],
    side: &'static str,
    first_id: impl Fn(&IdRange) -> u32,
) -> Result<(), BadIdMap> {
    for [first, second] in sorted.array_windows() {
        if first_id(second) - first_id(first) < first.len {
            return Err(BadIdMap::Overlap {
                first: *first,
                second: *second,
                side,
            });
        }
    }
    Ok(())
}

fn find(
    sorted: &[IdRange],
    id: u32,
    from: impl Fn(&IdRange) -> u32,
    to: impl Fn(&IdRange) -> u32,
) -> Option<u32> {
    let after = sorted.partition_point(|r| from(r) <= id);
    let range = sorted.get(after.checked_sub(1)?)?;
    let offset = id - from(range);
    (offset < range.len).then(|| to(range) + offset)
}

/// A number of digits only; `str::parse` would take a sign too.
fn number(text: &str) -> Result<u32, BadIdMap> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| BadIdMap::NotANumber(text.into()))
}

#[cfg(test)]
mod tests;
