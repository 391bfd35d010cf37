//! The writable layer: its root, its workdir and what its file system can do.
use std::os::fd::{AsFd, BorrowedFd};

use plyfs_format::names::XattrNamespace;
use plyfs_sys::make::{self, Rename};
use plyfs_sys::{At, Errno, Name, Result, SysError, open, xattr};

use crate::workdir::Workdir;

/// What the file system of the upper can do, found out once by doing it in the workdir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// The overlay's xattrs can be stored, and where.
    pub xattr: Option<XattrNamespace>,
    /// `mknod` of a character device 0:0 works.
    pub whiteout: bool,
    /// `renameat2` knows RENAME_EXCHANGE.
    pub exchange: bool,
    /// `renameat2` knows RENAME_WHITEOUT.
    pub rename_whiteout: bool,
}

/// How the upper says that a name is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletions {
    /// As kernel overlayfs does: character devices 0:0, and opaque marks on directories.
    Devices,
    /// By names, see [`crate::hide`].
    Names,
}

impl Caps {
    /// The kernel's form where all that it takes is there.
    #[must_use]
    pub fn deletions(&self) -> Deletions {
        if self.whiteout && self.exchange && self.xattr.is_some() {
            Deletions::Devices
        } else {
            Deletions::Names
        }
    }
}

/// The writable layer.
#[derive(Debug)]
pub struct Upper {
    /// Where changes are prepared.
    pub work: Workdir,
    /// What the file system can do.
    pub caps: Caps,
}

impl Upper {
    /// Opens the workdir and finds out what the file system can do. `wanted` fixes the xattr
    /// namespace; otherwise `trusted.` is tried first.
    ///
    /// # Errors
    /// EROFS, EACCES, ENOSPC and the like on the workdir.
    pub fn open(work_root: BorrowedFd<'_>, wanted: Option<XattrNamespace>) -> Result<Self> {
        let work = Workdir::open(work_root)?;
        let caps = probe_caps(&work, wanted)?;
        Ok(Self { work, caps })
    }

    /// Opens the workdir of a daemon that died while the upper was mounted, which has found out
    /// what the file system can do: with a full disk it could not be tried again.
    ///
    /// # Errors
    /// EIO and the like on the workdir.
    pub fn take_over(work_root: BorrowedFd<'_>, caps: Caps) -> Result<Self> {
        let work = Workdir::take_over(work_root)?;
        Ok(Self { work, caps })
    }
}

fn probe_caps(work: &Workdir, wanted: Option<XattrNamespace>) -> Result<Caps> {
    let dir = work.stage_dir()?;
    let tries = match wanted {
        Some(ns) => vec![ns],
        None => vec![XattrNamespace::Trusted, XattrNamespace::User],
    };
    let mut usable = None;
    for ns in tries {
        let set = xattr::set(
            dir.at(),
            ns.opaque().as_bytes(),
            b"y",
            xattr::SetFlags::empty(),
        );
        match set {
            Ok(()) => {
                usable = Some(ns);
                break;
            }
            Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EOPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    let whiteout = match work.stage_whiteout() {
        Ok(_removed_on_drop) => true,
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EOPNOTSUPP | Errno::EINVAL) => false,
        Err(e) => return Err(e),
    };
    need_noreplace(work)?;
    Ok(Caps {
        xattr: usable,
        whiteout,
        exchange: try_rename(work, Rename::EXCHANGE)?,
        rename_whiteout: whiteout && try_rename(work, Rename::WHITEOUT)?,
    })
}

/// Tries a rename flag on two names of the workdir that nothing else uses; the inner result is the
/// rename's own.
fn rename_by(work: &Workdir, flag: Rename) -> Result<Result<()>> {
    let (a, b) = (Name::new(b"probe-a")?, Name::new(b"probe-b")?);
    for name in [a, b] {
        crate::clean::remove_tree(work.fd(), name)?;
        drop(open::create_file(work.fd(), name, 0o600)?);
    }
    let done = make::rename(work.fd(), a, work.fd(), b, flag);
    for name in [a, b] {
        crate::clean::remove_tree(work.fd(), name)?;
    }
    Ok(done)
}

fn try_rename(work: &Workdir, flag: Rename) -> Result<bool> {
    match rename_by(work, flag)? {
        Ok(()) => Ok(true),
        Err(e) if make::is_unsupported(e.errno()) || e.errno() == Errno::EPERM => Ok(false),
        Err(e) => Err(e),
    }
}

/// What is staged takes its name only where nobody else has taken it meanwhile; an upper that
/// cannot promise this is none.
fn need_noreplace(work: &Workdir) -> Result<()> {
    match rename_by(work, Rename::NOREPLACE)? {
        Err(e) if e.errno() == Errno::EEXIST => Ok(()),
        Err(e) if !make::is_unsupported(e.errno()) => Err(e),
        Ok(()) | Err(_) => Err(SysError::new(
            "the file system of an upper must know RENAME_NOREPLACE",
            Errno::EINVAL,
        )),
    }
}

/// Sets one of the overlay's own marks on a target.
///
/// # Errors
/// ENOSPC, EPERM, EOPNOTSUPP and the like.
pub fn set_mark(at: At<'_>, name: &str, value: &[u8]) -> Result<()> {
    xattr::set(at, name.as_bytes(), value, xattr::SetFlags::empty())
}

impl AsFd for Workdir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[cfg(test)]
mod tests;
