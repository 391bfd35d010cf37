//! What do the bytes on disk mean? Pure: bytes in, value or error out.
//!
//! Every parser here is total: any input gives a value or an error, never a panic, because the bytes come from
//! layers that somebody else wrote. Nothing here does I/O or knows a path. [`design`] is the format document.
#![forbid(unsafe_code)]

pub mod acl;
pub mod aufs;
pub mod design;
pub mod error;
pub mod idmap;
pub mod index;
pub mod ino;
pub mod metacopy;
pub mod names;
pub mod nlink;
pub mod opaque;
pub mod origin;
pub mod override_stat;
pub mod protattr;
pub mod redirect;
pub mod whiteout;

mod hex;
mod mode;

#[cfg(test)]
mod proptests;

pub use error::Malformed;
