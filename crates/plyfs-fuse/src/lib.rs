//! What does the kernel ask, and how do we answer? The only crate that names fuser.
//!
//! On the *cached* data path of DESIGN.md OPEN, OPENDIR, CREATE and FLUSH are answered ENOSYS once,
//! after which the kernel opens files by itself and keeps names, attributes, data and listings
//! until it is told otherwise. Warm work costs no request at all. On the *passthrough* data path
//! OPEN and CREATE say from which file of a layer the kernel reads data and to which it writes.
#![forbid(unsafe_code)]

mod backings;
mod buffers;
mod convert;
mod counts;
mod guard;
mod hello;
mod notify;
mod ops;
mod raw_reply;
mod seats;
mod session;
mod wire;

pub use counts::{BUCKETS, Op, OpCount, RequestCounts};
pub use session::{Data, Ended, Session, SessionConfig};
