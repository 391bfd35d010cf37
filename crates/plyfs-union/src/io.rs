//! Reading and writing data, without open handles: each request names the inode alone.
use std::sync::Arc;

use plyfs_layer::LayerIdx;
use plyfs_sys::attr as sys_attr;
use plyfs_sys::open::Access;
use plyfs_sys::stat::{Kind, StatFs};
use plyfs_sys::xattr::{self, SetFlags};
use plyfs_sys::{At, Errno, SysError, io, open, stat};

use crate::copy_up::{CAPABILITY, DataNeed};
use crate::files::OpenFile;
use crate::inode::{Inode, NodeId};
use crate::kept_times::Change;
use crate::sabotage::sabotaged;
use crate::{Caller, Error, Result, Union};
use std::os::fd::{AsFd, BorrowedFd};

impl Union {
    /// The open file from which data is read.
    pub(crate) fn read_file(&self, inode: &Arc<Inode>) -> Result<Arc<OpenFile>> {
        if inode.kind != Kind::File {
            return Err(Error::Invalid("only regular files have data"));
        }
        let data = inode.data().ok_or(Error::Stale)?;
        if let Some(file) = self.files.get(inode.id)
            && file.serves(data.layer(), false)
        {
            return Ok(file);
        }
        if data.layer() != LayerIdx::UPPER {
            let fd = self
                .reach
                .open_file(&data, Access::READ | Access::NOATIME)?;
            return Ok(self.files.add(inode.id, fd, data.layer(), false));
        }
        // An upper file that is read is often written too: one descriptor serves both.
        match self.reach.open_file(&data, Access::READ | Access::WRITE) {
            Ok(fd) => Ok(self.files.add(inode.id, fd, data.layer(), true)),
            Err(_) => {
                let fd = self.reach.open_file(&data, Access::READ)?;
                Ok(self.files.add(inode.id, fd, data.layer(), false))
            }
        }
    }

    /// The open upper file to which data is written; the inode has been copied up.
    pub(crate) fn write_file(&self, inode: &Arc<Inode>) -> Result<Arc<OpenFile>> {
        if inode.kind != Kind::File {
            return Err(Error::Invalid("only regular files have data"));
        }
        if let Some(file) = self.files.get(inode.id)
            && file.serves(LayerIdx::UPPER, true)
        {
            return Ok(file);
        }
        let obj = inode.upper().ok_or(Error::ReadOnly)?;
        let fd = self.reach.open_file(obj, Access::READ | Access::WRITE)?;
        Ok(self.files.add(inode.id, fd, LayerIdx::UPPER, true))
    }

    /// Reads at `off` into `buf`; answers the bytes read, fewer only at the end of the file.
    ///
    /// # Errors
    /// ESTALE, EINVAL for anything but a regular file, EIO and the like.
    pub fn read(&self, node: NodeId, off: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        let file = self.read_file(&inode)?;
        Ok(io::pread(file.fd(), buf, off)?)
    }

    /// Writes `data` at `off`, copying up first; answers the bytes written. The kernel says by
    /// whom suid and sgid may be kept: pass [`Caller::ROOT`] where it does not ask to clear them.
    ///
    /// # Errors
    /// EROFS, ENOSPC, EDQUOT, EFBIG, EIO and the like.
    pub fn write(&self, caller: &Caller, node: NodeId, off: u64, data: &[u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        self.may_write(&inode, off)?;
        self.copy_up(&inode, DataNeed::All)?;
        self.drop_suid_for(caller, &inode)?;
        let file = self.write_file(&inode)?;
        let _change = self.change(&inode, &file)?;
        Ok(io::pwrite(file.fd(), data, off)?)
    }

    /// Stores pages that the kernel had cached, all of them or none as far as the caller can tell.
    /// The kernel cleared what a change clears when it was made, so suid, sgid and capabilities
    /// that the layer's file system takes away now are put back.
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn write_back(&self, node: NodeId, off: u64, data: &[u8]) -> Result<()> {
        let inode = self.inode(node)?;
        self.may_touch(&inode)?;
        self.copy_up(&inode, DataNeed::All)?;
        let data = if sabotaged("lost-page") && off > 0 {
            &[]
        } else {
            data
        };
        let file = self.write_file(&inode)?;
        let _nothing_is_set = self.times.privileges(inode.id).read();
        let _change = self.change(&inode, &file)?;
        let fd = file.fd();
        if self.is_append_only(&inode)? && !is_same(fd, off, data)? {
            return Err(Error::Protected);
        }
        if file.is_plain() {
            return write_all(fd, data, off);
        }
        let found = stat::stat_fd(fd)?;
        let capability = xattr::get(At::object(&fd), CAPABILITY)?;
        file.set_plain(capability.is_none() && found.perm() & SUID_SGID == 0);
        let written = write_all(fd, data, off);
        if let Some(value) = capability {
            xattr::set(At::object(&fd), CAPABILITY, &value, SetFlags::empty())?;
        }
        if found.perm() & SUID_SGID != 0 && stat::stat_fd(fd)?.perm() != found.perm() {
            sys_attr::chmod(At::object(&fd), found.perm())?;
        }
        written
    }

    /// To be called before data on disk changes, for as long as it does.
    pub(crate) fn change(&self, inode: &Inode, file: &OpenFile) -> Result<Option<Change<'_>>> {
        let found = || Ok(stat::stat_fd(file.fd())?.mtime);
        self.times.change(inode.id, found)
    }

