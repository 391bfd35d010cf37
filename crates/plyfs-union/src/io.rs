//! Reading and writing data, without open handles: each request names the inode alone.
use std::sync::Arc;

use plyfs_layer::LayerIdx;
use plyfs_sys::open::Access;
use plyfs_sys::stat::{Kind, StatFs};
use plyfs_sys::xattr::{self, SetFlags};
use plyfs_sys::{At, io, open, stat};

use crate::copy_up::{CAPABILITY, DataNeed};
use crate::files::OpenFile;
use crate::inode::{Inode, NodeId};
use crate::{Caller, Error, Result, Union};
use std::os::fd::AsFd;

impl Union {
    /// The open file from which data is read.
    fn read_file(&self, inode: &Arc<Inode>) -> Result<Arc<OpenFile>> {
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
            let fd = self.reach.open_file(data, Access::READ | Access::NOATIME)?;
            return Ok(self.files.add(inode.id, fd, data.layer(), false));
        }
        // An upper file that is read is often written too: one descriptor serves both.
        match self.reach.open_file(data, Access::READ | Access::WRITE) {
            Ok(fd) => Ok(self.files.add(inode.id, fd, data.layer(), true)),
            Err(_) => {
                let fd = self.reach.open_file(data, Access::READ)?;
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
        Ok(io::pwrite(file.fd(), data, off)?)
    }

    /// Writes pages that were changed through a mapping. The kernel cleared what such a change
    /// clears when it was made; a store through a mapping clears no capabilities, so those the
    /// layer's file system takes away are put back.
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn write_back(&self, node: NodeId, off: u64, data: &[u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        self.may_touch(&inode)?;
        self.copy_up(&inode, DataNeed::All)?;
        let file = self.write_file(&inode)?;
        let fd = file.fd();
        if self.is_append_only(&inode)? && !is_same(fd, off, data)? {
            return Err(Error::Protected);
        }
        let capability = xattr::get(At::object(&fd), CAPABILITY)?;
        let written = io::pwrite(fd, data, off)?;
        if let Some(value) = capability {
            xattr::set(At::object(&fd), CAPABILITY, &value, SetFlags::empty())?;
        }
        Ok(written)
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
                let file = self.write_file(&inode)?;
                Ok(io::fsync(file.fd(), data_only)?)
            }
            Kind::Dir => {
                let obj = inode.upper().ok_or(Error::Stale)?;
                let dir = open::open_dir_for_list(self.reach.dir_fd(obj)?.as_fd())?;
                Ok(io::fsync(dir.as_fd(), data_only)?)
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
        Ok(io::fallocate(file.fd(), mode, range.0, range.1)?)
    }

    /// `lseek(2)` for SEEK_DATA and SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO, EINVAL and the like.
    pub fn seek(&self, node: NodeId, off: i64, whence: i32) -> Result<i64> {
        let inode = self.inode(node)?;
        let file = self.read_file(&inode)?;
        Ok(io::lseek(file.fd(), off, whence)?)
    }

    /// Copies a range between two files, the target copied up first; answers the bytes copied.
    ///
    /// # Errors
    /// EXDEV, EINVAL, ENOSPC and the like.
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
        let input = self.read_file(&src)?;
        Ok(io::copy_range(input.fd(), from.1, output.fd(), to.1, len)?)
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
fn is_same(fd: std::os::fd::BorrowedFd<'_>, off: u64, data: &[u8]) -> Result<bool> {
    let mut there = vec![0; data.len()];
    let n = io::pread(fd, &mut there, off)?;
    Ok(there[..n] == data[..n])
}
