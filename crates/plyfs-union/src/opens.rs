//! Open files where the kernel passes reads and writes through: which data file each is bound to.
//!
//! P1: what is open by passthrough is bound to one data file, and a data file that rises gets
//! another inode of the kernel. An open for writing copies up first, so a lower file is never bound
//! for a writer. If the lower file is still bound for readers then, the open answers ESTALE; the
//! kernel looks the name up again and finds a second number for the same inode, which is free to
//! be bound to the upper file. Who has the first number reads the lower file on, as it was, and
//! sees its size; all else is the same under both numbers.
//!
//! All this state is in [`crate::open_table`]: a count for each of the kernel's inodes, and what it is bound to. Data of
//! files that the kernel does not take is read and written by requests, as without passthrough.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plyfs_layer::{LayerIdx, Obj};
use plyfs_sys::open::Access;
use plyfs_sys::stat::Kind;
use plyfs_sys::{Errno, SysError, open, stat};

use crate::attr::{Attr, SetAttr};
use crate::copy_up::DataNeed;
use crate::files::OpenFile;
use crate::inode::{Inode, NodeId};
use crate::io::SUID_SGID;
use crate::journal::Intent;
use crate::lookup::Entry;
use crate::open_table::{DataFile, Joined};
use crate::{Caller, Error, Result, Union};

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
        self.intend(Intent::Opened(node, how.writes));
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
        self.intend(Intent::Opened(node, how.writes));
        if how.reads && how.writes {
            self.opens.may_be_mapped(node);
        }
        Ok(way)
    }

    /// Takes back one [`Union::open_file`] with the same `writes`.
    pub fn release(&self, node: NodeId, writes: bool) {
        if self.has_before(Intent::Released) {
            return;
        }
        self.intend(Intent::Released);
        self.take_back(node, writes);
    }

    fn take_back(&self, node: NodeId, writes: bool) {
        let unused = self.opens.leave(node, writes);
        self.opens.unregister(unused);
    }

    /// The request on this thread was begun by a daemon that is dead: what that has counted for the
    /// reply is counted again.
    pub(crate) fn take_back_open(&self) {
        let intent = self.table.journal().map(|j| j.intent());
        if let Some(Intent::Opened(node, writes)) = intent {
            self.intend(Intent::None);
            self.take_back(node, writes);
        }
    }

    fn intend(&self, intent: Intent) {
        if let Some(journal) = self.table.journal() {
            journal.intend(intent);
        }
    }

    fn has_before(&self, intent: Intent) -> bool {
        let journal = self.table.journal();
        journal.is_some_and(|j| j.is_again() && j.intent() == intent)
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
                // A thread that comes again is another thing than a request that does.
                Joined::Other if self.has_before(Intent::SentAway) => {
                    return Err(self.send_away(caller, node, inode));
                }
                Joined::Other => match self.opens.join_again(node, caller.pid, how) {
                    Some(lower) => return Ok(Way::Asked(lower)),
                    None => return Err(self.send_away(caller, node, inode)),
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

    fn send_away(&self, caller: &Caller, node: NodeId, inode: &Arc<Inode>) -> Error {
        self.intend(Intent::SentAway);
        self.opens.send_away(node, caller.pid);
        self.split(inode)
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
