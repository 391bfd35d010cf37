//! Capabilities that a process keeps; the others are gone for good.
use bitflags::bitflags;

use crate::error::{Errno, Result, SysError};
use crate::thread;

bitflags! {
    /// Capabilities by their numbers in linux/capability.h, those that a file system may need.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Capabilities: u64 {
        /// Giving files away.
        const CHOWN = 1 << 0;
        /// Reading and writing what modes forbid.
        const DAC_OVERRIDE = 1 << 1;
        /// Reading what modes forbid, and opening by handle.
        const DAC_READ_SEARCH = 1 << 2;
        /// Changing modes, times and ACLs of other users' files, and O_NOATIME on them.
        const FOWNER = 1 << 3;
        /// Keeping setgid bits.
        const FSETID = 1 << 4;
        /// Acting as another group.
        const SETGID = 1 << 6;
        /// Acting as another user.
        const SETUID = 1 << 7;
        /// The flags of chattr.
        const LINUX_IMMUTABLE = 1 << 9;
        /// `trusted.*` and most of `security.*`, and passthrough.
        const SYS_ADMIN = 1 << 21;
        /// Device nodes.
        const MKNOD = 1 << 27;
        /// File capabilities.
        const SETFCAP = 1 << 31;
        /// Labels that the policy in force does not know.
        const MAC_ADMIN = 1 << 33;
    }
}

/// Number of the highest capability a kernel may have (64 bits in the sets).
const HIGHEST: u32 = 63;

/// Keeps `wanted` of what the process has, in all its sets; the ambient set is emptied. Answers
/// what is left. For a process with one thread: others would keep theirs.
///
/// # Errors
/// What capget(2), capset(2) and prctl(2) answer.
pub fn keep_only(wanted: Capabilities) -> Result<Capabilities> {
    let [
        effective,
        permitted,
        inheritable,
        effective_high,
        permitted_high,
        inheritable_high,
    ] = thread::capget()?;
    let low = wanted.bits() as u32;
    let high = (wanted.bits() >> 32) as u32;
    // Without CAP_SETPCAP the bounding set stays. It counts for programs that gain rights, and
    // none does after `no_new_privileges`.
    if permitted & CAP_SETPCAP != 0 {
        lower_bounding_set(wanted)?;
    }
    // SAFETY: empties a set of this thread and touches no memory.
    let rc = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    Errno::result(rc).map_err(|e| SysError::new("prctl(PR_CAP_AMBIENT)", e))?;
    let left = [
        effective & low,
        permitted & low,
        inheritable & low,
        effective_high & high,
        permitted_high & high,
        inheritable_high & high,
    ];
    thread::capset(&left)?;
    thread::own_capabilities_are(left);
    let left = u64::from(permitted & low) | u64::from(permitted_high & high) << 32;
    Ok(Capabilities::from_bits_retain(left))
}

const CAP_SETPCAP: u32 = 1 << 8;

fn lower_bounding_set(wanted: Capabilities) -> Result<()> {
    for number in 0..=HIGHEST {
        if wanted.bits() & 1 << number != 0 {
            continue;
        }
        // SAFETY: changes the bounding set of this thread and touches no memory.
        let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        match Errno::result(rc) {
            // The kernel has none with this number, nor any above.
            Err(Errno::EINVAL) => return Ok(()),
            other => other.map_err(|e| SysError::new("prctl(PR_CAPBSET_DROP)", e))?,
        };
    }
    Ok(())
}
