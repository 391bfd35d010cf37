//! One short method a FUSE operation: decode, call the engine, reply.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use plyfs_sys::die;
use plyfs_sys::io::FileIoctl;
use plyfs_sys::make::Rename;
use plyfs_sys::stat::Kind;
use plyfs_sys::xattr::SetFlags;
use plyfs_union::Request as Asked;
use plyfs_union::{Attr, Caller, Entry, Flow, Found, Make, NodeId, Result, SetAttr, Ticket, Union};

use crate::backings::{self, OpenOut};
use crate::buffers::Buffers;
use crate::convert::{self, caller, cookie, errno, set_time, system_time};
use crate::counts::{Op, RequestCounts};
use crate::guard::guard;
use crate::raw_reply::{RawReply, Sent, listing_room};
use crate::seats::{Seats, Weight};
use crate::session::{Data, SessionConfig};
use crate::wire::{FOREVER, Ttl, Writer, dirent_plus_len};

/// Answers FUSE requests from the engine.
#[derive(Debug)]
pub(crate) struct Adapter {
    union: Arc<Union>,
    raw: RawReply,
    config: SessionConfig,
    counts: Arc<RequestCounts>,
    seats: Arc<Seats>,
    buffers: Buffers,
}

/// From this size on, moving data takes much longer than asking whether other requests wait.
const BULK: usize = 64 << 10;

fn weight(op: Op) -> Weight {
    match op {
        Op::Fsync | Op::Fsyncdir | Op::Fallocate | Op::CopyFileRange => Weight::Long,
        Op::Forget => Weight::Part,
        _ => Weight::Short,
    }
}

/// What the kernel is asked for, each only where it offers it.
const WANTED: [InitFlags; 13] = [
    // Warm work without requests (DESIGN.md, fact 3).
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // Nothing changes behind the kernel's back, so it need not drop pages on its own (fact 4).
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    // Without it every write asks for security.capability (fact 8); clearing suid is ours then.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // ACLs are checked by the kernel and inherited by the upper's file system, which needs the
    // mode as the caller gave it.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_HAS_IOCTL_DIR,
    InitFlags::FUSE_MAX_PAGES,
    // An aborted connection is told from one that was unmounted.
    InitFlags::FUSE_ABORT_ERROR,
];

/// What the kernel is asked for on the cached data path.
const WITHOUT_OPENS: [InitFlags; 1] = [InitFlags::FUSE_NO_OPEN_SUPPORT];

/// What the kernel is asked for on the passthrough data path.
const WITH_OPENS: [InitFlags; 2] = [
    InitFlags::FUSE_PASSTHROUGH,
    // An open that cuts a lower file must not copy it first.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
];

impl Adapter {
    pub(crate) fn new(
        union: Arc<Union>,
        raw: RawReply,
        config: SessionConfig,
        seats: Arc<Seats>,
    ) -> Self {
        Self {
            union,
            raw,
            config,
            counts: Arc::default(),
            seats,
            buffers: Buffers::default(),
        }
    }

    pub(crate) fn counts(&self) -> &Arc<RequestCounts> {
        &self.counts
    }

