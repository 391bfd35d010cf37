//! How do we build trees, mount them and compare them? Shared by every test, never shipped.
//!
//! A test builds a [`Stack`] of layers, mounts it ([`mount_plyfs`], [`mount_kernel`],
//! [`mount_fuse_overlayfs`]), works on the merged directory, and compares what it sees with
//! [`snapshot`] and [`diff`]. The crate shares no code with the engine it judges.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod binary;
mod compare;
mod kills;
pub mod model;
mod mount;
mod need;
mod plant;
pub mod registry;
mod stack;
mod tree;
mod watch;

pub use binary::{bin, fuse_overlayfs};
pub use compare::{Rules, diff, diff_with};
pub use mount::{
    Mounted, mount_fuse_overlayfs, mount_kernel, mount_plyfs, mount_program, mounted_at, unmount,
    wait_until,
};
pub use need::{can_mount_fuse, can_mount_overlay, can_pass_through, has_program, is_root, skip};
pub use plant::plant;
pub use stack::{Stack, private_mounts, scratch_base};
pub use tree::{Kind, Node, Tree, snapshot};
pub use watch::LowersWatch;
