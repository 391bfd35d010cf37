//! Semantics of the merged view, where it differs from kernel overlayfs, and why it is built so.
