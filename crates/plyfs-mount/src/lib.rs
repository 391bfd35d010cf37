//! Which options, which process, which mount? Parse, assemble, daemonise.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod compat;
pub mod control;
pub mod daemonize;
pub mod error;
pub mod heir;
mod holder;
pub mod list;
mod next;
pub mod options;
mod outside;
pub mod plan;
mod sandbox;
pub mod session;
pub mod spec;
pub mod state;
mod successor;
pub mod unmount;

pub use error::MountError;
pub use spec::MountSpec;
