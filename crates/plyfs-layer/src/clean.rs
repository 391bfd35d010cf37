//! Removing a tree beneath a directory descriptor without leaving it.
use std::os::fd::{AsFd, BorrowedFd};

use plyfs_sys::stat::Kind;
use plyfs_sys::{At, Errno, Name, NameBuf, Result, dir, make, open, stat};

/// Deepest tree that is removed; deeper ones are an error, never a stack overflow.
const MAX_DEPTH: usize = 512;

/// Removes `name` in `dir` with everything below it; absence is fine.
///
/// # Errors
/// EACCES, EIO, ELOOP for a tree deeper than 512 levels, and the like.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    remove(dir, name, 0)
}

fn remove(dir_fd: BorrowedFd<'_>, name: &Name, depth: usize) -> Result<()> {
    let Some(found) = stat::stat_opt(At::entry(dir_fd, name))? else {
        return Ok(());
    };
    if found.kind() != Kind::Dir {
        return gone_is_fine(make::unlink(dir_fd, name));
    }
    match make::rmdir(dir_fd, name) {
        Err(e) if matches!(e.errno(), Errno::ENOTEMPTY | Errno::EEXIST) => {}
        other => return gone_is_fine(other),
    }
    if depth >= MAX_DEPTH {
        return Err(plyfs_sys::SysError::on(
            "remove tree",
            name.as_bytes(),
            Errno::ELOOP,
        ));
    }
    let fd = open::open_dir(dir_fd, name)?;
    for child in names(fd.as_fd())? {
        remove(fd.as_fd(), &child, depth + 1)?;
    }
    gone_is_fine(make::rmdir(dir_fd, name))
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.errno() == Errno::ENOENT => Ok(()),
        other => other,
    }
}

/// All names in a directory.
///
/// # Errors
/// EACCES, EIO and the like.
pub(crate) fn names(fd: BorrowedFd<'_>) -> Result<Vec<NameBuf>> {
    let list = open::open_dir_for_list(fd)?;
    let mut names = Vec::new();
    dir::for_each(list.as_fd(), |entry| {
        names.push(Name::new(entry.name)?.to_owned());
        Ok::<(), plyfs_sys::SysError>(())
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests;
