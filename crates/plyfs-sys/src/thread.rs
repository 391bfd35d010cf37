//! What a thread acts as: file system ids, umask and capabilities of those it works for.
use std::cell::Cell;
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::call::check_long;
use crate::error::{Result, SysError};

/// The process's effective ids. Nothing in plyfs changes them after the start.
static OWN_IDS: OnceLock<(u32, u32)> = OnceLock::new();

thread_local! {
    /// The umask this thread has set for itself; None until it left the process's fs_struct.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Gives the calling thread a umask of its own and sets it.
///
/// Threads share one umask until `unshare(CLONE_FS)`; afterwards the backing file system applies
/// the caller's umask exactly where the kernel would: not where a default ACL rules.
///
/// # Errors
/// ENOMEM from unshare.
pub fn set_umask(mask: u32) -> Result<()> {
    UMASK.with(|own| {
        if own.get() == Some(mask) {
            return Ok(());
        }
        if own.get().is_none() {
            // SAFETY: unshare(CLONE_FS) only detaches this thread's fs_struct.
            if unsafe { libc::unshare(libc::CLONE_FS) } == -1 {
                return Err(SysError::last("unshare(CLONE_FS)"));
            }
        }
        // SAFETY: umask cannot fail and touches no memory.
        unsafe { libc::umask(mask) };
        own.set(Some(mask));
        Ok(())
    })
}

/// Acts as another user and group for file creation until dropped.
///
/// Dropping restores the process's own effective ids. CAP_DAC_OVERRIDE and its kin leave the
/// effective set while the fsuid is not 0 and come back with it (capabilities(7)).
#[derive(Debug)]
#[must_use = "the ids are restored when this is dropped"]
pub struct ActAs {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl ActAs {
    /// Switches the thread's fsuid and fsgid; ids that are already right cost nothing.
    ///
    /// # Errors
    /// EPERM when the process may not take the ids (its user namespace does not map them).
    pub fn new(uid: u32, gid: u32) -> Result<Self> {
        let (own_uid, own_gid) = *OWN_IDS.get_or_init(|| {
            // SAFETY: the get*id calls cannot fail.
            unsafe { (libc::geteuid(), libc::getegid()) }
        });
        let mut act = Self {
            uid: None,
            gid: None,
        };
        if gid != own_gid {
            act.gid = Some(own_gid);
            set_fsgid(gid)?;
        }
        if uid != own_uid {
            act.uid = Some(own_uid);
            set_fsuid(uid)?;
        }
        Ok(act)
    }
}

impl Drop for ActAs {
    fn drop(&mut self) {
        // SAFETY: setfsuid and setfsgid to the effective id always succeed.
        unsafe {
            if let Some(uid) = self.uid {
                libc::syscall(libc::SYS_setfsuid, uid);
            }
            if let Some(gid) = self.gid {
                libc::syscall(libc::SYS_setfsgid, gid);
            }
        }
    }
}

/// The capabilities of the process; once it serves nothing changes them but [`ActAs`] and
/// [`Unprivileged`], for one thread and a short time.
static OWN_CAPS: RwLock<Option<Caps>> = RwLock::new(None);

/// struct __user_cap_data_struct, twice.
pub(crate) type Caps = [u32; 6];

/// struct __user_cap_header_struct of version 3 for the calling thread.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];

/// CAP_FSETID, with which a write leaves suid and sgid, and CAP_SYS_RESOURCE, with which it goes
/// over quotas and into the blocks kept for root (`ovl_fill_super()` lowers it too).
const PRIVILEGED_WRITES: u32 = 1 << 4 | 1 << 24;

/// The thread lacks the capabilities that make a write more than an ordinary user's until dropped.
#[derive(Debug)]
#[must_use = "the capabilities come back when this is dropped"]
pub struct Unprivileged {
    own: Caps,
}

impl Unprivileged {
    /// Lowers the capabilities of the calling thread.
    ///
    /// # Errors
    /// What capget(2) and capset(2) answer.
    pub fn begin() -> Result<Self> {
        let known = *OWN_CAPS.read().unwrap_or_else(PoisonError::into_inner);
        let own = match known {
            Some(own) => own,
            None => {
                let now = capget()?;
                own_capabilities_are(now);
                now
            }
        };
        let mut less = own;
        less[0] &= !PRIVILEGED_WRITES;
        capset(&less)?;
        Ok(Self { own })
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        // They are all in the permitted set, so this cannot fail.
        drop(capset(&self.own));
    }
}

/// What [`Unprivileged`] goes back to from now on.
pub(crate) fn own_capabilities_are(caps: Caps) {
    *OWN_CAPS.write().unwrap_or_else(PoisonError::into_inner) = Some(caps);
}

pub(crate) fn capget() -> Result<Caps> {
    let (mut header, mut caps) = (CAP_HEADER, [0; 6]);
    // SAFETY: the kernel reads and writes a header of 8 and data of 24 bytes.
    let rc = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), caps.as_mut_ptr()) };
    check_long("capget", b"", rc).map(|_| caps)
}

pub(crate) fn capset(caps: &Caps) -> Result<()> {
    let mut header = CAP_HEADER;
    // SAFETY: the kernel reads a header of 8 and data of 24 bytes, and may write the header.
    let rc = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), caps.as_ptr()) };
    check_long("capset", b"", rc).map(drop)
}

/// setfsuid(2) reports no error: a second call with an invalid id tells what is in force.
fn set_fsuid(uid: u32) -> Result<()> {
    // SAFETY: both calls change or read only this thread's credentials.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsuid, uid);
        libc::syscall(libc::SYS_setfsuid, u32::MAX)
    };
    in_force("setfsuid", now, uid)
}

fn set_fsgid(gid: u32) -> Result<()> {
    // SAFETY: both calls change or read only this thread's credentials.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsgid, u32::MAX)
    };
    in_force("setfsgid", now, gid)
}

fn in_force(call: &'static str, now: libc::c_long, wanted: u32) -> Result<()> {
    if now as u32 == wanted {
        Ok(())
    } else {
        Err(SysError::new(call, crate::Errno::EPERM))
    }
}

#[cfg(test)]
mod tests;
