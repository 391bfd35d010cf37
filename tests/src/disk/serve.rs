//! The FUSE file system that is the disk: one file, whose reads, writes and flushes come here.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use super::image::{Image, block_of};

/// The file's name.
pub(super) const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// What a disk was told.
#[derive(Debug, Clone)]
pub enum Event {
    /// To write these bytes there.
    Write(u64, Arc<[u8]>),
    /// To make all writes before this durable.
    Flush,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) image: Image,
    pub(super) events: Vec<Event>,
    pub(super) recording: bool,
    /// Blocks that cannot be read.
    pub(super) bad: BTreeSet<u64>,
    /// Nothing can be read or written at all.
    pub(super) gone: bool,
    /// Requests wait until this is over.
    pub(super) stuck: bool,
    /// Requests that wait now.
    pub(super) waiting: usize,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(image: Image) -> Self {
        let state = State {
            image,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// The state, as soon as the disk is not stuck.
    fn served(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.waiting += 1;
        let wait = self.changed.wait_while(state, |s| s.stuck);
        state = wait.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }
}

#[derive(Debug)]
pub(super) struct Server(pub(super) Arc<Shared>);

impl Server {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, size) = match ino == FILE {
            true => (FileType::RegularFile, self.0.lock().image.size()),
            false => (FileType::Directory, 0),
        };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Server {
    fn init(&mut self, _req: &Request, _config: &mut KernelConfig) -> io::Result<()> {
        Ok(())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&TTL, &self.attr(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No cache lies between the loop device and what is recorded.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.0.served();
        let last = block_of(offset + u64::from(size).saturating_sub(1));
        let bad = state.bad.range(block_of(offset)..=last).next().is_some();
        if state.gone || bad {
            drop(state);
            return reply.error(Errno::EIO);
        }
        let data = state.image.read(offset, size as usize);
        drop(state);
        reply.data(&data);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.served();
        if state.gone {
            drop(state);
            return reply.error(Errno::EIO);
        }
        state.image.write(offset, data);
        if state.recording {
            state.events.push(Event::Write(offset, data.into()));
        }
        drop(state);
        reply.written(data.len() as u32);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.served();
        if state.recording {
            state.events.push(Event::Flush);
        }
        drop(state);
        reply.ok();
    }
}