    /// Every request passes here: it is counted, a panic stays its own, and one that took long is
    /// named in the log.
    fn guard(&self, req: &Request, op: Op, node: INodeNo, handler: impl FnOnce(&Ticket<'_>)) {
        self.serve(op, node, weight(op), || self.attend(req, op, handler));
    }

    /// [`Adapter::guard`] for a request that moves `size` bytes of data.
    fn guard_sized(
        &self,
        req: &Request,
        op: Op,
        node: INodeNo,
        size: usize,
        handler: impl FnOnce(&Ticket<'_>),
    ) {
        let weight = if size < BULK {
            Weight::Short
        } else {
            Weight::Bulky
        };
        self.serve(op, node, weight, || self.attend(req, op, handler));
    }

    /// Notes the request for as long as it has no reply; one that has crashed daemons is refused.
    fn attend(&self, req: &Request, op: Op, handler: impl FnOnce(&Ticket<'_>)) {
        let (ticket, known) = self.union.begin(req.unique().0);
        if known == Asked::Crasher {
            tracing::error!(
                "{} crashed one daemon after the other; it is answered with EIO",
                op.name()
            );
            // The reply it owns is dropped unsent, which answers EIO.
            drop(handler);
        } else {
            die::enter(op.name());
            handler(&ticket);
            die::leave();
        }
    }

    fn serve(&self, op: Op, node: INodeNo, weight: Weight, handler: impl FnOnce()) {
        self.seats.serve(weight, || {
            let start = Instant::now();
            guard(op.name(), handler);
            let took = start.elapsed();
            self.counts.add(op, took);
            if took >= self.config.slow {
                self.tell_slow(op, node, took);
            }
        });
    }

    /// The reply is sent, so finding the path costs the caller nothing.
    #[cold]
    fn tell_slow(&self, op: Op, node: INodeNo, took: Duration) {
        let path = self.union.path_of(NodeId(node.0));
        tracing::warn!(
            path = path.map(|p| p.escape_ascii().to_string()),
            "slow {}: {:.3} s on inode {}",
            op.name(),
            took.as_secs_f64(),
            node.0
        );
    }

    fn ttl(&self) -> Duration {
        self.config.timeout
    }

    fn send_entry(
        &self,
        op: &'static str,
        req: &Request,
        node: INodeNo,
        reply: ReplyEntry,
        (result, ticket): (Result<Entry>, &Ticket<'_>),
    ) {
        match result {
            Ok(entry) => {
                let sent = self.sent(&entry);
                self.raw.entry(req.unique().0, reply, entry, sent, ticket);
            }
            Err(e) => reply.error(errno(op, node.0, &e)),
        }
    }

    /// What is said of an entry: the number the inode has by now, and how long it all holds.
    fn sent(&self, entry: &Entry) -> Sent {
        let node = self.union.node_of(&entry.node);
        let ttl = Ttl {
            entry: match self.union.keeps_name(&entry.node) {
                true => self.ttl(),
                false => Duration::ZERO,
            },
            attr: self.attr_ttl(node, &entry.attr),
        };
        Sent { node, ttl }
    }

    fn send_attr(&self, op: &'static str, node: INodeNo, reply: ReplyAttr, result: Result<Attr>) {
        match result {
            Ok(attr) => {
                let ttl = self.attr_ttl(NodeId(node.0), &attr);
                reply.attr(&ttl.min(FOREVER), &file_attr(&attr));
            }
            Err(e) => reply.error(errno(op, node.0, &e)),
        }
    }

    fn seek_elsewhere(&self, node: INodeNo, offset: i64, whence: i32, reply: ReplyLseek) {
        let union = Arc::clone(&self.union);
        elsewhere("lseek", move || {
            match union.seek(NodeId(node.0), offset, whence) {
                Ok(at) => reply.offset(at),
                Err(e) => reply.error(errno("lseek", node.0, &e)),
            }
        });
    }

    fn attr_ttl(&self, node: NodeId, attr: &Attr) -> Duration {
        match self.union.keeps_attributes(node, attr) {
            true => self.ttl(),
            false => Duration::ZERO,
        }
    }

    fn list_plus(&self, dir: INodeNo, offset: u64, room: usize) -> Result<(Vec<u8>, Vec<Entry>)> {
        let mut w = Writer(Vec::with_capacity(room));
        let mut sent = Vec::new();
        self.union
            .readdir_plus(NodeId(dir.0), cookie(offset), |listed, found| {
                if w.0.len() + dirent_plus_len(listed.name) > room {
                    return Flow::Break(());
                }
                let looked_up = found.as_ref().map(|e| {
                    let sent = self.sent(e);
                    (sent.node.0, &e.attr, sent.ttl)
                });
                w.dirent_plus(&listed, looked_up);
                sent.extend(found);
                Flow::Continue(())
            })?;
        Ok((w.0, sent))
    }
}

/// Answers a request that has to wait for WRITE requests, which the threads of the connection must
/// be free to serve, on a thread of its own.
fn elsewhere(op: &'static str, answer: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new()
        .name(op.into())
        .spawn(move || guard(op, answer));
    // Without a thread the reply is dropped, which answers EIO.
    if let Err(e) = spawned {
        tracing::error!("{op}: no thread: {e}");
    }
}

fn empty(op: &'static str, node: INodeNo, reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(op, node.0, &e)),
    }
}

/// Sends an xattr value or list by the rules of getxattr(2): size 0 asks for the size alone.
fn xattr(op: &'static str, node: INodeNo, size: u32, reply: ReplyXattr, result: Result<Vec<u8>>) {
    match result {
        Ok(value) => match (size, u32::try_from(value.len())) {
            (0, Ok(len)) => reply.size(len),
            (_, Ok(len)) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(e) => reply.error(errno(op, node.0, &e)),
    }
}

fn file_attr(a: &Attr) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(a.ino),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: epoch,
        kind: convert::file_type(Kind::from_mode(a.mode)),
        perm: u16::try_from(a.mode & 0o7777).unwrap_or(0),
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: convert::rdev_to_wire(a.rdev),
        blksize: a.blksize,
        flags: 0,
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let without_acl =
            |flag: &InitFlags| self.union.shows_acls() || *flag != InitFlags::FUSE_POSIX_ACL;
        let data_path: &[InitFlags] = match self.config.data {
            Data::Cached => &WITHOUT_OPENS,
            Data::Passthrough => &WITH_OPENS,
        };
        if self.config.data == Data::Passthrough {
            config.set_max_stack_depth(self.config.stack_depth).ok();
        }
        let wanted = WANTED.iter().chain(data_path).copied();
        for flag in wanted.filter(without_acl) {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel does not offer {flag:?}");
            }
        }
        if self.union.journal().is_some() {
            // Requests that a dead daemon had read are sent again.
            config.add_capabilities(InitFlags::FUSE_HAS_RESEND).ok();
        }
        let cached = self.config.data == Data::Cached && self.config.writeback;
        if cached && !self.union.is_read_only() {
            match config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE) {
                Ok(()) => self.union.kernel_caches_writes(),
                Err(_) => tracing::warn!("the kernel does not cache writes: writeback=0"),
            }
        }
        if let Err(nearest) = config.set_max_write(self.config.max_write) {
            config.set_max_write(nearest).ok();
        }
        config.set_max_background(64).ok();
        config.set_congestion_threshold(48).ok();
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guard(req, Op::Lookup, parent, |ticket| {
            match self.union.lookup(NodeId(parent.0), name.as_bytes()) {
                Ok(Some(entry)) => {
                    let sent = self.sent(&entry);
                    self.raw.entry(req.unique().0, reply, entry, sent, ticket);
                }
                Ok(None) => self.raw.negative(req.unique().0, reply, self.ttl()),
                Err(e) => reply.error(errno("lookup", parent.0, &e)),
            }
        });
    }

