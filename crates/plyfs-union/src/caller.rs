//! Who asks.

/// The process a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// Process id, 0 where it is not visible from here.
    pub pid: u32,
    /// File mode creation mask.
    pub umask: u32,
}

impl Caller {
    /// The superuser with umask 0: who asks when the engine is used without FUSE.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        pid: 0,
        umask: 0,
    };

    /// Whether a change of data keeps suid and sgid: the kernel's `capable(CAP_FSETID)`, taken to
    /// be what root of the initial user namespace has.
    #[must_use]
    pub fn may_keep_suid(&self) -> bool {
        self.uid == 0
    }
}
