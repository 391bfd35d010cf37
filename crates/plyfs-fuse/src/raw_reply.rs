//! Replies in which FUSE's number of an inode is not the one programs see.
//!
//! fuser 0.18 fills `nodeid` from `attr.ino` (`ResponseStruct::new_entry()`,
//! `DirEntPlusList::push()`). For us they differ: two inodes may show one st_ino (the names of a
//! lower hard link before one of them is copied up), and the root is always node 1. So entry, create
//! and readdirplus replies are written to the connection here, and fuser's own reply object for the
//! request is forgotten: it holds nothing but a count on the connection, which lives as long as
//! the process. Requests are read from one descriptor, never a clone, so the reply finds its
//! request whichever thread writes it.
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use plyfs_sys::io;
use plyfs_union::{Attr, Entry, NodeId, Ticket};

use crate::backings::OpenOut;
use crate::wire::{ENTRY_OUT, OPEN_OUT, OUT_HEADER, Ttl, Writer};

/// Smallest buffer the kernel ever offers for a listing (`fuse_readdir_uncached()`).
pub(crate) const MIN_LISTING: usize = 4096;

/// What an entry says besides attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// The kernel's number of the inode.
    pub(crate) node: NodeId,
    /// How long it all holds.
    pub(crate) ttl: Ttl,
}

/// Writes replies to the connection.
#[derive(Debug)]
pub(crate) struct RawReply {
    dev_fuse: OwnedFd,
}

impl RawReply {
    pub(crate) fn new(dev_fuse: OwnedFd) -> Self {
        Self { dev_fuse }
    }

    /// Sends an entry and passes its count to the kernel; if the kernel did not take the reply
    /// (the request was interrupted) the count is given back by dropping it.
    pub(crate) fn entry(
        &self,
        unique: u64,
        reply: fuser::ReplyEntry,
        entry: Entry,
        sent: Sent,
        ticket: &Ticket<'_>,
    ) {
        let mut w = Writer(Vec::with_capacity(ENTRY_OUT));
        w.entry(sent.node.0, Some(&entry.attr), sent.ttl);
        ticket.count(entry.node.id);
        if self.send(unique, &w.0) {
            entry.node.leak();
        } else {
            ticket.uncount([entry.node.id]);
        }
        std::mem::forget(reply);
    }

    /// [`RawReply::entry`] for a file that is made and opened; true when the kernel took it.
    pub(crate) fn created(
        &self,
        unique: u64,
        reply: fuser::ReplyCreate,
        entry: Entry,
        sent: Sent,
        out: OpenOut,
        ticket: &Ticket<'_>,
    ) -> bool {
        let mut w = Writer(Vec::with_capacity(ENTRY_OUT + OPEN_OUT));
        w.entry(sent.node.0, Some(&entry.attr), sent.ttl);
        w.open(out);
        ticket.count(entry.node.id);
        let taken = self.send(unique, &w.0);
        if taken {
            entry.node.leak();
        } else {
            ticket.uncount([entry.node.id]);
        }
        std::mem::forget(reply);
        taken
    }

    /// Answers OPEN; true when the kernel took it. fuser's own reply does not say.
    pub(crate) fn opened(&self, unique: u64, reply: fuser::ReplyOpen, out: OpenOut) -> bool {
        let mut w = Writer(Vec::with_capacity(OPEN_OUT));
        w.open(out);
        let taken = self.send(unique, &w.0);
        std::mem::forget(reply);
        taken
    }

    /// Says that nothing has the name, and that the kernel may remember it.
    pub(crate) fn negative(&self, unique: u64, reply: fuser::ReplyEntry, ttl: Duration) {
        let mut w = Writer(Vec::with_capacity(ENTRY_OUT));
        let ttl = Ttl {
            entry: ttl,
            attr: ttl,
        };
        w.entry(0, None::<&Attr>, ttl);
        self.send(unique, &w.0);
        std::mem::forget(reply);
    }

    /// Sends a listing with looked-up entries; true when the kernel took it.
    pub(crate) fn listing(
        &self,
        unique: u64,
        reply: fuser::ReplyDirectoryPlus,
        listing: &[u8],
    ) -> bool {
        let taken = self.send(unique, listing);
        std::mem::forget(reply);
        taken
    }

    fn send(&self, unique: u64, payload: &[u8]) -> bool {
        let mut header = [0u8; OUT_HEADER];
        let len = u32::try_from(OUT_HEADER + payload.len()).unwrap_or(u32::MAX);
        header[..4].copy_from_slice(&len.to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        let bufs = [IoSlice::new(&header), IoSlice::new(payload)];
        match io::write_vectored(self.dev_fuse.as_fd(), &bufs) {
            Ok(_) => true,
            Err(e) => {
                tracing::debug!("reply to request {unique}: {e}");
                false
            }
        }
    }
}

/// The room the kernel offers for a listing. fuser passes it to the reply object and not to the
/// handler; the object tells it in its debug output alone. Where that changes, the smallest
/// buffer the kernel ever offers is used, which is always right and only costs more requests.
pub(crate) fn listing_room(reply: &fuser::ReplyDirectoryPlus) -> usize {
    let text = format!("{reply:?}");
    let number = text.split("max_size: ").nth(1).and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    number.unwrap_or(MIN_LISTING).max(MIN_LISTING)
}