    /// Also called by fuser for each inode of a BATCH_FORGET.
    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.serve(Op::Forget, ino, weight(Op::Forget), || {
            self.union.forget(NodeId(ino.0), nlookup)
        });
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.guard(req, Op::Getattr, ino, |_| {
            self.send_attr("getattr", ino, reply, self.union.getattr(NodeId(ino.0)));
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            by_handle: fh.is_some(),
        };
        self.guard(req, Op::Setattr, ino, |_| {
            let result = self.union.setattr(&caller(req, 0), NodeId(ino.0), &set);
            self.send_attr("setattr", ino, reply, result);
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.guard(req, Op::Readlink, ino, |_| {
            match self.union.readlink(NodeId(ino.0)) {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(errno("readlink", ino.0, &e)),
            }
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.guard(req, Op::Mknod, parent, |ticket| {
            let make = Make::Node(mode, convert::rdev_from_wire(rdev));
            let who = caller(req, umask);
            let result = self
                .union
                .make(&who, NodeId(parent.0), name.as_bytes(), make);
            self.send_entry("mknod", req, parent, reply, (result, ticket));
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.guard(req, Op::Mkdir, parent, |ticket| {
            let who = caller(req, umask);
            let make = Make::Dir(mode);
            let result = self
                .union
                .make(&who, NodeId(parent.0), name.as_bytes(), make);
            self.send_entry("mkdir", req, parent, reply, (result, ticket));
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guard(req, Op::Unlink, parent, |_| {
            let result = self.union.unlink(NodeId(parent.0), name.as_bytes());
            empty("unlink", parent, reply, result);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guard(req, Op::Rmdir, parent, |_| {
            let result = self.union.rmdir(NodeId(parent.0), name.as_bytes());
            empty("rmdir", parent, reply, result);
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.guard(req, Op::Symlink, parent, |ticket| {
            let make = Make::Symlink(target.as_os_str().as_bytes());
            let who = caller(req, 0);
            let result = self
                .union
                .make(&who, NodeId(parent.0), name.as_bytes(), make);
            self.send_entry("symlink", req, parent, reply, (result, ticket));
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Rename, parent, |_| {
            let flags = Rename::from_bits_retain(flags.bits());
            let from = (NodeId(parent.0), name.as_bytes());
            let to = (NodeId(newparent.0), newname.as_bytes());
            let result = self.union.rename(from.0, from.1, to.0, to.1, flags);
            empty("rename", parent, reply, result);
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.guard(req, Op::Link, ino, |ticket| {
            let (node, dir) = (NodeId(ino.0), NodeId(newparent.0));
            let result = self.union.link(node, dir, newname.as_bytes());
            self.send_entry("link", req, ino, reply, (result, ticket));
        });
    }

    /// Without passthrough ENOSYS once: from then on the kernel opens files by itself
    /// (`fuse_file_open()`).
    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.guard(req, Op::Open, ino, |_| {
            if !self.union.passes_through() {
                return reply.error(Errno::ENOSYS);
            }
            let (node, how) = (NodeId(ino.0), backings::how(flags.0));
            match self.union.open_file(&caller(req, 0), node, how) {
                Ok(way) => {
                    let out = OpenOut::new(how, way);
                    if !self.raw.opened(req.unique().0, reply, out) {
                        self.union.release(node, how.writes);
                    }
                }
                Err(e) => reply.error(errno("open", ino.0, &e)),
            }
        });
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Release, ino, |_| {
            let writes = backings::was_for_writing(fh.0);
            self.union.release(NodeId(ino.0), writes);
            reply.ok();
        });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.guard_sized(req, Op::Read, ino, size as usize, |_| {
            self.buffers.with(size as usize, |buf| {
                match self.union.read(NodeId(ino.0), offset, buf) {
                    Ok(n) => reply.data(&buf[..n]),
                    Err(e) => reply.error(errno("read", ino.0, &e)),
                }
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.guard_sized(req, Op::Write, ino, data.len(), |_| {
            let node = NodeId(ino.0);
            let result = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                self.union
                    .write_back(node, offset, data)
                    .map(|()| data.len())
            } else {
                let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
                let killed = Caller {
                    drops_suid: true,
                    ..caller(req, 0)
                };
                let who = if kill { killed } else { Caller::ROOT };
                self.union.write(&who, node, offset, data)
            };
            match result {
                Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) => reply.error(errno("write", ino.0, &e)),
            }
        });
    }

    /// ENOSYS once: nothing is held back that a close could flush.
    fn flush(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Flush, ino, |_| reply.error(Errno::ENOSYS));
    }

    fn fsync(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Fsync, ino, |_| {
            empty(
                "fsync",
                ino,
                reply,
                self.union.fsync(NodeId(ino.0), datasync),
            );
        });
    }

    /// ENOSYS once: from then on the kernel opens directories by itself and caches listings.
    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.guard(req, Op::Opendir, ino, |_| reply.error(Errno::ENOSYS));
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.guard(req, Op::Readdir, ino, |_| {
            let listed = self.union.readdir(NodeId(ino.0), cookie(offset), |e| {
                let name = OsStr::from_bytes(e.name);
                if reply.add(INodeNo(e.ino), e.next.0, convert::file_type(e.kind), name) {
                    Flow::Break(())
                } else {
                    Flow::Continue(())
                }
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno("readdir", ino.0, &e)),
            }
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.guard(req, Op::Readdirplus, ino, |ticket| {
            match self.list_plus(ino, offset, listing_room(&reply)) {
                Ok((bytes, sent)) => {
                    let nodes = || sent.iter().map(|entry| entry.node.id);
                    nodes().for_each(|node| ticket.count(node));
                    if self.raw.listing(req.unique().0, reply, &bytes) {
                        sent.into_iter().for_each(|entry| entry.node.leak());
                    } else {
                        ticket.uncount(nodes());
                    }
                }
                Err(e) => reply.error(errno("readdirplus", ino.0, &e)),
            }
        });
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Fsyncdir, ino, |_| {
            empty(
                "fsyncdir",
                ino,
                reply,
                self.union.fsync(NodeId(ino.0), datasync),
            );
        });
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.guard(req, Op::Statfs, ino, |_| match self.union.statfs() {
            Ok(s) => reply.statfs(
                s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize,
            ),
            Err(e) => reply.error(errno("statfs", ino.0, &e)),
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Setxattr, ino, |_| {
            let flags = SetFlags::from_bits_retain(flags);
            let result = self.union.setxattr(
                &caller(req, 0),
                NodeId(ino.0),
                name.as_bytes(),
                value,
                flags,
            );
            empty("setxattr", ino, reply, result);
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.guard(req, Op::Getxattr, ino, |_| {
            let result = self.union.getxattr(NodeId(ino.0), name.as_bytes());
            xattr("getxattr", ino, size, reply, result);
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.guard(req, Op::Listxattr, ino, |_| {
            xattr(
                "listxattr",
                ino,
                size,
                reply,
                self.union.listxattr(&caller(req, 0), NodeId(ino.0)),
            );
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guard(req, Op::Removexattr, ino, |_| {
            let result = self
                .union
                .removexattr(&caller(req, 0), NodeId(ino.0), name.as_bytes());
            empty("removexattr", ino, reply, result);
        });
    }

    /// Without passthrough ENOSYS once: the kernel sends MKNOD alone, which is all a file without
    /// handles needs.
    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.guard(req, Op::Create, parent, |ticket| {
            if !self.union.passes_through() {
                return reply.error(Errno::ENOSYS);
            }
            let make = Make::Node(mode, (0, 0));
            let (who, how) = (caller(req, umask), backings::how(flags));
            let name = name.as_bytes();
            let made = self.union.make(&who, NodeId(parent.0), name, make);
            let opened = made.and_then(|entry| {
                let way = self.union.open_made(&entry, how)?;
                Ok((entry, OpenOut::new(how, way)))
            });
            match opened {
                Ok((entry, out)) => {
                    let (node, sent) = (entry.node.id, self.sent(&entry));
                    let unique = req.unique().0;
                    if !self.raw.created(unique, reply, entry, sent, out, ticket) {
                        self.union.release(node, how.writes);
                    }
                }
                Err(e) => reply.error(errno("create", parent.0, &e)),
            }
        });
    }

    fn bmap(&self, req: &Request, ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        self.guard(req, Op::Bmap, ino, |_| reply.error(Errno::ENOSYS));
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.guard(req, Op::Ioctl, ino, |_| {
            let Some(op) = FileIoctl::from_request(cmd) else {
                return reply.error(Errno::ENOTTY);
            };
            let (union, data) = (Arc::clone(&self.union), in_data.to_vec());
            let answer = move || match union.ioctl(NodeId(ino.0), op, &data) {
                Ok(data) => {
                    let len = (out_size as usize).min(data.len());
                    reply.ioctl(0, &data[..len]);
                }
                Err(e) => reply.error(errno("ioctl", ino.0, &e)),
            };
            if !op.writes() {
                return answer();
            }
            // What was written before the file is made immutable is stored before.
            let union = Arc::clone(&self.union);
            elsewhere("ioctl", move || {
                union.store_pages(NodeId(ino.0));
                answer();
            });
        });
    }

    /// ENOSYS once: regular files are always ready.
    fn poll(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _ph: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: ReplyPoll,
    ) {
        self.guard(req, Op::Poll, ino, |_| reply.error(Errno::ENOSYS));
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.guard(req, Op::Fallocate, ino, |_| {
            let result =
                self.union
                    .fallocate(&caller(req, 0), NodeId(ino.0), mode, (offset, length));
            empty("fallocate", ino, reply, result);
        });
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.guard(req, Op::Lseek, ino, |_| {
            match self.union.seek_now(NodeId(ino.0), offset, whence) {
                Ok(Found::At(at)) => reply.offset(at),
                Ok(Found::Unsure) => self.seek_elsewhere(ino, offset, whence, reply),
                Err(e) => reply.error(errno("lseek", ino.0, &e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.guard(req, Op::CopyFileRange, ino_in, |_| {
            // The reply holds 32 bits; a caller goes on where a short copy ended.
            let len = usize::try_from(len.min(1 << 30)).unwrap_or(1 << 30);
            let (from, to) = (
                (NodeId(ino_in.0), offset_in),
                (NodeId(ino_out.0), offset_out),
            );
            match self.union.copy_range(&caller(req, 0), from, to, len) {
                Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) => reply.error(errno("copy_file_range", ino_out.0, &e)),
            }
        });
    }
}
