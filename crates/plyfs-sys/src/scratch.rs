//! A directory for the tests of this crate, and short ways to name what is in it.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::at::At;
use crate::name::Name;
use crate::open;

/// A directory that goes with the value.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    fd: OwnedFd,
}

impl Scratch {
    /// Plants `spec` (see [`plyfs_testkit::plant`]).
    pub(crate) fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
        plyfs_testkit::plant(dir.path(), spec);
        let fd = open::open_dir_path(dir.path()).unwrap();
        Self { dir, fd }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The entry `name`.
    pub(crate) fn at<'a>(&'a self, name: &'a str) -> At<'a> {
        At::entry(self.fd.as_fd(), as_name(name))
    }

    /// An O_PATH descriptor of `name`, a symbolic link itself included.
    pub(crate) fn open(&self, name: &str) -> OwnedFd {
        open::open_path(self.fd(), as_name(name)).unwrap()
    }

    /// An O_PATH descriptor of the directory `name`.
    pub(crate) fn dir(&self, name: &str) -> OwnedFd {
        open::open_dir(self.fd(), as_name(name)).unwrap()
    }
}

pub(crate) fn as_name(text: &str) -> &Name {
    Name::new(text.as_bytes()).unwrap()
}
