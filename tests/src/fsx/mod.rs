//! Random work on single files, each checked against a copy in memory: the idea of fsx, for a union.
//!
//! A run goes from epoch to epoch. An epoch works on a few files at once: one that still lies in a
//! lower layer, a new one, and one that an earlier mount has left ([`batch`]). Each step ([`op`])
//! goes to the file system and to the copy ([`subject`]); what is read must be what the copy
//! says, through read(2), a mapping, direct I/O or another descriptor. After a few epochs the stack
//! is mounted anew. A seed gives the same run on every machine, so a failure is replayed by
//! its seed.

mod batch;
mod cli;
mod mapping;
mod op;
mod rng;
mod subject;

pub use cli::{Arguments, run};
pub use mapping::Mapping;
