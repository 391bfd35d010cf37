//! The target of a system call: a name in a directory, or a descriptor itself.
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::call::with_cstr;
use crate::error::Result;
use crate::name::Name;

/// What an `*at` system call works on; symbolic links are never followed.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    dir: BorrowedFd<'a>,
    name: Option<&'a Name>,
}

impl<'a> At<'a> {
    /// The entry `name` of directory `dir`.
    #[must_use]
    pub fn entry(dir: BorrowedFd<'a>, name: &'a Name) -> Self {
        Self {
            dir,
            name: Some(name),
        }
    }

    /// The object that `fd` refers to; an O_PATH descriptor will do.
    #[must_use]
    pub fn object(fd: &'a impl AsFd) -> Self {
        Self {
            dir: fd.as_fd(),
            name: None,
        }
    }

    pub(crate) fn raw(self) -> RawFd {
        self.dir.as_raw_fd()
    }

    pub(crate) fn subject(self) -> &'a [u8] {
        self.name.map_or(b"", Name::as_bytes)
    }

    /// AT_SYMLINK_NOFOLLOW, with AT_EMPTY_PATH where the target is the descriptor.
    pub(crate) fn flags(self) -> i32 {
        libc::AT_SYMLINK_NOFOLLOW
            | if self.name.is_none() {
                libc::AT_EMPTY_PATH
            } else {
                0
            }
    }

    pub(crate) fn with_name<T>(
        self,
        call: &'static str,
        f: impl FnOnce(&CStr) -> Result<T>,
    ) -> Result<T> {
        with_cstr(call, self.subject(), f)
    }

    /// A path through /proc/self/fd for calls that have no `*at` form.
    pub(crate) fn proc_path(self) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}", self.raw()).into_bytes();
        if let Some(name) = self.name {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        path
    }

    /// Whether the target is a descriptor and not a name.
    pub(crate) fn is_object(self) -> bool {
        self.name.is_none()
    }
}
