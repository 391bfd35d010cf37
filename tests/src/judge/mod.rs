//! The judge: random stacks and operations on kernel overlayfs and on a subject, compared step by step.
//!
//! A case is a stack of layers and a list of steps ([`case`]). It is built twice, kernel overlayfs is
//! mounted on one copy and the subject on the other, and one driver runs each step on both; steps that
//! commute are also run by several threads at once ([`commute`]). After every step results must agree ([`outcome`]), at the end the whole trees ([`view`]), again after a
//! remount, again with each side's upper mounted by the other implementation, and the lowers must be
//! as they were. A failing case is made small ([`shrink`]) and printed so that it can be run again.
//!
//! What may differ: device and inode numbers (their *relations* may not: where the kernel keeps a
//! number or lists the number that stat shows, the subject must), access and change times, times the
//! run itself gave, and the size and link count of directories.

mod build;
mod case;
mod cli;
mod commute;
mod exec;
mod exec_data;
mod exec_xattr;
mod fsck;
mod gen_ops;
mod gen_paths;
mod gen_stack;
mod mounts;
mod ns;
mod ops;
mod outcome;
mod rng;
mod runner;
mod shrink;
mod side;
mod stream;
mod supervise;
mod text;
mod together;
mod trace;
mod view;
mod watch;

pub use cli::{Arguments, run};
