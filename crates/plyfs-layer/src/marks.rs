//! The marks that overlayfs keeps in extended attributes of an object.
use plyfs_format::names::XattrNamespace;
use plyfs_format::opaque::{self, Opaque};
use plyfs_format::redirect::{self, Redirect};
use plyfs_sys::{At, Errno, Result, SysError, xattr};

/// Marks of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirMarks {
    /// Whether deeper layers are hidden, or whiteouts in xattr form may be inside.
    pub opaque: Opaque,
    /// Where deeper layers have this directory.
    pub redirect: Option<Redirect>,
}

/// Marks of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMarks {
    /// The file holds attributes only; its data is in a deeper layer.
    pub metacopy: bool,
    /// Where deeper layers have this file.
    pub redirect: Option<Redirect>,
}

fn foreign_opaque(at: At<'_>) -> Result<bool> {
    for name in plyfs_format::names::FOREIGN_OPAQUE {
        if let Some(value) = xattr::get(at, name.as_bytes())? {
            if opaque::parse(&value) == Opaque::Opaque {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Reads the marks of a directory. `foreign` also honours the opaque marks other overlays write.
///
/// # Errors
/// EIO for a malformed redirect, as `ovl_get_redirect_xattr()` answers; EACCES and the like.
pub fn dir_marks(at: At<'_>, ns: XattrNamespace, foreign: bool) -> Result<DirMarks> {
    let mut mark = match xattr::get(at, ns.opaque().as_bytes())? {
        Some(value) => opaque::parse(&value),
        None => Opaque::No,
    };
    if mark == Opaque::No && foreign && foreign_opaque(at)? {
        mark = Opaque::Opaque;
    }
    if mark == Opaque::Opaque {
        return Ok(DirMarks {
            opaque: mark,
            redirect: None,
        });
    }
    Ok(DirMarks {
        opaque: mark,
        redirect: read_redirect(at, ns)?,
    })
}

fn read_redirect(at: At<'_>, ns: XattrNamespace) -> Result<Option<Redirect>> {
    match xattr::get(at, ns.redirect().as_bytes())? {
        None => Ok(None),
        Some(value) => match redirect::parse(&value) {
            Ok(r) => Ok(Some(r)),
            Err(_) => Err(SysError::new("malformed redirect xattr", Errno::EIO)),
        },
    }
}

/// Reads the marks of a regular file.
///
/// # Errors
/// EIO for malformed marks; EACCES and the like.
pub fn file_marks(at: At<'_>, ns: XattrNamespace) -> Result<FileMarks> {
    if xattr::get(at, ns.metacopy().as_bytes())?.is_none() {
        return Ok(FileMarks {
            metacopy: false,
            redirect: None,
        });
    }
    Ok(FileMarks {
        metacopy: true,
        redirect: read_redirect(at, ns)?,
    })
}
