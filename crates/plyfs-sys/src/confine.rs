//! What a process takes from itself for good: capabilities, paths, system calls.
pub mod calls;
pub mod caps;
pub mod root;

use crate::error::{Result, SysError};

/// No program this process or its children start gets more rights than it has; and whoever may
/// not more than that may install a filter of system calls.
///
/// # Errors
/// Practically none.
pub fn no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(|e| SysError::new("prctl(PR_SET_NO_NEW_PRIVS)", e))
}
