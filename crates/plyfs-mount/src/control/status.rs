//! What a daemon tells about its mount, in the form of the protocol.
use plyfs_fuse::{Op, OpCount, RequestCounts};
use plyfs_sys::usage::Usage;
use plyfs_union::{CacheStats, CopyStats, OpenCounts, UnionStats};
use serde::{Deserialize, Serialize};

use crate::control::in_force::InForce;
use crate::state::{MountState, StoredPath};

/// Everything about a live mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of the plyfs that serves.
    pub plyfs: String,
    /// For how long, in seconds.
    pub uptime: f64,
    /// Process, mountpoint and layers.
    #[serde(flatten)]
    pub mount: MountState,
    /// Layers with nothing but the data of metacopies.
    #[serde(default)]
    pub data_only: Vec<StoredPath>,
    /// Nothing can be changed.
    pub read_only: bool,
    /// What is in force, and why.
    pub options: Vec<InForce>,
    /// Requests of the kernel by kind.
    pub requests: Vec<Requests>,
    /// The caches of the daemon.
    pub caches: Vec<Cache>,
    /// Copies into the upper.
    pub copy_ups: CopyUps,
    /// Inodes the daemon knows.
    pub inodes: u64,
    /// References to them: lookups not forgotten, children, operations in progress.
    pub references: u64,
    /// Files that are open; None where opens are no requests.
    #[serde(default)]
    pub opens: Option<Opens>,
    /// What the daemon uses.
    pub process: Process,
    /// Another daemon takes over when this one dies.
    #[serde(default)]
    pub replaceable: bool,
    /// Processes that would make it: the holder and its stand-in.
    #[serde(default)]
    pub holders: u32,
    /// The program that serves, as the kernel names it.
    #[serde(default)]
    pub binary: Option<StoredPath>,
    /// Version of what daemons of the mount hand over.
    #[serde(default)]
    pub handover: u64,
    /// How often another program has taken over (`plyfs upgrade`).
    #[serde(default)]
    pub upgrades: u64,
    /// Why the last attempt failed.
    #[serde(default)]
    pub upgrade_failed: Option<String>,
}

/// Files that are open with `data=passthrough`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opens {
    /// Files whose data the kernel reads and writes in the layers.
    pub passed: u64,
    /// Files that the kernel did not take: their data is read and written by requests.
    pub served: u64,
    /// Opens of all of them.
    pub opens: u64,
}

impl From<OpenCounts> for Opens {
    fn from(c: OpenCounts) -> Self {
        Self {
            passed: c.passed,
            served: c.served,
            opens: c.opens,
        }
    }
}

/// Requests of one kind. Times are in nanoseconds and upper bounds, at most twice too large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// The kind, as FUSE names it.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Time of all together.
    pub total_ns: u64,
    /// Half took no longer.
    pub p50_ns: u64,
    /// Nine of ten took no longer.
    pub p90_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// None took longer.
    pub max_ns: u64,
    /// How many took less than 2^i ns and at least half of that; the last one also those longer.
    pub buckets: Vec<u64>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// What it holds.
    pub name: String,
    /// Asked for and there.
    pub hits: u64,
    /// Asked for and not there.
    pub misses: u64,
    /// How many things it holds.
    pub entries: u64,
    /// How many bytes it holds, where its budget is in bytes.
    pub bytes: Option<u64>,
    /// Its budget, in bytes or else in entries.
    pub capacity: u64,
}

/// Copies of data into the upper.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyUps {
    /// Files whose data was copied.
    pub files: u64,
    /// Bytes that were copied.
    pub bytes: u64,
    /// Those in progress, the oldest first.
    pub in_progress: Vec<CopyUp>,
}

/// A copy in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyUp {
    /// Path in the mount; None for a file without a name.
    pub path: Option<StoredPath>,
    /// Bytes copied.
    pub done: u64,
    /// Bytes to copy.
    pub total: u64,
    /// Seconds since it began.
    pub seconds: f64,
}

/// What the daemon's process uses; what /proc does not tell is None.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Resident memory in bytes.
    pub rss: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// How many may be open.
    pub fd_limit: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Seconds of processor time, user and system.
    pub cpu_user: f64,
    /// The same in the kernel.
    pub cpu_system: f64,
}

/// The counters of all kinds that have occurred.
#[must_use]
pub fn requests(counts: &RequestCounts) -> Vec<Requests> {
    let all = Op::all().map(|op| counts.of(op));
    all.filter(|c| c.count() > 0)
        .map(|c| Requests::from(&c))
        .collect()
}

impl From<&OpCount> for Requests {
    fn from(c: &OpCount) -> Self {
        let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let at = |share| nanos(c.percentile(share));
        Self {
            kind: c.op.name().to_owned(),
            count: c.count(),
            total_ns: nanos(c.total),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            max_ns: at(1.0),
            buckets: c.buckets.to_vec(),
        }
    }
}

impl From<CacheStats> for Cache {
    fn from(c: CacheStats) -> Self {
        Self {
            name: c.name.to_owned(),
            hits: c.hits,
            misses: c.misses,
            entries: c.entries,
            bytes: c.bytes,
            capacity: c.capacity,
        }
    }
}

impl From<&UnionStats> for CopyUps {
    fn from(s: &UnionStats) -> Self {
        Self {
            files: s.copied_files,
            bytes: s.copied_bytes,
            in_progress: s.copying.iter().map(CopyUp::from).collect(),
        }
    }
}

impl From<&CopyStats> for CopyUp {
    fn from(c: &CopyStats) -> Self {
        Self {
            path: c.path.as_deref().map(StoredPath::from_bytes),
            done: c.done,
            total: c.total,
            seconds: c.since.as_secs_f64(),
        }
    }
}

impl From<Usage> for Process {
    fn from(u: Usage) -> Self {
        Self {
            rss: u.resident,
            fds: u.descriptors,
            fd_limit: u.descriptor_limit,
            threads: u.threads,
            cpu_user: u.user_time.as_secs_f64(),
            cpu_system: u.system_time.as_secs_f64(),
        }
    }
}
