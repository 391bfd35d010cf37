//! Open files where the kernel passes reads and writes through: which data file each is bound to.
//!
//! P1: what is open by passthrough is bound to one data file, and a data file that rises gets
//! another inode of the kernel. An open for writing copies up first, so a lower file is never bound
//! for a writer. If the lower file is still bound for readers then, the open answers ESTALE; the
//! kernel looks the name up again and finds a second number for the same inode, which is free to
//! be bound to the upper file. Who has the first number reads the lower file on, as it was, and
//! sees its size; all else is the same under both numbers.
//!
//! All this state is here: a count for each of the kernel's inodes, and what it is bound to. Data of
//! files that the kernel does not take is read and written by requests, as without passthrough.
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::open::Access;
use plyfs_sys::stat::{Kind, LayerIno};
use plyfs_sys::{Errno, SysError, open, stat};

use crate::attr::{Attr, SetAttr};
use crate::copy_up::DataNeed;
use crate::files::OpenFile;
use crate::inode::{Inode, NodeId};
use crate::io::SUID_SGID;
use crate::lookup::Entry;
use crate::{Caller, Error, Result, Union};

const SHARDS: usize = 16;

/// Who registers data files with the kernel.
pub trait Backings: Send + Sync + std::fmt::Debug {
    /// Registers a file; `written` says that others than root may write to it.
    ///
    /// # Errors
    /// Why the kernel does not take the file.
    fn register(&self, file: BorrowedFd<'_>, written: bool) -> plyfs_sys::Result<u32>;
    /// Ends a registration.
    fn unregister(&self, backing: u32);
}

/// How a file is to be opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// Data may be read.
    pub reads: bool,
    /// Data may be written.
    pub writes: bool,
    /// All that is written goes to the end.
    pub appends: bool,
    /// Each write is durable when it returns.
    pub syncs: bool,
    /// The file is cut to nothing.
    pub truncates: bool,
    /// The kernel opens the file for an ioctl of its own, and looks no name up again.
    pub by_kernel: bool,
}

/// How data of an open file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the kernel, from the file with this number.
    Passed(u32),
    /// By the kernel for mappings; reads and writes are requests, since each may have to take suid
    /// and sgid off or to be refused.
    Asked(u32),
    /// By requests. What the kernel has cached is still right where `cached` says so.
    Served {
        /// Nobody has changed the data since the kernel last saw it.
        cached: bool,
    },
}

/// Which file of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DataFile(LayerIdx, LayerIno);

impl DataFile {
    fn of(obj: &Obj) -> Self {
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
}

/// What an open finds.
#[derive(Debug, PartialEq, Eq)]
enum Joined {
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
    backings: OnceLock<Box<dyn Backings>>,
    shards: [Mutex<HashMap<NodeId, State>>; SHARDS],
    refused: AtomicBool,
}

/// How many files are open, for those who ask how a mount is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Inodes that are open, with the kernel reading and writing the data.
    pub passed: u64,
    /// Inodes that are open, with their data read and written by requests.
    pub served: u64,
    /// Opens of all of them.
    pub opens: u64,
}

impl Opens {
    fn is_on(&self) -> bool {
        self.backings.get().is_some()
    }

    fn shard(&self, node: NodeId) -> &Mutex<HashMap<NodeId, State>> {
        &self.shards[(node.0 as usize) % SHARDS]
    }

    /// Counts one more open of `node` if it is bound to `file`, or served.
    fn join(&self, node: NodeId, file: DataFile, how: How) -> Joined {
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
        Joined::Yes(bound.backing)
    }

    /// Binds `node`, which nobody has open, and counts the first open; false when somebody was
    /// faster.
    fn bind(&self, node: NodeId, file: DataFile, backing: Option<u32>, how: How) -> bool {
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
        true
    }

    /// Counts an open for reading of `node`, which is bound to another file, by one who looks no name
    /// up: a thread that was sent away before, or the kernel. Otherwise remembers the thread.
    fn join_again(&self, node: NodeId, pid: u32, how: How) -> Option<u32> {
        let mut shard = self.shard(node).lock();
        let bound = shard.get_mut(&node)?.bound.as_mut()?;
        let again = how.by_kernel || bound.sent_away.replace(pid) == Some(pid);
        if how.writes || !again {
            return None;
        }
        bound.opens += 1;
        bound.backing
    }

    /// Notes that `node`, which is open, may be mapped for writing; true when that is news.
    fn may_be_mapped(&self, node: NodeId) -> bool {
        let mut shard = self.shard(node).lock();
        !std::mem::replace(&mut shard.entry(node).or_default().mapped, true)
    }

    /// Takes back one open; the registration that nobody needs any more.
    fn leave(&self, node: NodeId, writes: bool) -> Option<u32> {
        let mut shard = self.shard(node).lock();
        let state = shard.get_mut(&node)?;
        let bound = state.bound.as_mut()?;
        bound.opens -= 1;
        bound.writers = bound.writers.saturating_sub(u64::from(writes));
        if bound.opens > 0 {
            return None;
        }
        let backing = bound.backing;
        state.bound = None;
        if !state.mapped {
            shard.remove(&node);
        }
        backing
    }

