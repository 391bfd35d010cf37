//! The control socket of a mount: what its daemon tells the owner and root while it lives.
//!
//! One JSON line asks, one JSON line answers, then the connection ends. Both have a version; a
//! daemon answers what it understands and says what it does not.

pub mod client;
pub mod guards;
pub mod in_force;
pub mod server;
pub mod status;

pub use client::{Unanswered, ask_status, ask_upgrade};
pub use status::Status;

use serde::{Deserialize, Serialize};

use crate::state::StoredPath;

/// Version of the protocol. Fields may be added without a new one.
pub const VERSION: u32 = 1;
/// Longest line that is read, in bytes: a status of 500 layers with long paths is far below.
const MAX_LINE: u64 = 8 << 20;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Version of the protocol the asker speaks.
    pub version: u32,
    /// What to do: `status` or `upgrade`.
    pub command: String,
    /// The program to upgrade to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

/// A program that is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Where the daemon finds it.
    pub path: StoredPath,
    /// Which version of what daemons hand over it reads, as it says itself.
    pub handover: u64,
}

/// What is answered: one of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Version of the protocol the daemon speaks.
    pub version: u32,
    /// The answer to `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
    /// The daemon has ended for another program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upgrading: bool,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