    /// Makes a file or directory durable; a lower object always is.
    ///
    /// # Errors
    /// EIO, ENOSPC and the like.
    pub fn fsync(&self, node: NodeId, data_only: bool) -> Result<()> {
        let inode = self.inode(node)?;
        if inode.upper().is_none() || self.options.volatile {
            return Ok(());
        }
        match inode.kind {
            Kind::File => {
                self.settle_time(node);
                let file = self.write_file(&inode)?;
                let pending = inode.durable.pending();
                let data_only = data_only && (pending.is_none() || sabotaged("name-not-synced"));
                io::fsync(file.fd(), data_only)?;
                if let Some(pending) = pending.filter(|_| !data_only) {
                    inode.durable.stored(pending);
                }
                Ok(())
            }
            Kind::Dir => {
                let obj = inode.upper().ok_or(Error::Stale)?;
                let dir = open::open_dir_for_list(self.reach.dir_fd(obj)?.as_fd())?;
                Ok(io::fsync(dir.as_fd(), false)?)
            }
            _ => Ok(()),
        }
    }

    /// `fallocate(2)` on a file, copying up first; `range` is offset and length.
    ///
    /// # Errors
    /// EOPNOTSUPP, ENOSPC, EINVAL and the like.
    pub fn fallocate(
        &self,
        caller: &Caller,
        node: NodeId,
        mode: i32,
        range: (u64, u64),
    ) -> Result<()> {
        let inode = self.inode(node)?;
        // Room behind the end is all that an append-only file can be given (`vfs_fallocate()`).
        if mode & !FALLOC_FL_KEEP_SIZE == 0 {
            self.may_touch(&inode)?;
        } else {
            self.may_change(&inode)?;
        }
        self.copy_up(&inode, DataNeed::All)?;
        self.drop_suid_for(caller, &inode)?;
        let file = self.write_file(&inode)?;
        let _change = self.change(&inode, &file)?;
        Ok(io::fallocate(file.fd(), mode, range.0, range.1)?)
    }

    /// Copies a range between two files, the target copied up first; answers the bytes copied.
    ///
    /// # Errors
    /// EXDEV, EINVAL, ENOSPC and the like. EXDEV makes the kernel copy by reading and writing,
    /// which is also what is needed where the source ends on disk before it does for programs.
    pub fn copy_range(
        &self,
        caller: &Caller,
        from: (NodeId, u64),
        to: (NodeId, u64),
        len: usize,
    ) -> Result<usize> {
        let (src, dst) = (self.inode(from.0)?, self.inode(to.0)?);
        self.may_change(&dst)?;
        self.copy_up(&dst, DataNeed::All)?;
        self.drop_suid_for(caller, &dst)?;
        let output = self.write_file(&dst)?;
        let input = self.file_seen_by(from.0, &src)?;
        let _change = self.change(&dst, &output)?;
        match io::copy_range(input.fd(), from.1, output.fd(), to.1, len)? {
            0 if len > 0 && self.times.is_on() => {
                Err(SysError::new("copy_file_range", Errno::EXDEV).into())
            }
            n => Ok(n),
        }
    }

    /// Figures of the file system that takes the changes, or of the topmost lower.
    ///
    /// # Errors
    /// EIO and the like.
    pub fn statfs(&self) -> Result<StatFs> {
        let root = match &self.stack.upper {
            Some(upper) => Some(&upper.root),
            None => self.stack.lowers.first(),
        };
        let fd = self.reach.dir_fd(root.ok_or(Error::Stale)?)?;
        Ok(stat::statfs(fd.as_fd())?)
    }
}

/// `fallocate(2)`: the size stays.
const FALLOC_FL_KEEP_SIZE: i32 = 1;

/// Whether what `data` has before the end of a file is what the file has there. Pages that come
/// back hold whole blocks, so those that were appended to begin with bytes that were there.
fn is_same(fd: BorrowedFd<'_>, off: u64, data: &[u8]) -> Result<bool> {
    let mut there = vec![0; data.len()];
    let n = io::pread(fd, &mut there, off)?;
    Ok(there[..n] == data[..n])
}

/// Suid and sgid of a mode.
pub(crate) const SUID_SGID: u32 = 0o6000;

/// Writes all of `data`: nobody asks again for the rest of a page that was only half stored.
fn write_all(fd: BorrowedFd<'_>, data: &[u8], off: u64) -> Result<()> {
    let mut done = 0;
    while done < data.len() {
        match io::pwrite(fd, &data[done..], off + done as u64)? {
            0 => return Err(SysError::new("pwrite", Errno::EIO).into()),
            n => done += n,
        }
    }
    Ok(())
}
