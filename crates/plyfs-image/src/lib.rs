//! What is an image, and what is in our store? Layouts, digests, unpacking, references, GC.
//!
//! [`Store`] is the way in. Format and promises of the store are in [`store`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod apply;
pub mod commit;
pub mod compression;
pub mod digest;
pub mod error;
pub mod escape;
pub mod exchange;
pub mod layer_tar;
pub mod limits;
pub mod parallel;
pub mod progress;
pub mod store;
pub mod tar;
pub mod time;
pub mod view;

mod rest;
mod unpack;

pub use digest::Digest;
pub use error::{ImageError, Result};
pub use limits::Limits;
pub use oci_spec::image::{Descriptor, MediaType, Platform};
pub use progress::{Meter, Progress, Quiet};
pub use store::{Blob, Image, LayerSource, StagedLayer, Store, Tagged};
