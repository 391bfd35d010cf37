//! What is on the network? Pull and push by the distribution API, and credentials.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod client;
pub mod design;
mod digest;
mod error;
mod http;
mod manifest;
mod own_ca;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
mod repository;
mod retry;
mod tls;
mod transfer;
mod upload;
mod url;

pub use auth::{Credentials, Sources};
pub use client::{Client, Options};
pub use error::{ApiError, Object, RegistryError, Result};
pub use manifest::{MANIFEST_LIMIT, Manifest, Parsed};
pub use platform::Platform;
pub use progress::{Progress, Silent};
pub use pull::{PullOptions, Pulled, pull};
pub use push::{PushOptions, Pushed, push};
pub use reference::Reference;
pub use repository::{Repository, Resolved};
pub use retry::Retry;
pub use upload::{BlobSource, Sent};

/// The types of the image specification that this crate speaks in.
pub use oci_spec::image::{Descriptor, Digest, MediaType};
