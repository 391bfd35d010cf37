//! The client against a registry that fails on demand, and against docker-registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auth;
mod hostile;
mod pull;
mod push;
mod real;
mod store;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;
use std::time::Duration;

use plyfs_registry::{
    Client, Descriptor, MediaType, Options, Progress, Reference, RegistryError, Retry, Sources,
};
use plyfs_testkit::registry::digest_of;

/// No waiting between attempts: what is tested is that there are some.
pub(crate) fn options() -> Options {
    Options {
        tls_verify: false,
        credentials: Sources::none(),
        retry: Retry {
            limit: 4,
            first: Duration::from_millis(1),
            longest: Duration::from_millis(20),
        },
        connect_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

pub(crate) fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

pub(crate) fn client(host: &str, options: Options) -> Client {
    Client::new(&reference(host, "any"), options).unwrap()
}

pub(crate) fn blob(bytes: &[u8]) -> Descriptor {
    let digest: plyfs_registry::Digest = digest_of(bytes).parse().unwrap();
    Descriptor::new(MediaType::ImageLayerGzip, bytes.len() as u64, digest)
}

/// Bytes that differ at every place where something could be joined wrongly.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(state >> 24).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn written(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Notes what it is told.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) last: Mutex<u64>,
    pub(crate) retries: Mutex<Vec<String>>,
}

impl Progress for Notes {
    fn at(&self, _: &Descriptor, bytes: u64) {
        *self.last.lock().unwrap() = bytes;
    }

    fn retrying(&self, _: &Descriptor, reason: &str, _: Duration) {
        self.retries.lock().unwrap().push(reason.to_owned());
    }
}

impl Notes {
    pub(crate) fn reasons(&self) -> String {
        self.retries.lock().unwrap().join("\n")
    }
}

/// The text of an error, which has to hold all of `parts`.
pub(crate) fn says(error: &RegistryError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
