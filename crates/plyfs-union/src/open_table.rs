//! Which inodes of the kernel are open, and what each is bound to (see [`crate::opens`]).
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::stat::LayerIno;

use crate::attr::Attr;
use crate::inode::NodeId;
use crate::io::SUID_SGID;
use crate::journal::{Journal, Opened, Record};
use crate::opens::{Backings, How, OpenCounts};

const SHARDS: usize = 16;

/// Which file of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataFile(LayerIdx, LayerIno);

impl DataFile {
    pub(crate) fn of(obj: &Obj) -> Self {
        Self(obj.layer(), obj.id())
    }
}

/// What an inode of the kernel is bound to while it is open.
#[derive(Debug)]
struct Bound {
    file: DataFile,
    /// None where the kernel did not take the file.
    backing: Option<u32>,
    opens: u64,
    writers: u64,
    /// The thread whose open was answered with ESTALE last. One that comes again has no name to
    /// look up: it opens a descriptor of /proc, or a file that is mounted somewhere.
    sent_away: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    bound: Option<Bound>,
    /// It was open for reading and writing, so that it may be mapped for writing as long as the
    /// kernel knows it: mappings outlive descriptors, and nobody tells when they change the file.
    mapped: bool,
    /// Where it is noted.
    record: Option<Record>,
}

impl State {
    fn note(&mut self, node: NodeId, journal: Option<&Arc<Journal>>) {
        let Some(journal) = journal else { return };
        let few = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let opened = self.bound.as_ref().map(|bound| Opened {
            layer: bound.file.0,
            file: bound.file.1,
            backing: bound.backing,
            opens: few(bound.opens),
            writers: few(bound.writers),
            sent_away: bound.sent_away,
        });
        journal.note_open(&mut self.record, node, opened, self.mapped);
    }
}

/// What an open finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It is one more of those that are there.
    Yes(Option<u32>),
    /// Nobody has the inode open.
    First,
    /// The inode is bound to another file.
    Other,
}

/// The table of opens.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    pub(crate) backings: OnceLock<Box<dyn Backings>>,
    shards: [Mutex<HashMap<NodeId, State>>; SHARDS],
    pub(crate) refused: AtomicBool,
    /// Where what is here is noted for the next daemon.
    journal: Option<Arc<Journal>>,
}

impl Opens {
    pub(crate) fn new(journal: Option<Arc<Journal>>) -> Self {
        Self {
            journal,
            ..Self::default()
        }
    }

    /// What dead daemons have noted of inodes that are known again; the rest is dropped.
    pub(crate) fn restore(&self, journal: &Journal, is_known: impl Fn(NodeId) -> bool) {
        for (record, node, opened, mapped) in journal.opened() {
            if !is_known(node) {
                journal.drop_record(record);
                continue;
            }
            let bound = opened.map(|o| Bound {
                file: DataFile(o.layer, o.file),
                backing: o.backing,
                opens: o.opens.into(),
                writers: o.writers.into(),
                sent_away: o.sent_away,
            });
            let state = State {
                bound,
                mapped,
                record: Some(record),
            };
            self.shard(node).lock().insert(node, state);
        }
    }

