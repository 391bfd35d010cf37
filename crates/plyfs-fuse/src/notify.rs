//! Telling the kernel what it cannot know.
use fuser::{INodeNo, Notifier};
use plyfs_union::{Invalidate, NodeId};

/// Sends invalidations over the connection.
#[derive(Debug)]
pub(crate) struct KernelListener {
    notifier: Notifier,
}

impl KernelListener {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { notifier }
    }
}

impl Invalidate for KernelListener {
    /// Attributes only (a negative offset leaves the data alone), so the kernel waits for no page
    /// and this may be sent while a request on the inode is in progress
    /// (`fuse_reverse_inval_inode()`).
    fn attributes(&self, node: NodeId) {
        if let Err(e) = self.notifier.inval_inode(INodeNo(node.0), -1, 0) {
            tracing::debug!("invalidating attributes of inode {}: {e}", node.0);
        }
    }

    /// The kernel stores dirty pages before it drops any (`invalidate_inode_pages2_range()`), with
    /// WRITE requests that other threads must be there to answer.
    fn write_back(&self, node: NodeId, off: u64, len: u64) {
        let (off, len) = (off.cast_signed().max(0), len.cast_signed().max(0));
        if let Err(e) = self.notifier.inval_inode(INodeNo(node.0), off, len) {
            tracing::debug!("having pages of inode {} written: {e}", node.0);
        }
    }

    /// A directory's pages are its cached listing; dropping them makes the kernel read it again.
    fn listing(&self, node: NodeId) {
        if let Err(e) = self.notifier.inval_inode(INodeNo(node.0), 0, 0) {
            tracing::debug!("invalidating the listing of inode {}: {e}", node.0);
        }
    }
}
