//! Where changes of the upper are prepared: staged, then published by one atomic step.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use plyfs_sys::make::{self, Rename};
use plyfs_sys::{At, Errno, Name, NameBuf, Result, attr, open, stat};

use crate::clean;

/// The directory `work` inside the workdir an operator gave, as kernel overlayfs lays it out.
#[derive(Debug)]
pub struct Workdir {
    fd: OwnedFd,
    next: AtomicU64,
    /// The whiteout that others are links of, by its name here.
    whiteout: Mutex<Option<NameBuf>>,
    /// Cleared at the first EOPNOTSUPP: the file system has no O_TMPFILE.
    tmpfile: std::sync::atomic::AtomicBool,
}

fn work_name() -> Result<NameBuf> {
    Ok(Name::new(b"work")?.to_owned())
}

impl Workdir {
    /// Opens (or makes) `work` beneath `root` and removes what a crash left there.
    ///
    /// # Errors
    /// EROFS, EACCES, ENOSPC and the like.
    pub fn open(root: BorrowedFd<'_>) -> Result<Self> {
        let name = work_name()?;
        match make::mkdir(root, &name, 0o700) {
            Err(e) if e.errno() == Errno::EEXIST => {}
            other => other?,
        }
        let fd = open::open_dir(root, &name)?;
        // The kernel makes this directory with mode 0; a user who is not root needs access.
        if stat::stat_fd(fd.as_fd())?.perm() & 0o700 != 0o700 {
            attr::chmod(At::object(&fd), 0o700)?;
        }
        for litter in clean::names(fd.as_fd())? {
            clean::remove_tree(fd.as_fd(), &litter)?;
        }
        Ok(Self::of(fd))
    }

    /// Opens `work` beneath `root` in place of a daemon that died, and removes what it had staged;
    /// the mark of a `volatile` mount stays. What cannot be removed does no harm.
    ///
    /// # Errors
    /// EIO, ENOENT and the like.
    pub fn take_over(root: BorrowedFd<'_>) -> Result<Self> {
        let fd = open::open_dir(root, &work_name()?)?;
        for litter in clean::names(fd.as_fd())? {
            if litter.as_bytes() == VOLATILE[0] {
                continue;
            }
            if let Err(e) = clean::remove_tree(fd.as_fd(), &litter) {
                tracing::warn!("removing what a dead daemon has staged: {e}");
            }
        }
        let work = Self::of(fd);
        // Names of what could not be removed are not used again.
        let pid = u64::from(std::process::id());
        work.next.store(pid << 32, Ordering::Relaxed);
        Ok(work)
    }

    fn of(fd: OwnedFd) -> Self {
        Self {
            fd,
            next: AtomicU64::new(0),
            whiteout: Mutex::new(None),
            tmpfile: std::sync::atomic::AtomicBool::new(true),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn temp_name(&self) -> Result<NameBuf> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Name::new(format!("#{n:x}").as_bytes())?.to_owned())
    }

    fn named(&self, make: impl FnOnce(BorrowedFd<'_>, &Name) -> Result<()>) -> Result<Staged<'_>> {
        let name = self.temp_name()?;
        make(self.fd.as_fd(), &name)?;
        Ok(Staged {
            work: self,
            name: Some(name),
            fd: None,
        })
    }

    /// Stages a regular file, open for reading and writing, with mode 0600.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EMFILE and the like.
    pub fn stage_file(&self) -> Result<Staged<'_>> {
        if self.tmpfile.load(Ordering::Relaxed) {
            match open::open_tmpfile(self.fd.as_fd(), 0o600) {
                Ok(fd) => {
                    return Ok(Staged {
                        work: self,
                        name: None,
                        fd: Some(fd),
                    });
                }
                Err(e) if make::is_unsupported(e.errno()) => {
                    self.tmpfile.store(false, Ordering::Relaxed);
                }
                Err(e) => return Err(e),
            }
        }
        let name = self.temp_name()?;
        let fd = open::create_file(self.fd.as_fd(), &name, 0o600)?;
        Ok(Staged {
            work: self,
            name: Some(name),
            fd: Some(fd),
        })
    }

    /// Stages a directory with mode 0700.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT and the like.
    pub fn stage_dir(&self) -> Result<Staged<'_>> {
        self.named(|dir, name| make::mkdir(dir, name, 0o700))
    }

