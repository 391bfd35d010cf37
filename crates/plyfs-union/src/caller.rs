//! Who asks, and what the kernel would let them do.
use plyfs_sys::peer::{self, Peer};

/// A capability that decides something the kernel leaves to the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Keeps suid and sgid when data changes.
    Fsetid,
    /// Sees `trusted.` xattrs.
    SysAdmin,
}

impl Capability {
    /// Number in linux/capability.h.
    fn bit(self) -> u32 {
        match self {
            Self::Fsetid => 4,
            Self::SysAdmin => 21,
        }
    }
}

/// The process a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// Thread id, 0 where it is not visible from here.
    pub pid: u32,
    /// File mode creation mask.
    pub umask: u32,
    /// The kernel has said that the caller lacks CAP_FSETID.
    pub drops_suid: bool,
}

impl Caller {
    /// The superuser with umask 0: who asks when the engine is used without FUSE.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        pid: 0,
        umask: 0,
        drops_suid: false,
    };

    /// Whether the caller has a capability in the initial user namespace. Only root is asked
    /// for: others practically never have one, and /proc costs more than most requests.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        if self.uid != 0 || (self.drops_suid && capability == Capability::Fsetid) {
            return false;
        }
        self.peer()
            .is_none_or(|p| p.effective & (1 << capability.bit()) != 0)
    }

    /// Whether the caller belongs to a group.
    pub(crate) fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.peer().is_some_and(|p| p.groups.contains(&gid))
    }

    fn peer(&self) -> Option<Peer> {
        if self.pid == 0 {
            None
        } else {
            peer::look_up(self.pid)
        }
    }
}
