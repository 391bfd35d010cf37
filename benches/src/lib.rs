//! How fast is plyfs beside kernel overlayfs, on the same files, in the same minutes?
//!
//! A [`Subject`] is a file system that can merge a stack of layers; a [`Workload`] is something
//! people do to one. [`run`] takes one sample of every pair in every round: the rounds are the
//! outer loop and the order of the subjects rotates, so that whatever else the machine does hits
//! all of them. Each sample has a fresh mount with a fresh upper, and the result of the work is
//! checked, so that a subject which does nothing cannot win.
#![forbid(unsafe_code)]

mod cli;
mod contenders;
mod daemon;
mod fixture;
mod ground;
mod machine;
mod markdown;
mod page;
mod progress;
mod report;
mod runner;
mod sample;
mod site;
mod stats;
mod subject;
mod unpack;
mod workload;

pub use cli::Options;
pub use fixture::{Archive, Built, Fixture, Kind, Sizes};
pub use ground::default_scratch;
pub use machine::Machine;
pub use markdown::{markdown, table};
pub use page::page;
pub use progress::Bar;
pub use report::{Cell, Report};
pub use runner::{Plan, Progress, isolate, run};
pub use sample::Sample;
pub use site::{Site, Stack, Touch};
pub use stats::Summary;
pub use subject::{Grammar, KernelOverlay, Mounted, Plain, Program, Subject};
pub use unpack::Unpacking;
pub use workload::{Start, Workload, all as workloads};
