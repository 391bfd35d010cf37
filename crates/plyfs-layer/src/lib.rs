//! What is in one tree, and how is the upper changed safely?
//!
//! A layer is a directory tree. Its objects are known by `(dev, ino)` and reached again through
//! [`Reach`], never through a path string. Only [`Upper`] changes anything, and only in its tree.
#![forbid(unsafe_code)]

mod abilities;
mod by_name;
mod clean;
mod counted_lru;
mod marks;
mod obj;
mod probe;
mod reach;
mod root;
mod upper;
mod workdir;

pub use abilities::Abilities;
pub use by_name::{has_opaque_marker, hide, is_by_name, is_hidden, set_by_name};
pub use clean::remove_tree;
pub use counted_lru::{CountedLru, Served};
pub use marks::{DirMarks, FileMarks, dir_marks, file_marks};
pub use obj::{LayerIdx, Obj, Place};
pub use probe::{Probe, probe};
pub use reach::Reach;
pub use root::LayerRoot;
pub use upper::{Caps, Deletions, Upper, set_mark};
pub use workdir::{Staged, Workdir};
