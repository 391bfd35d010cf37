//! A panic in one request answers that request with EIO and leaves the mount alone.
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a handler. fuser answers EIO for a reply that is dropped unsent, as unwinding does.
pub(crate) fn guard(op: &'static str, handler: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handler)).is_err() {
        tracing::error!("{op}: the handler panicked; the request was answered with EIO");
    }
}