    fn drop_record(&self, record: Option<Record>) {
        if let (Some(journal), Some(record)) = (&self.journal, record) {
            journal.drop_record(record);
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.backings.get().is_some()
    }

    fn shard(&self, node: NodeId) -> &Mutex<HashMap<NodeId, State>> {
        &self.shards[(node.0 as usize) % SHARDS]
    }

    /// Counts one more open of `node` if it is bound to `file`, or served.
    pub(crate) fn join(&self, node: NodeId, file: DataFile, how: How) -> Joined {
        let mut shard = self.shard(node).lock();
        let Some(state) = shard.get_mut(&node) else {
            return Joined::First;
        };
        let Some(bound) = &mut state.bound else {
            return Joined::First;
        };
        if bound.file != file && bound.backing.is_some() {
            return Joined::Other;
        }
        bound.opens += 1;
        bound.writers += u64::from(how.writes);
        let backing = bound.backing;
        state.note(node, self.journal.as_ref());
        Joined::Yes(backing)
    }

    /// Binds `node`, which nobody has open, and counts the first open; false when somebody was
    /// faster.
    pub(crate) fn bind(
        &self,
        node: NodeId,
        file: DataFile,
        backing: Option<u32>,
        how: How,
    ) -> bool {
        let mut shard = self.shard(node).lock();
        let state = shard.entry(node).or_default();
        if state.bound.is_some() {
            return false;
        }
        state.bound = Some(Bound {
            file,
            backing,
            opens: 1,
            writers: u64::from(how.writes),
            sent_away: None,
        });
        state.note(node, self.journal.as_ref());
        true
    }

    /// Counts an open for reading of `node`, which is bound to another file, by one who looks no name
    /// up: a thread that was sent away before, or the kernel.
    pub(crate) fn join_again(&self, node: NodeId, pid: u32, how: How) -> Option<u32> {
        let mut shard = self.shard(node).lock();
        let state = shard.get_mut(&node)?;
        let bound = state.bound.as_mut()?;
        if how.writes || !(how.by_kernel || bound.sent_away == Some(pid)) {
            return None;
        }
        bound.opens += 1;
        let backing = bound.backing;
        state.note(node, self.journal.as_ref());
        backing
    }

    /// Remembers the thread that is answered with ESTALE.
    pub(crate) fn send_away(&self, node: NodeId, pid: u32) {
        let mut shard = self.shard(node).lock();
        let Some(state) = shard.get_mut(&node) else {
            return;
        };
        if let Some(bound) = &mut state.bound {
            bound.sent_away = Some(pid);
            state.note(node, self.journal.as_ref());
        }
    }

    /// Notes that `node`, which is open, may be mapped for writing; true when that is news.
    pub(crate) fn may_be_mapped(&self, node: NodeId) -> bool {
        let mut shard = self.shard(node).lock();
        let state = shard.entry(node).or_default();
        let is_news = !std::mem::replace(&mut state.mapped, true);
        if is_news {
            state.note(node, self.journal.as_ref());
        }
        is_news
    }

    /// Takes back one open; the registration that nobody needs any more.
    pub(crate) fn leave(&self, node: NodeId, writes: bool) -> Option<u32> {
        let mut shard = self.shard(node).lock();
        let state = shard.get_mut(&node)?;
        let bound = state.bound.as_mut()?;
        bound.opens = bound.opens.saturating_sub(1);
        bound.writers = bound.writers.saturating_sub(u64::from(writes));
        let (opens, backing) = (bound.opens, bound.backing);
        if opens == 0 {
            state.bound = None;
        }
        // Before the registration ends: its number may then be that of another file.
        state.note(node, self.journal.as_ref());
        if opens > 0 {
            return None;
        }
        if !state.mapped {
            let record = state.record;
            shard.remove(&node);
            self.drop_record(record);
        }
        backing
    }

    /// The file `node` is bound to by passthrough.
    pub(crate) fn bound(&self, node: NodeId) -> Option<DataFile> {
        let shard = self.shard(node).lock();
        let bound = shard.get(&node)?.bound.as_ref()?;
        bound.backing.map(|_| bound.file)
    }

    /// Whether attributes of `node` change without the kernel's knowledge: by a mapping, or by a
    /// write that takes suid and sgid off.
    pub(crate) fn drifts(&self, node: NodeId, attr: &Attr) -> bool {
        let shard = self.shard(node).lock();
        let privileged = attr.mode & SUID_SGID != 0;
        shard.get(&node).is_some_and(|state| {
            state.mapped
                || privileged
                    && state
                        .bound
                        .as_ref()
                        .is_some_and(|b| b.backing.is_some() && b.writers > 0)
        })
    }

    /// The kernel does not know `node` any more. It tells of the last close before, so that nothing
    /// is bound; if it did not, the registration must not stay.
    pub(crate) fn forget(&self, node: NodeId) {
        let state = self.shard(node).lock().remove(&node);
        self.drop_record(state.as_ref().and_then(|s| s.record));
        let left = state.and_then(|s| s.bound).and_then(|b| b.backing);
        self.unregister(left);
    }

    pub(crate) fn unregister(&self, backing: Option<u32>) {
        if let (Some(backing), Some(backings)) = (backing, self.backings.get()) {
            backings.unregister(backing);
        }
    }

    pub(crate) fn counts(&self) -> OpenCounts {
        let mut counts = OpenCounts::default();
        for shard in &self.shards {
            for bound in shard.lock().values().filter_map(|s| s.bound.as_ref()) {
                match bound.backing {
                    Some(_) => counts.passed += 1,
                    None => counts.served += 1,
                }
                counts.opens += bound.opens;
            }
        }
        counts
    }
}
