//! How do we ask the kernel? Typed, I/O-safe system calls; the only `unsafe` code of plyfs.
#![allow(
    unsafe_code,
    reason = "this crate is the one place where system calls are made"
)]

pub mod alloc;
pub mod at;
pub mod attr;
pub mod backing;
pub mod beneath;
pub mod confine;
pub mod copy;
pub mod detach;
pub mod die;
pub mod dir;
pub mod error;
#[cfg(debug_assertions)]
pub mod faults;
pub mod handle;
pub mod io;
pub mod make;
pub mod mount;
pub mod name;
pub mod open;
pub mod peer;
pub mod process;
pub mod shared;
pub mod socket;
pub mod stat;
pub mod takeover;
pub mod thread;
pub mod usage;
pub mod xattr;

mod call;

pub use at::At;
pub use error::{Errno, Result, SysError};
pub use name::{Name, NameBuf};

#[cfg(test)]
mod scratch;
