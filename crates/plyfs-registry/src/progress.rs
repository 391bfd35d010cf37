//! Who wants to know how a transfer goes.
use std::time::Duration;

use oci_spec::image::Descriptor;

/// Told about each blob while it moves; called from several threads at a time.
pub trait Progress: Sync {
    /// So many bytes of the blob are there; may go back when a transfer begins anew.
    fn at(&self, blob: &Descriptor, bytes: u64);

    /// A transfer failed and will be tried again after a pause.
    fn retrying(&self, blob: &Descriptor, reason: &str, pause: Duration);

    /// Whether to stop, as nobody wants the blob any more; asked now and then.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn at(&self, _: &Descriptor, _: u64) {}

    fn retrying(&self, _: &Descriptor, _: &str, _: Duration) {}
}
