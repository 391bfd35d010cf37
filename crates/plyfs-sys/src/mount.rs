//! Mounting and unmounting a FUSE file system, and the mount table.
