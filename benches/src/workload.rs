//! The workloads: named pieces of work, each with a result that can be checked.
mod clients;
mod git;
mod install;
mod list;
mod meta;
mod programs;
mod read;
mod remove;
mod write;

use anyhow::Result;

use crate::fixture::Fixture;
use crate::site::{Site, Touch};

pub use list::all;

/// What is in the caches when the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Fresh mount, every cache of the machine dropped: what the disk costs is in it.
    Cold,
    /// Fresh mount, the layers below are in the kernel's caches: what the union costs is in it.
    Fresh,
    /// The same work was just done in this mount.
    Warm,
    /// The clock starts before the mount is made; the layers are in the kernel's caches.
    Mounting,
}

/// How much a run did; a run that did less or more than expected has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Entries, files or calls, whatever the workload counts.
    pub units: u64,
    /// Bytes moved.
    pub bytes: u64,
}

impl Done {
    /// So many units and no bytes.
    #[must_use]
    pub fn units(units: u64) -> Self {
        Self { units, bytes: 0 }
    }
}

/// A named piece of work.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The name, for example `find-fresh@20`; the part after `@` is the number of layers.
    pub name: String,
    /// One line for people.
    pub about: &'static str,
    /// What the lower layers hold.
    pub fixture: Fixture,
    /// What is cached when the clock starts.
    pub start: Start,
    /// What it does to the layers.
    pub touch: Touch,
    /// The work is about copying up; a plain directory has no answer to it.
    pub about_copy_up: bool,
    /// Mount options beside the layers, in overlayfs's words.
    pub options: &'static [(&'static str, &'static str)],
    /// The clock runs for so many runs, and the time is divided.
    pub passes: u32,
    /// Untimed work in the mount before.
    pub prepare: fn(&Site) -> Result<()>,
    /// The work.
    pub run: fn(&Site) -> Result<Done>,
    /// What [`Workload::run`] has to return.
    pub expect: fn(&Site) -> Done,
    /// Looks at the state that the run left.
    pub check: fn(&Site) -> Result<()>,
}
