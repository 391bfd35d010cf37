//! How many requests of each kind were answered, and how long that took.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Kinds of requests, as the kernel's FUSE client knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of the protocol")]
pub enum Op {
    Lookup,
    Forget,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Symlink,
    Link,
    Create,
    Unlink,
    Rmdir,
    Rename,
    Open,
    Release,
    Read,
    Write,
    Flush,
    Fsync,
    Opendir,
    Readdir,
    Readdirplus,
    Fsyncdir,
    Statfs,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Ioctl,
    Poll,
    Bmap,
    Fallocate,
    Lseek,
    CopyFileRange,
}

/// All kinds, in the order of [`Op`], with their names.
const OPS: [(Op, &str); 34] = [
    (Op::Lookup, "lookup"),
    (Op::Forget, "forget"),
    (Op::Getattr, "getattr"),
    (Op::Setattr, "setattr"),
    (Op::Readlink, "readlink"),
    (Op::Mknod, "mknod"),
    (Op::Mkdir, "mkdir"),
    (Op::Symlink, "symlink"),
    (Op::Link, "link"),
    (Op::Create, "create"),
    (Op::Unlink, "unlink"),
    (Op::Rmdir, "rmdir"),
    (Op::Rename, "rename"),
    (Op::Open, "open"),
    (Op::Release, "release"),
    (Op::Read, "read"),
    (Op::Write, "write"),
    (Op::Flush, "flush"),
    (Op::Fsync, "fsync"),
    (Op::Opendir, "opendir"),
    (Op::Readdir, "readdir"),
    (Op::Readdirplus, "readdirplus"),
    (Op::Fsyncdir, "fsyncdir"),
    (Op::Statfs, "statfs"),
    (Op::Setxattr, "setxattr"),
    (Op::Getxattr, "getxattr"),
    (Op::Listxattr, "listxattr"),
    (Op::Removexattr, "removexattr"),
    (Op::Ioctl, "ioctl"),
    (Op::Poll, "poll"),
    (Op::Bmap, "bmap"),
    (Op::Fallocate, "fallocate"),
    (Op::Lseek, "lseek"),
    (Op::CopyFileRange, "copy_file_range"),
];

impl Op {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        OPS.iter().map(|(op, _)| *op)
    }

    /// The name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        OPS[self as usize].1
    }
}

/// Bucket `i` counts what took less than 2^i nanoseconds and at least half of that; the last one
/// also what took longer.
pub const BUCKETS: usize = 40;

#[derive(Debug)]
struct Cell {
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            nanos: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Counters of one connection; cheap enough to be always on.
#[derive(Debug)]
pub struct RequestCounts {
    cells: [Cell; OPS.len()],
}

impl Default for RequestCounts {
    fn default() -> Self {
        Self {
            cells: std::array::from_fn(|_| Cell::default()),
        }
    }
}

/// What the counters of one kind said at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpCount {
    /// The kind.
    pub op: Op,
    /// Time of all requests together, from their arrival in the daemon until the reply was sent.
    pub total: Duration,
    /// Requests by how long they took: see [`BUCKETS`].
    pub buckets: [u64; BUCKETS],
}

impl RequestCounts {
    /// Adds one request.
    pub(crate) fn add(&self, op: Op, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let cell = &self.cells[op as usize];
        cell.nanos.fetch_add(nanos, Ordering::Relaxed);
        cell.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters of one kind.
    #[must_use]
    pub fn of(&self, op: Op) -> OpCount {
        let cell = &self.cells[op as usize];
        OpCount {
            op,
            total: Duration::from_nanos(cell.nanos.load(Ordering::Relaxed)),
            buckets: std::array::from_fn(|i| cell.buckets[i].load(Ordering::Relaxed)),
        }
    }

    /// The counters of all kinds that have occurred.
    #[must_use]
    pub fn all(&self) -> Vec<OpCount> {
        let all = Op::all().map(|op| self.of(op));
        all.filter(|c| c.count() > 0).collect()
    }
}

impl OpCount {
    /// How many requests there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Mean time of a request.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let count = self.count().max(1);
        Duration::from_nanos(u64::try_from(self.total.as_nanos()).unwrap_or(u64::MAX) / count)
    }

    /// A time that the share `share` (0 to 1) of the requests did not exceed: the upper bound of
    /// a bucket, so at most twice too large.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if *n > 0 && seen >= wanted {
                return Duration::from_nanos(1 << i);
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    let bits = u64::BITS - nanos.leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_finds_its_own_name_and_cell() {
        for (i, (op, name)) in OPS.iter().enumerate() {
            assert_eq!(*op as usize, i);
            assert_eq!(op.name(), *name);
        }
        let counts = RequestCounts::default();
        counts.add(Op::CopyFileRange, Duration::from_micros(1));
        assert_eq!(counts.all().len(), 1);
        assert_eq!(counts.of(Op::CopyFileRange).count(), 1);
        assert_eq!(counts.of(Op::Lookup).count(), 0);
    }

    #[test]
    fn a_bucket_ends_below_its_power_of_two() {
        assert_eq!(bucket(0), 0);
        for i in 1..BUCKETS - 1 {
            assert_eq!(bucket((1 << i) - 1), i);
            assert_eq!(bucket(1 << i), i + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_upper_bounds() {
        let counts = RequestCounts::default();
        for nanos in [100, 100, 100, 5000] {
            counts.add(Op::Read, Duration::from_nanos(nanos));
        }
        let read = counts.of(Op::Read);
        assert_eq!(read.percentile(0.5), Duration::from_nanos(128));
        assert_eq!(read.percentile(0.75), Duration::from_nanos(128));
        assert_eq!(read.percentile(1.0), Duration::from_nanos(8192));
        assert_eq!(read.mean(), Duration::from_nanos(1325));
        assert_eq!(counts.of(Op::Write).percentile(0.5), Duration::ZERO);
    }
}