    /// Stages a symbolic link.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT and the like.
    pub fn stage_symlink(&self, target: &[u8]) -> Result<Staged<'_>> {
        self.named(|dir, name| make::symlink(target, dir, name))
    }

    /// Stages a device, fifo, socket, whiteout or empty regular file.
    ///
    /// # Errors
    /// EPERM, ENOSPC and the like.
    pub fn stage_node(&self, mode: u32, rdev: (u32, u32)) -> Result<Staged<'_>> {
        self.named(|dir, name| make::mknod(dir, name, mode, rdev))
    }

    /// Stages a whiteout.
    ///
    /// # Errors
    /// EPERM where the file system or the user namespace does not allow it; ENOSPC.
    pub fn stage_whiteout(&self) -> Result<Staged<'_>> {
        let name = self.temp_name()?;
        self.make_whiteout(self.fd.as_fd(), &name)?;
        Ok(Staged {
            work: self,
            name: Some(name),
            fd: None,
        })
    }

    /// Makes a whiteout, which has no attributes of its own and so may be made in place. All are
    /// links of one character device 0:0 (`ovl_whiteout()`): a link costs a small part of what a
    /// new inode costs.
    ///
    /// # Errors
    /// EEXIST, ENOSPC; EPERM where the file system or the user namespace does not allow it.
    pub fn make_whiteout(&self, dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
        let known = self.whiteout.lock().clone();
        if let Some(known) = known {
            match make::link(At::entry(self.fd.as_fd(), &known), dir, name) {
                Err(e) if matches!(e.errno(), Errno::EMLINK | Errno::EPERM | Errno::ENOENT) => {}
                other => return other,
            }
        }
        let mode = plyfs_sys::stat::Kind::Char.mode_bits();
        make::mknod(dir, name, mode, (0, 0))?;
        // From now on this one is linked; without links each whiteout is made anew.
        let kept = self.temp_name()?;
        let linked = make::link(At::entry(dir, name), self.fd.as_fd(), &kept);
        let spent = std::mem::replace(&mut *self.whiteout.lock(), linked.is_ok().then_some(kept));
        spent.map_or(Ok(()), |spent| clean::remove_tree(self.fd.as_fd(), &spent))
    }

    /// Removes what the workdir holds for its own use, when nothing is staged any more.
    ///
    /// # Errors
    /// EIO and the like.
    pub fn close(&self) -> Result<()> {
        let spent = self.whiteout.lock().take();
        spent.map_or(Ok(()), |spent| clean::remove_tree(self.fd.as_fd(), &spent))
    }

    /// Stages a further link of an object of the upper.
    ///
    /// # Errors
    /// EMLINK, ENOENT and the like.
    pub fn stage_link(&self, old: At<'_>) -> Result<Staged<'_>> {
        self.named(|dir, name| make::link(old, dir, name))
    }
}

/// Something prepared in the workdir. Dropping it without publishing removes it.
#[derive(Debug)]
#[must_use = "a staged object is removed unless it is published"]
pub struct Staged<'w> {
    work: &'w Workdir,
    name: Option<NameBuf>,
    fd: Option<OwnedFd>,
}