    /// The file `node` is bound to by passthrough.
    fn bound(&self, node: NodeId) -> Option<DataFile> {
        let shard = self.shard(node).lock();
        let bound = shard.get(&node)?.bound.as_ref()?;
        bound.backing.map(|_| bound.file)
    }

    /// Whether attributes of `node` change without the kernel's knowledge: by a mapping, or by a
    /// write that takes suid and sgid off.
    fn drifts(&self, node: NodeId, attr: &Attr) -> bool {
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
        let left = state.and_then(|s| s.bound).and_then(|b| b.backing);
        self.unregister(left);
    }

    fn unregister(&self, backing: Option<u32>) {
        if let (Some(backing), Some(backings)) = (backing, self.backings.get()) {
            backings.unregister(backing);
        }
    }

    fn counts(&self) -> OpenCounts {
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

impl Union {
    /// From now on the kernel reads and writes data itself where it can, and tells of each open
    /// and of each last close. To be called before the first request.
    pub fn pass_through(&self, backings: Box<dyn Backings>) {
        self.opens.backings.get_or_init(|| backings);
    }

    /// Whether opens are told.
    #[must_use]
    pub fn passes_through(&self) -> bool {
        self.opens.is_on()
    }

    /// The number by which the kernel is to know an inode from now on.
    #[must_use]
    pub fn node_of(&self, inode: &Inode) -> NodeId {
        self.table.node_of(inode)
    }

    /// Whether the kernel may keep the attributes of `node` until it is told otherwise.
    #[must_use]
    pub fn keeps_attributes(&self, node: NodeId, attr: &Attr) -> bool {
        !self.opens.is_on() || !(self.table.has_two_numbers(node) || self.opens.drifts(node, attr))
    }

    /// How many files are open.
    #[must_use]
    pub fn open_counts(&self) -> OpenCounts {
        self.opens.counts()
    }

    /// Opens a file. An open for writing copies up; it is balanced by [`Union::release`].
    ///
    /// # Errors
    /// ESTALE when the kernel has to look the name up again; EROFS, EPERM, ENOSPC and the like.
    pub fn open_file(&self, caller: &Caller, node: NodeId, how: How) -> Result<Way> {
        let inode = self.inode(node)?;
        if inode.kind != Kind::File {
            return Err(Error::Invalid("only regular files have data"));
        }
        if how.writes {
            self.may_open(&inode, how.appends)?;
        }
        if how.truncates {
            let cut = SetAttr {
                size: Some(0),
                by_handle: true,
                ..SetAttr::default()
            };
            self.setattr(caller, node, &cut)?;
        } else if how.writes {
            self.copy_up(&inode, DataNeed::All)?;
        }
        let asked = how.writes && self.must_ask(&inode, None)?;
        let way = self.bind(caller, node, &inode, (how, asked))?;
        if how.reads && how.writes && self.opens.may_be_mapped(node) {
            // The kernel keeps attributes that a mapping may change from now on.
            self.invalidate(node);
        }
        Ok(way)
    }

    /// Opens a file that has just been made and that the kernel does not know yet.
    ///
    /// # Errors
    /// ESTALE, EIO and the like; the file stays.
    pub fn open_made(&self, made: &Entry, how: How) -> Result<Way> {
        let asked = how.writes && self.must_ask(&made.node, Some(made.attr.mode))?;
        let node = made.node.id;
        let way = self.bind(&Caller::ROOT, node, &made.node, (how, asked))?;
        if how.reads && how.writes {
            self.opens.may_be_mapped(node);
        }
        Ok(way)
    }

    /// Takes back one [`Union::open_file`] with the same `writes`.
    pub fn release(&self, node: NodeId, writes: bool) {
        let unused = self.opens.leave(node, writes);
        self.opens.unregister(unused);
    }

    fn bind(
        &self,
        caller: &Caller,
        node: NodeId,
        inode: &Arc<Inode>,
        (how, asked): (How, bool),
    ) -> Result<Way> {
        if how.syncs && how.writes && inode.durable.pending().is_some() {
            // The kernel syncs the data it writes, not the name by which that is found.
            self.fsync(inode.id, true)?;
        }
        loop {
            let data = inode.data().ok_or(Error::Stale)?;
            if how.writes && data.layer() != LayerIdx::UPPER {
                // P1, whatever happened.
                return Err(Error::ReadOnly);
            }
            let file = DataFile::of(&data);
            let backing = match self.opens.join(node, file, how) {
                Joined::Yes(backing) => backing,
                // The data has risen since it was looked at.
                Joined::Other if inode.data().is_some_and(|d| DataFile::of(&d) != file) => continue,
                Joined::Other => match self.opens.join_again(node, caller.pid, how) {
                    Some(lower) => return Ok(Way::Asked(lower)),
                    None => return Err(self.split(inode)),
                },
                Joined::First => {
                    let backing = self.register(inode, &data)?;
                    if !self.opens.bind(node, file, backing, how) {
                        self.opens.unregister(backing);
                        continue;
                    }
                    backing
                }
            };
            return Ok(match backing {
                Some(backing) if asked => Way::Asked(backing),
                Some(backing) => Way::Passed(backing),
                None => Way::Served {
                    cached: data.layer() != LayerIdx::UPPER,
                },
            });
        }
    }

    /// Registers a data file with the kernel; None where it does not take it.
    fn register(&self, inode: &Arc<Inode>, data: &Arc<Obj>) -> Result<Option<u32>> {
        let Some(backings) = self.opens.backings.get() else {
            return Ok(None);
        };
        let written = data.layer() == LayerIdx::UPPER;
        let open = self.files.get(inode.id);
        let registered = match open.filter(|f| f.serves(data.layer(), false)) {
            Some(file) => backings.register(file.fd(), written),
            None => backings.register(self.path_fd(data)?.as_fd(), written),
        };
        match registered {
            Ok(backing) => Ok(Some(backing)),
            Err(e) => {
                if self.opens.refused.swap(true, Ordering::Relaxed) {
                    tracing::debug!("inode {} is not passed through: {e}", inode.id.0);
                } else {
                    tracing::warn!("not all files are passed through: {e}");
                }
                Ok(None)
            }
        }
    }

    /// An O_PATH descriptor of a data file, checked to be that file.
    fn path_fd(&self, data: &Obj) -> Result<OwnedFd> {
        self.reach.with(data, |at| {
            let fd = open::open_path_at(at)?;
            if stat::stat_fd(fd.as_fd())?.id() != data.id() {
                return Err(SysError::new("open file", Errno::ESTALE).into());
            }
            Ok(fd)
        })
    }

    /// Gives the inode a second number; the kernel finds it when it looks the name up again.
    fn split(&self, inode: &Arc<Inode>) -> Error {
        if self.table.number_again(inode) {
            self.invalidate(inode.id);
        }
        Error::Moved
    }

    /// Has the kernel look the name up again once the size has changed of a number that is bound to
    /// the lower file, and shows its size.
    pub(crate) fn move_if_bound(&self, node: NodeId, inode: &Arc<Inode>) -> Result<()> {
        match self.lower_under(node, inode) {
            Some(_) => Err(self.split(inode)),
            None => Ok(()),
        }
    }

    /// Attributes as `node` shows them: the size is that of the file it reads.
    pub(crate) fn seen_by(&self, node: NodeId, inode: &Arc<Inode>, mut attr: Attr) -> Result<Attr> {
        if let Some(lower) = self.lower_under(node, inode) {
            attr.size = self.stat_obj(&lower)?.size;
        }
        Ok(attr)
    }

    /// The lower file `node` is bound to although the data is in the upper by now.
    fn lower_under(&self, node: NodeId, inode: &Inode) -> Option<Arc<Obj>> {
        if !self.opens.is_on() || inode.lowers.is_empty() {
            return None;
        }
        let bound = self.opens.bound(node)?;
        let risen = inode.data().is_some_and(|d| DataFile::of(&d) != bound);
        inode.lowers.last().filter(|_| risen)
    }

    /// Whether the kernel may keep a name of the inode until it is told otherwise. One of several
    /// names of a lower file would keep the first number where the file is split by another name.
    #[must_use]
    pub fn keeps_name(&self, inode: &Inode) -> bool {
        let lower = |data: Arc<Obj>| data.layer() != LayerIdx::UPPER;
        !(self.opens.is_on() && inode.indexed().is_some() && inode.data().is_some_and(lower))
    }

    /// Whether each write must be seen: it may take off what the layer's file system would leave to
    /// the kernel's credentials, or has to be refused.
    fn must_ask(&self, inode: &Arc<Inode>, mode: Option<u32>) -> Result<bool> {
        if self.upper_has_marks() || self.stack.keeps_apart(LayerIdx::UPPER) {
            return Ok(true);
        }
        let mode = match mode {
            Some(mode) => mode,
            None => self.stat_obj(inode.upper().ok_or(Error::ReadOnly)?)?.mode,
        };
        Ok(mode & SUID_SGID != 0 || self.is_append_only(inode)?)
    }

    /// The file from which requests for `node` read.
    pub(crate) fn file_seen_by(&self, node: NodeId, inode: &Arc<Inode>) -> Result<Arc<OpenFile>> {
        let Some(lower) = self.lower_under(node, inode) else {
            return self.read_file(inode);
        };
        let fd = self
            .reach
            .open_file(&lower, Access::READ | Access::NOATIME)?;
        Ok(OpenFile::alone(fd, lower.layer()))
    }
}
