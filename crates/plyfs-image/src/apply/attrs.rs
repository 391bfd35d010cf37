//! Giving an unpacked object the owner, mode, xattrs and times that the archive says.
use plyfs_format::names::{self, XattrNamespace};
use plyfs_format::override_stat;
use plyfs_sys::attr::{self, SetTime};
use plyfs_sys::stat::Time;
use plyfs_sys::xattr::{self, SetFlags};
use plyfs_sys::{At, Errno, SysError, process};

use super::tree::{Step, Stop};
use crate::tar::{Entry, Kind};

/// suid, sgid and sticky: bits that chown may take away again.
const SPECIAL: u32 = 0o7000;

/// Sets attributes; remembers what the file system or our privileges did not allow.
#[derive(Debug)]
pub(super) struct Attributes {
    ns: XattrNamespace,
    own: (u32, u32),
    privileged: bool,
    /// Owners that could not be given.
    pub owners_lost: u64,
    /// Xattrs that could not be set, or may not.
    pub xattrs_lost: u64,
}

impl Attributes {
    pub(super) fn new(ns: XattrNamespace) -> Self {
        Self {
            ns,
            own: (process::euid(), process::egid()),
            privileged: process::euid() == 0,
            owners_lost: 0,
            xattrs_lost: 0,
        }
    }

    /// Whether this is the machine's root, not that of a user namespace.
    pub(super) fn is_root(&self) -> bool {
        self.privileged && process::in_initial_user_ns()
    }

    /// Sets owner, mode and xattrs, in the order in which none undoes another. `made` says that
    /// the object was just made by us with its permission bits.
    pub(super) fn set(&mut self, at: At<'_>, entry: &Entry, made: bool) -> Step<()> {
        let owner = (id(entry.uid, "owner")?, id(entry.gid, "group")?);
        let chowned = !made || owner != self.own;
        if chowned {
            match attr::chown(at, Some(owner.0), Some(owner.1)) {
                Err(e) if self.may_lack(e.errno()) => self.owners_lost += 1,
                other => other?,
            }
        }
        let changes_mode = !made || entry.mode & SPECIAL != 0;
        if changes_mode && entry.kind != Kind::Symlink {
            attr::chmod(at, entry.mode)?;
        }
        for (name, value) in &entry.xattrs {
            self.xattr(at, name, value)?;
        }
        Ok(())
    }

    /// EINVAL: the id has no meaning in this user namespace.
    fn may_lack(&self, e: Errno) -> bool {
        e == Errno::EINVAL || (e == Errno::EPERM && !self.privileged)
    }

    fn xattr(&mut self, at: At<'_>, name: &[u8], value: &[u8]) -> Step<()> {
        if is_foreign_mark(name, self.ns) {
            self.xattrs_lost += 1;
            return Ok(());
        }
        match xattr::set(at, &self.ns.to_disk(name), value, SetFlags::empty()) {
            Err(e) if is_unsupported(&e) => {
                self.xattrs_lost += 1;
                Ok(())
            }
            Err(e) if e.errno() == Errno::EPERM && !self.privileged => {
                self.xattrs_lost += 1;
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// Marks that would change what the layer means and have no escaped form in our namespace.
fn is_foreign_mark(name: &[u8], ns: XattrNamespace) -> bool {
    let other = match ns {
        XattrNamespace::Trusted => XattrNamespace::User,
        XattrNamespace::User => XattrNamespace::Trusted,
    };
    name.starts_with(other.prefix().as_bytes())
        || names::is_foreign_private(name)
        || override_stat::NAMES.iter().any(|n| name == n.as_bytes())
}

/// The file system has no such attributes, or not on such objects.
fn is_unsupported(e: &SysError) -> bool {
    matches!(e.errno(), Errno::EOPNOTSUPP)
}

fn id(value: u64, what: &str) -> Step<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Stop::Refused(format!("the {what} {value} is no id")))
}

/// Sets the times that the archive says; access time is modification time where it says none.
pub(super) fn set_times(at: At<'_>, mtime: Time, atime: Option<Time>) -> Step<()> {
    let atime = SetTime::To(atime.unwrap_or(mtime));
    Ok(attr::utimens(at, atime, SetTime::To(mtime))?)
}
