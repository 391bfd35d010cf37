//! Deletions that are told by names: `.wh.NAME` beside NAME, where an upper can have no other form.
//!
//! Such a file says that deeper layers have no say under NAME, and nothing about what its own
//! directory has there. So it is made before a name goes and stays when the name is used again: a
//! crash in between changes nothing that is seen, and a directory made over a deleted one is opaque.
use std::os::fd::{AsFd, BorrowedFd};

use plyfs_format::aufs;
use plyfs_sys::stat::stat_opt;
use plyfs_sys::{At, Errno, Name, Result, SysError, open};

/// In the root of an upper: a name that readers of AUFS layers take for metadata.
const BY_NAME: &[u8] = b".wh..wh.plyfs";

/// Lets deeper layers have no say under `name` in `dir`.
///
/// # Errors
/// ENAMETOOLONG where `.wh.` does not fit before the name; ENOSPC and the like.
pub fn hide(dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    let whiteout = aufs::whiteout_name(name.as_bytes())
        .ok_or_else(|| SysError::on("hide", name.as_bytes(), Errno::ENAMETOOLONG))?;
    match open::create_file(dir, Name::new(&whiteout)?, 0o600) {
        Err(e) if e.errno() == Errno::EEXIST => Ok(()),
        other => other.map(drop),
    }
}

/// Whether deeper layers have no say under `name` in `dir`.
///
/// # Errors
/// EACCES, EIO and the like.
pub fn is_hidden(dir: BorrowedFd<'_>, name: &Name) -> Result<bool> {
    let Some(whiteout) = aufs::whiteout_name(name.as_bytes()) else {
        return Ok(false);
    };
    Ok(stat_opt(At::entry(dir, Name::new(&whiteout)?))?.is_some())
}

/// Whether what is deleted in the upper at `root` has been told by names before. It then always
/// is, whatever the machine can do by now: the two forms are not read together.
///
/// # Errors
/// EACCES, EIO and the like.
pub fn is_by_name(root: BorrowedFd<'_>) -> Result<bool> {
    Ok(stat_opt(At::entry(root, Name::new(BY_NAME)?))?.is_some())
}

/// Records that what is deleted in the upper at `root` is told by names.
///
/// # Errors
/// ENOSPC and the like.
pub fn set_by_name(root: BorrowedFd<'_>) -> Result<()> {
    match open::create_file(root, Name::new(BY_NAME)?, 0o600) {
        Err(e) if e.errno() == Errno::EEXIST => Ok(()),
        other => other.map(drop),
    }
}

/// Whether the directory at `at` says in itself that it is opaque, as fuse-overlayfs writes it.
///
/// # Errors
/// EACCES, EIO and the like.
pub fn has_opaque_marker(at: At<'_>) -> Result<bool> {
    let dir = open::open_path_at(at)?;
    let marker = Name::new(aufs::OPAQUE_MARKER)?;
    Ok(stat_opt(At::entry(dir.as_fd(), marker))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hiding_twice_is_hiding() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open::open_dir_path(dir.path()).unwrap();
        let name = Name::new(b"a").unwrap();
        assert!(!is_hidden(fd.as_fd(), name).unwrap());
        hide(fd.as_fd(), name).unwrap();
        hide(fd.as_fd(), name).unwrap();
        assert!(is_hidden(fd.as_fd(), name).unwrap());
        assert!(dir.path().join(".wh.a").is_file());
        let long = [b'a'; 252];
        let refused = hide(fd.as_fd(), Name::new(&long).unwrap());
        assert_eq!(refused.unwrap_err().errno(), Errno::ENAMETOOLONG);
        assert!(!is_hidden(fd.as_fd(), Name::new(&long).unwrap()).unwrap());
        assert!(!has_opaque_marker(At::object(&fd)).unwrap());
        std::fs::write(dir.path().join(".wh..wh..opq"), "").unwrap();
        assert!(has_opaque_marker(At::object(&fd)).unwrap());
    }
}
