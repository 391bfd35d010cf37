//! What does the user see when trees are stacked? The engine, without FUSE.
//!
//! [`Union`] answers every operation on the merged view by `NodeId` and name. It owns no reply
//! and knows no protocol, so all of it runs and is tested without a mount.
#![forbid(unsafe_code)]

mod attr;
mod by_name;
mod cache;
mod caller;
mod config;
mod copy_up;
mod create;
mod design;
mod durable;
mod error;
mod files;
mod filesystems;
mod index;
mod inode;
mod io;
mod journal;
mod kept_times;
mod listing;
mod lock;
mod lookup;
mod lower_index;
mod lowers;
mod merge;
mod noted;
mod open_table;
mod opens;
mod owner;
mod protect;
mod remove;
mod rename;
mod restart_design;
mod restore;
mod sabotage;
mod seek;
mod stack;
mod stats;
mod table;
mod union;
mod upper_dirs;
mod xattr;

pub use attr::{Attr, SetAttr};
pub use caller::Caller;
pub use config::{OpenError, RedirectDir, UnionConfig, UnionOptions, UpperRoots};
pub use create::Make;
pub use error::{Error, Result};
pub use inode::{Inode, Key, NodeId};
pub use journal::{Journal, Keep, Kept, Outlook, Request, Ticket, Verdict};
pub use listing::{Flow, ListEntry};
pub use lookup::Entry;
pub use lower_index::Cookie;
pub use opens::{Backings, How, OpenCounts, Way};
pub use owner::{OwnerStore, Ownership};
pub use restore::Restored;
pub use seek::Found;
pub use stats::{CacheStats, CopyStats, UnionStats};
pub use table::{InodeRef, Table};
pub use union::{Invalidate, Union};
