//! The engine without FUSE: layers on a real file system, operations by name, and what must come
//! out of them, each case one line of text.
//!
//! ```text
//! check("lower: /d/a=1 /d/b=2 | upper:",
//!       "mv /d /e; rm /e/a",
//!       "tree: /e/b=2 | upper: wh /d, /e redirect=d, wh /e/a");
//! ```
//!
//! [`text`] has the language of the layers and expectations, [`client`] that of the operations.
//! Whatever a case says, [`check::check`] proves of it as well: lower layers are byte-identical
//! afterwards, a view opened anew and kernel overlayfs both show the same tree over the same
//! layers, the workdir is empty, and nothing stays known that nobody knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod client;
mod kernel;
mod ops;
mod place;
mod text;
mod view;
mod world;

mod copy_up;
mod create;
mod data;
#[cfg(debug_assertions)]
mod faults;
mod index;
mod lookup;
mod model;
mod opens;
mod owner;
mod protect;
mod races;
mod readdir;
mod remove;
mod rename;
mod stress;