impl Staged<'_> {
    /// The staged object as a target of calls.
    pub fn at(&self) -> At<'_> {
        match (&self.fd, &self.name) {
            (Some(fd), _) => At::object(fd),
            (None, Some(name)) => At::entry(self.work.fd.as_fd(), name),
            (None, None) => At::object(&self.work.fd),
        }
    }

    /// The open file of a staged regular file.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Gives the object the name `name` in `dir`, which nothing has yet.
    ///
    /// # Errors
    /// EEXIST when something has the name; ENOSPC and the like. The staged object is then gone.
    pub fn publish_new(mut self, dir: BorrowedFd<'_>, name: &Name) -> Result<Option<OwnedFd>> {
        match &self.name {
            Some(temp) => {
                make::rename(self.work.fd.as_fd(), temp, dir, name, Rename::NOREPLACE)?;
                self.name = None;
            }
            None => make::link(self.at(), dir, name)?,
        }
        Ok(self.fd.take())
    }

    /// Gives the object the name `name` in `dir` in place of the non-directory that has it.
    ///
    /// # Errors
    /// EISDIR, ENOSPC and the like. The staged object is then gone.
    pub fn publish_over(mut self, dir: BorrowedFd<'_>, name: &Name) -> Result<Option<OwnedFd>> {
        let temp = self.ensure_name()?;
        make::rename(self.work.fd.as_fd(), &temp, dir, name, Rename::empty())?;
        self.name = None;
        Ok(self.fd.take())
    }

    /// Swaps the object with what has the name `name` in `dir`, and removes that with all that is
    /// below it. The swap is the atomic step; a failed removal leaves litter that the next mount
    /// clears, and is logged.
    ///
    /// # Errors
    /// ENOENT, ENOSPC and the like. The staged object is then gone.
    pub fn publish_exchange(self, dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
        self.publish_swap(dir, name).map(drop)
    }

    /// Swaps the object with what has the name `name` in `dir`, which is then the staged one: it
    /// can be put back, or is removed with all that is below it when dropped.
    ///
    /// # Errors
    /// ENOENT, ENOSPC and the like. The staged object is then gone.
    pub fn publish_swap(mut self, dir: BorrowedFd<'_>, name: &Name) -> Result<Self> {
        let temp = self.ensure_name()?;
        make::rename(self.work.fd.as_fd(), &temp, dir, name, Rename::EXCHANGE)?;
        self.fd = None;
        Ok(self)
    }

    /// Keeps a staged object without a name, for one that was removed while open: a file open for
    /// reading and writing, anything else as an O_PATH descriptor.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub fn keep_nameless(mut self) -> Result<OwnedFd> {
        match self.fd.take() {
            Some(fd) => Ok(fd),
            None => open::open_path_at(self.at()),
        }
    }

    fn ensure_name(&mut self) -> Result<NameBuf> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = self.work.temp_name()?;
        make::link(self.at(), self.work.fd.as_fd(), &name)?;
        self.name = Some(name.clone());
        Ok(name)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(e) = clean::remove_tree(self.work.fd.as_fd(), name)
        {
            tracing::warn!("removing a staged object: {e}");
        }
    }
}

impl Workdir {
    /// Moves `name` out of `dir` in one step and removes it with all that is below it. A failed
    /// removal leaves litter that the next mount clears, and is logged.
    ///
    /// # Errors
    /// ENOENT, EBUSY and the like; nothing has moved then.
    pub fn discard(&self, dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
        let temp = self.temp_name()?;
        make::rename(dir, name, self.fd.as_fd(), &temp, Rename::NOREPLACE)?;
        if let Err(e) = clean::remove_tree(self.fd.as_fd(), &temp) {
            tracing::warn!("removing a replaced object from the workdir: {e}");
        }
        Ok(())
    }
}

/// Directories beneath `work` that say the upper was mounted `volatile`, as the kernel names them.
const VOLATILE: [&[u8]; 2] = [b"incompat", b"volatile"];

impl Workdir {
    /// Leaves the mark that makes later mounts refuse the upper until it is known to be whole
    /// (`ovl_create_volatile_dirty()`).
    ///
    /// # Errors
    /// ENOSPC, EACCES and the like.
    pub fn mark_volatile(&self) -> Result<()> {
        let (outer, inner) = (Name::new(VOLATILE[0])?, Name::new(VOLATILE[1])?);
        make::mkdir(self.fd.as_fd(), outer, 0o700)?;
        let fd = open::open_dir(self.fd.as_fd(), outer)?;
        make::mkdir(fd.as_fd(), inner, 0o700)
    }

    /// Makes the file system durable and takes the mark away: the upper was closed in order.
    ///
    /// # Errors
    /// EIO, ENOSPC and the like; the mark stays then.
    pub fn close_volatile(&self) -> Result<()> {
        let list = open::open_dir_for_list(self.fd.as_fd())?;
        plyfs_sys::io::syncfs(list.as_fd())?;
        clean::remove_tree(self.fd.as_fd(), Name::new(VOLATILE[0])?)
    }
}

#[cfg(test)]
mod tests;
