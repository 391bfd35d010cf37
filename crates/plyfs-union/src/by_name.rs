//! Uppers that can hold neither whiteouts nor marks: what is deleted there is told by names.
//!
//! [`plyfs_layer::hide`] has the form. Redirects, metacopies and the index need marks, so there are
//! none then (kernel: "upper fs does not support xattr, falling back to").
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use plyfs_format::aufs::{AufsName, OPAQUE_MARKER, classify};
use plyfs_layer::{
    Caps, Deletions, has_opaque_marker, hide, is_by_name, is_hidden, set_by_name, set_mark,
};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Name};

use crate::config::{RedirectDir, UnionOptions};
use crate::inode::Inode;
use crate::{Error, Result, Union};

/// What is left of the options in an upper without marks.
pub(crate) fn without_marks(options: &mut UnionOptions) {
    if options.metacopy || options.index || options.redirect_dir == RedirectDir::On {
        tracing::warn!("the upper takes no marks: metacopy, index and new redirects are off");
    }
    options.metacopy = false;
    options.index = false;
    if options.redirect_dir == RedirectDir::On {
        options.redirect_dir = RedirectDir::Follow;
    }
}

/// How the upper at `root` tells what is deleted, on record from now on.
pub(crate) fn choose(root: BorrowedFd<'_>, caps: Caps) -> plyfs_sys::Result<Deletions> {
    if caps.deletions() == Deletions::Devices && !is_by_name(root)? {
        return Ok(Deletions::Devices);
    }
    set_by_name(root)?;
    Ok(Deletions::Names)
}

/// Whether this is the opaque marker that fuse-overlayfs leaves, besides the mark, in every opaque
/// directory of an upper; users may have files of that name, but none of this kind.
pub(crate) fn is_left_marker(name: &Name, found: &Stat) -> bool {
    name.as_bytes() == OPAQUE_MARKER
        && found.kind() == Kind::File
        && (found.size, found.perm()) == (0, 0o700)
}

impl Union {
    /// Whether the upper tells by names what is deleted.
    #[must_use]
    pub fn deletes_by_name(&self) -> bool {
        self.stack.deletes_by_name
    }

    /// Whether `name` cannot be anybody's, as it says what is deleted.
    pub(crate) fn is_reserved(&self, name: &Name) -> bool {
        self.deletes_by_name() && classify(name.as_bytes()) != AufsName::Plain
    }

    /// Whether the upper directory `dir` says by a name that lowers have no say under `name`.
    pub(crate) fn is_hidden_by_name(&self, dir: BorrowedFd<'_>, name: &Name) -> Result<bool> {
        Ok(self.deletes_by_name() && is_hidden(dir, name)?)
    }

    /// Whether an upper directory says by a name in it that lowers have no say there.
    pub(crate) fn is_opaque_by_name(&self, at: At<'_>) -> Result<bool> {
        Ok(self.deletes_by_name() && has_opaque_marker(at)?)
    }

    /// Lets lowers have no say under `name` in `dir`, where one has something.
    pub(crate) fn hide_lower(&self, dir: &Arc<Inode>, name: &Name) -> Result<()> {
        if !self.lower_index(dir)?.has(name) {
            return Ok(());
        }
        let fd = self.reach.dir_fd(dir.upper().ok_or(Error::ReadOnly)?)?;
        Ok(hide(fd.as_fd(), name)?)
    }

    /// Keeps lowers out of the new upper directory at `at`, which is to be `name` in `dir`.
    pub(crate) fn shut(&self, at: At<'_>, dir: &Arc<Inode>, name: &Name) -> Result<()> {
        if self.deletes_by_name() {
            return self.hide_lower(dir, name);
        }
        Ok(set_mark(at, self.stack.ns.opaque(), b"y")?)
    }
}
