//! Removing a tree beneath a directory descriptor without leaving it.
use std::os::fd::{AsFd, BorrowedFd};

use plyfs_sys::make::Rename;
use plyfs_sys::stat::Kind;
use plyfs_sys::{At, Errno, Name, NameBuf, Result, dir, make, open, stat};

/// Levels that are gone down at a time: each holds a descriptor and a stack frame.
const MAX_DEPTH: usize = 32;

/// Removes `name` in `dir` with everything below it; absence is fine. What lies deep is first
/// moved up beside `name`, so that no tree is too deep.
///
/// # Errors
/// EACCES, EIO and the like.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &Name) -> Result<()> {
    let mut todo = vec![name.to_owned()];
    while let Some(name) = todo.pop() {
        Removal {
            top: dir,
            todo: &mut todo,
        }
        .remove(dir, &name, 0)?;
    }
    Ok(())
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// Names in `top` that are still to be removed.
    todo: &'a mut Vec<NameBuf>,
}

impl Removal<'_> {
    fn remove(&mut self, dir_fd: BorrowedFd<'_>, name: &Name, depth: usize) -> Result<()> {
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
            return self.move_up(dir_fd, name);
        }
        let fd = open::open_dir(dir_fd, name)?;
        for child in names(fd.as_fd())? {
            self.remove(fd.as_fd(), &child, depth + 1)?;
        }
        gone_is_fine(make::rmdir(dir_fd, name))
    }

    /// Moves a directory to the top, under a name that nothing has there, to be removed from there.
    fn move_up(&mut self, dir_fd: BorrowedFd<'_>, name: &Name) -> Result<()> {
        for n in self.todo.len().. {
            let free = Name::new(format!(".plyfs-deep-{n:x}").as_bytes())?.to_owned();
            match make::rename(dir_fd, name, self.top, &free, Rename::NOREPLACE) {
                Err(e) if e.errno() == Errno::EEXIST => {}
                moved => {
                    moved?;
                    self.todo.push(free);
                    break;
                }
            }
        }
        Ok(())
    }
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
