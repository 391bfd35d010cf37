//! What a file system offers besides what [`crate::Caps`] decides: found out by trying.
use std::os::fd::{AsFd, BorrowedFd};

use plyfs_format::acl::Acl;
use plyfs_sys::open::{Access, create_file, open_file, open_tmpfile};
use plyfs_sys::xattr::{self, SetFlags};
use plyfs_sys::{At, Errno, Name, Result, copy, dir, handle, io};

use crate::clean;

/// What was tried in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// `trusted.` xattrs can be set.
    pub trusted: bool,
    /// `user.` xattrs can be set.
    pub user: bool,
    /// `security.` xattrs can be set.
    pub security: bool,
    /// ACLs can be set.
    pub acl: bool,
    /// Files without a name can be made (O_TMPFILE).
    pub tmpfile: bool,
    /// Copies share their extents (FICLONE).
    pub reflink: bool,
    /// Objects have file handles (name_to_handle_at).
    pub handles: bool,
    /// Listings tell the type of what they list.
    pub d_type: bool,
}

impl Abilities {
    /// Tries everything in `work`, a directory that nobody else uses, and leaves nothing there.
    ///
    /// # Errors
    /// EROFS, EACCES, ENOSPC and the like: nothing could be tried.
    pub fn try_in(work: BorrowedFd<'_>) -> Result<Self> {
        let (a, b) = (Name::new(b"try-a")?, Name::new(b"try-b")?);
        let clear = || -> Result<()> {
            clean::remove_tree(work, a)?;
            clean::remove_tree(work, b)
        };
        clear()?;
        let done = Self::with(work, a, b);
        clear()?;
        done
    }

    fn with(work: BorrowedFd<'_>, a: &Name, b: &Name) -> Result<Self> {
        let (src, dst) = (create_file(work, a, 0o600)?, create_file(work, b, 0o600)?);
        io::pwrite(src.as_fd(), &[b'x'; 4096], 0)?;
        let sets = |name: &str, value: &[u8]| {
            works(xattr::set(
                At::object(&src),
                name.as_bytes(),
                value,
                SetFlags::empty(),
            ))
        };
        let acl = Acl::from_mode(0o640).encode();
        let src_again = open_file(At::entry(work, a), Access::READ)?;
        Ok(Self {
            trusted: sets("trusted.overlay.plyfs-try", b"y")?,
            user: sets("user.overlay.plyfs-try", b"y")?,
            security: sets("security.plyfs-try", b"y")?,
            acl: sets("system.posix_acl_access", &acl)?,
            tmpfile: works(open_tmpfile(work, 0o600).map(drop))?,
            reflink: copy::reflink(src_again.as_fd(), dst.as_fd()),
            handles: handle::handle(At::object(&src))?.is_some(),
            d_type: tells_types(work)?,
        })
    }
}

fn works(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EACCES | Errno::EINVAL) => Ok(false),
        Err(e) if plyfs_sys::make::is_unsupported(e.errno()) => Ok(false),
        Err(e) => Err(e),
    }
}

fn tells_types(work: BorrowedFd<'_>) -> Result<bool> {
    let list = plyfs_sys::open::open_dir_for_list(work)?;
    let mut all = true;
    dir::for_each(list.as_fd(), |entry| {
        all &= entry.kind.is_some();
        Ok::<_, plyfs_sys::SysError>(())
    })?;
    Ok(all)
}
