//! The marks that overlayfs keeps in extended attributes of an object.
//!
//! One `listxattr` tells that an object has no marks, which is the common case; only marks that
//! are there are read.
use plyfs_format::names::{FUSE_OVERLAYFS_OPAQUE, OPAQUE_MARKS, XattrNamespace};
use plyfs_format::opaque::{self, Opaque};
use plyfs_format::origin::{self, Origin};
use plyfs_format::redirect::{self, Redirect};
use plyfs_sys::{At, Errno, Result, SysError, xattr};

/// Marks of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirMarks {
    /// Whether deeper layers are hidden, or whiteouts in xattr form may be inside.
    pub opaque: Opaque,
    /// Where deeper layers have this directory.
    pub redirect: Option<Redirect>,
    /// The directory holds objects that were copied up, renamed or linked into it.
    pub impure: bool,
}

/// Marks of a regular file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileMarks {
    /// The file holds attributes only; its data is in a deeper layer.
    pub metacopy: bool,
    /// Where deeper layers have this file.
    pub redirect: Option<Redirect>,
    /// The lower object this one was copied up from.
    pub origin: Option<Origin>,
}

fn value(at: At<'_>, names: &[Vec<u8>], name: &str) -> Result<Option<Vec<u8>>> {
    if names.iter().any(|n| n == name.as_bytes()) {
        return xattr::get(at, name.as_bytes());
    }
    Ok(None)
}

/// Whether an xattr with this name can be a mark at all.
fn may_be_mark(name: &[u8], ns: XattrNamespace) -> bool {
    name.starts_with(ns.prefix().as_bytes())
        || name == FUSE_OVERLAYFS_OPAQUE.as_bytes()
        || OPAQUE_MARKS.iter().any(|m| name == m.as_bytes())
}

fn mark_names(at: At<'_>, ns: XattrNamespace) -> Result<Vec<Vec<u8>>> {
    let mut names = xattr::list(at)?;
    names.retain(|n| may_be_mark(n, ns));
    Ok(names)
}

/// Reads the marks of a directory, opaque marks of other overlays included.
///
/// # Errors
/// EIO for a malformed redirect, as `ovl_get_redirect_xattr()` answers; EACCES and the like.
pub fn dir_marks(at: At<'_>, ns: XattrNamespace) -> Result<DirMarks> {
    let names = mark_names(at, ns)?;
    let mut marks = DirMarks::default();
    if names.is_empty() {
        return Ok(marks);
    }
    for name in OPAQUE_MARKS {
        if marks.opaque == Opaque::No
            && let Some(v) = value(at, &names, name)?
        {
            marks.opaque = opaque::parse(&v);
        }
    }
    if marks.opaque != Opaque::Opaque {
        marks.redirect = read_redirect(at, &names, ns)?;
    }
    marks.impure = value(at, &names, ns.impure())?.is_some_and(|v| v == b"y");
    Ok(marks)
}

fn read_redirect(at: At<'_>, names: &[Vec<u8>], ns: XattrNamespace) -> Result<Option<Redirect>> {
    let Some(v) = value(at, names, ns.redirect())? else {
        return Ok(None);
    };
    match redirect::parse(&v) {
        Ok(r) => Ok(Some(r)),
        Err(e) => {
            tracing::warn!("redirect xattr: {e}");
            Err(SysError::new("read redirect xattr", Errno::EIO))
        }
    }
}

/// Reads the marks of an object that is not a directory.
///
/// # Errors
/// EIO for malformed marks that decide where data is; EACCES and the like.
pub fn file_marks(at: At<'_>, ns: XattrNamespace) -> Result<FileMarks> {
    let names = mark_names(at, ns)?;
    let mut marks = FileMarks::default();
    if names.is_empty() {
        return Ok(marks);
    }
    marks.metacopy = names.iter().any(|n| n == ns.metacopy().as_bytes());
    if marks.metacopy {
        marks.redirect = read_redirect(at, &names, ns)?;
    }
    if let Some(v) = value(at, &names, ns.origin())? {
        // A wrong origin costs only the inode number (`ovl_get_fh()` ignores it too).
        marks.origin = origin::parse(&v).unwrap_or_default();
    }
    Ok(marks)
}

#[cfg(test)]
mod tests;
