//! One file for each subcommand.

pub(crate) mod compat;
pub(crate) mod diff;
pub(crate) mod mount;
pub(crate) mod umount;
pub(crate) mod version;
