//! The requests in progress: what a daemon must know to answer one that another has begun.
//!
//! Each serving thread has a record of its own. The kernel sends a request again that was read
//! and not answered; it finds here what was counted for its reply and what it meant to do.
use std::cell::Cell;
use std::collections::HashMap;

use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::header::TICKETS_AT;
use super::slots::{Link, Slot};
use super::{HEADER, Journal};
use crate::inode::NodeId;

/// Words of a record.
pub(super) const WORDS: usize = 256;
pub(super) const COUNT: u16 = 512;
const START: usize = HEADER;

/// Number of the request, without the mark of one that was sent again; 0: none in progress.
const UNIQUE: usize = 0;
/// What is meant to happen on disk: kind, state.
const INTENT: usize = 1;
/// Slot that moves << 32 | slot that comes in exchange.
const MOVERS: usize = 2;
/// Where the first goes.
const FIRST_TO: usize = 3;
/// Where the second goes.
const SECOND_TO: usize = 4;
/// How often a daemon has crashed while the request was in progress.
const CRASHES: usize = 5;
/// How many inodes were counted for the reply.
const COUNTED: usize = 6;
/// The inodes.
const NODES: usize = 7;

/// The mark of a request that is sent again (FUSE_UNIQUE_RESEND).
const AGAIN: u64 = 1 << 63;
/// A request that has crashed so many daemons is refused.
const MAX_CRASHES: u64 = 3;

const MOVE: u64 = 1;
const FIRST_FOLLOWS: u64 = 1 << 8;
const SECOND_FOLLOWS: u64 = 1 << 9;
const MOVED: u64 = 2;
const WAS_THERE: u64 = 3;
const WAS_ABSENT: u64 = 4;
const OPENED: u64 = 5;
const RELEASED: u64 = 6;
const SENT_AWAY: u64 = 7;
/// Of an open: for writing.
const WRITES: u64 = 1 << 8;

/// What a request has noted before it changed the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Nothing.
    None,
    /// An object is to have another place; and one that comes in exchange.
    Move(Mover, Option<Mover>),
    /// That has happened.
    Moved,
    /// The attribute was there before.
    WasThere,
    /// The attribute was not there before.
    WasAbsent,
    /// An open of this inode was counted; for writing or not.
    Opened(NodeId, bool),
    /// An open was taken back.
    Released,
    /// The open is answered with ESTALE.
    SentAway,
}

/// An object that is about to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mover {
    pub(crate) slot: Slot,
    /// Where to.
    pub(crate) to: Link,
    /// The journal has the object by the name that moves, and not by another.
    pub(crate) follows: bool,
}

#[derive(Debug)]
pub(super) struct Tickets {
    free: Mutex<Vec<u16>>,
    /// Records of dead daemons by request.
    past: Mutex<HashMap<u64, u16>>,
}

thread_local! {
    /// The record of this thread. A process serves one connection.
    static OWN: Cell<Option<u16>> = const { Cell::new(None) };
    /// The request in progress on this thread.
    static NOW: Cell<Request> = const { Cell::new(Request::Fresh) };
}

/// What is known of a request when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Nobody has seen it before.
    Fresh,
    /// A daemon that is dead has read it and not answered.
    Again,
    /// It has crashed one daemon after the other.
    Crasher,
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self {
            free: Mutex::new((0..COUNT).rev().collect()),
            past: Mutex::default(),
        }
    }

    pub(super) fn found(journal: &Journal) -> Self {
        let crashed = u64::from(journal.last_crashed());
        let mut past = HashMap::new();
        let mut free = Vec::new();
        let used = journal.used_tickets();
        for own in (0..COUNT).rev() {
            // A record that was never touched takes no memory, and shall not.
            match journal.in_ticket_if(own < used, own, UNIQUE) {
                0 => free.push(own),
                unique => {
                    let crashes = journal.in_ticket(own, CRASHES) + crashed;
                    journal.set_in_ticket(own, CRASHES, crashes);
                    past.insert(unique, own);
                }
            }
        }
        Self {
            free: Mutex::new(free),
            past: Mutex::new(past),
        }
    }

    /// A record for a thread. Where all are taken by requests that were never sent again, one of
    /// these goes: its reply had arrived.
    fn take(&self) -> Option<u16> {
        self.free.lock().pop().or_else(|| {
            let mut past = self.past.lock();
            let any = past.keys().copied().min()?;
            past.remove(&any)
        })
    }
}

/// A request in progress. It ends when its reply has been sent.
#[derive(Debug)]
pub struct Ticket<'a> {
    journal: Option<&'a Journal>,
    own: u16,
}

impl<'a> Ticket<'a> {
    /// For a mount without a journal.
    pub(crate) fn none() -> Self {
        Self {
            journal: None,
            own: 0,
        }
    }

    /// Counts an inode for the kernel, before it gets the reply that says so.
    pub fn count(&self, node: NodeId) {
        let Some(journal) = self.journal else { return };
        journal.count(node, 1);
        // A kill between the two counts once too much, never too little.
        let at = journal.in_ticket(self.own, COUNTED);
        if NODES + (at as usize) < WORDS {
            journal.set_in_ticket(self.own, NODES + at as usize, node.0);
            journal.set_in_ticket(self.own, COUNTED, at + 1);
        }
    }

    /// The kernel did not take the reply.
    pub fn uncount(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let Some(journal) = self.journal else { return };
        journal.set_in_ticket(self.own, COUNTED, 0);
        for node in nodes {
            journal.uncount(node, 1);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(journal) = self.journal {
            journal.set_in_ticket(self.own, UNIQUE, 0);
            NOW.set(Request::Fresh);
            journal.progress();
        }
    }
}

impl Journal {
    fn used_tickets(&self) -> u16 {
        u16::try_from(self.get(TICKETS_AT)).unwrap_or(COUNT)
    }

    fn in_ticket_if(&self, used: bool, own: u16, word: usize) -> u64 {
        if used { self.in_ticket(own, word) } else { 0 }
    }

    fn in_ticket(&self, own: u16, word: usize) -> u64 {
        self.get(START + usize::from(own) * WORDS + word)
    }

    fn set_in_ticket(&self, own: u16, word: usize, value: u64) {
        self.set(START + usize::from(own) * WORDS + word, value);
    }

    /// Begins a request on this thread. Answers what is known of it, and the inodes that a dead
    /// daemon has counted for its reply: they are to be forgotten.
    pub(crate) fn begin_request(&self, unique: u64) -> (Ticket<'_>, Request, Vec<NodeId>) {
        let Some(own) = self.own_ticket() else {
            return (Ticket::none(), Request::Fresh, Vec::new());
        };
        let again = unique & AGAIN != 0;
        let unique = unique & !AGAIN;
        for word in [INTENT, CRASHES, COUNTED] {
            self.set_in_ticket(own, word, 0);
        }
        let mut request = Request::Fresh;
        let mut counted = Vec::new();
        if again {
            request = Request::Again;
            let past = self.tickets.past.lock().remove(&unique);
            if let Some(past) = past {
                counted = self.inherit(own, past);
                if self.in_ticket(own, CRASHES) >= MAX_CRASHES {
                    request = Request::Crasher;
                }
            }
            self.set_in_ticket(own, UNIQUE, unique);
            if let Some(past) = past {
                self.set_in_ticket(past, UNIQUE, 0);
                self.tickets.free.lock().push(past);
            }
        } else {
            self.set_in_ticket(own, UNIQUE, unique);
        }
        NOW.set(request);
        let ticket = Ticket {
            journal: Some(self),
            own,
        };
        (ticket, request, counted)
    }

    fn own_ticket(&self) -> Option<u16> {
        if let Some(own) = OWN.get() {
            return Some(own);
        }
        let own = self.tickets.take();
        if own.is_none() {
            self.break_off("more threads than records of requests");
        }
        if let Some(own) = own {
            self.word(TICKETS_AT)
                .fetch_max(u64::from(own) + 1, Ordering::AcqRel);
        }
        OWN.set(own);
        own
    }

    /// Takes over what a dead daemon has noted of a request.
    fn inherit(&self, own: u16, past: u16) -> Vec<NodeId> {
        for word in [MOVERS, FIRST_TO, SECOND_TO, CRASHES, INTENT] {
            self.set_in_ticket(own, word, self.in_ticket(past, word));
        }
        let counted = (self.in_ticket(past, COUNTED) as usize).min(WORDS - NODES);
        let nodes = (0..counted).map(|i| NodeId(self.in_ticket(past, NODES + i)));
        let nodes = nodes.collect();
        // First the list, then the counts: a kill in between counts too much, never too little.
        self.set_in_ticket(past, COUNTED, 0);
        nodes
    }

    /// Whether the request on this thread was begun by a daemon that is dead.
    pub(crate) fn is_again(&self) -> bool {
        NOW.get() == Request::Again
    }

    /// What the request on this thread, or a dead daemon for it, has noted.
    pub(crate) fn intent(&self) -> Intent {
        OWN.get().map_or(Intent::None, |own| self.intent_of(own))
    }

    fn intent_of(&self, own: u16) -> Intent {
        let movers = self.in_ticket(own, MOVERS);
        let link = |word| Link(self.in_ticket(own, word));
        match self.in_ticket(own, INTENT) {
            kind if kind & 0xff == MOVE => Intent::Move(
                Mover {
                    slot: Slot((movers >> 32) as u32),
                    to: link(FIRST_TO),
                    follows: kind & FIRST_FOLLOWS != 0,
                },
                (movers as u32 != 0).then(|| Mover {
                    slot: Slot(movers as u32),
                    to: link(SECOND_TO),
                    follows: kind & SECOND_FOLLOWS != 0,
                }),
            ),
            MOVED => Intent::Moved,
            WAS_THERE => Intent::WasThere,
            WAS_ABSENT => Intent::WasAbsent,
            kind if kind & 0xff == OPENED => {
                Intent::Opened(NodeId(self.in_ticket(own, FIRST_TO)), kind & WRITES != 0)
            }
            RELEASED => Intent::Released,
            SENT_AWAY => Intent::SentAway,
            _ => Intent::None,
        }
    }

    /// Notes what the request on this thread means to do.
    pub(crate) fn intend(&self, intent: Intent) {
        // A request outside of the kernel's (in tests of the engine) is never sent again.
        let Some(own) = OWN.get() else { return };
        let kind = match intent {
            Intent::None => 0,
            Intent::Move(first, second) => {
                let other = second.map_or(0, |mover| mover.slot.0);
                let movers = (u64::from(first.slot.0) << 32) | u64::from(other);
                self.set_in_ticket(own, MOVERS, movers);
                self.set_in_ticket(own, FIRST_TO, first.to.0);
                self.set_in_ticket(own, SECOND_TO, second.map_or(0, |mover| mover.to.0));
                let second = second.is_some_and(|mover| mover.follows);
                let follows =
                    u64::from(first.follows) * FIRST_FOLLOWS + u64::from(second) * SECOND_FOLLOWS;
                MOVE | follows
            }
            Intent::Moved => MOVED,
            Intent::WasThere => WAS_THERE,
            Intent::WasAbsent => WAS_ABSENT,
            Intent::Opened(node, writes) => {
                self.set_in_ticket(own, FIRST_TO, node.0);
                OPENED | if writes { WRITES } else { 0 }
            }
            Intent::Released => RELEASED,
            Intent::SentAway => SENT_AWAY,
        };
        self.set_in_ticket(own, INTENT, kind);
    }

    /// The requests of dead daemons that mean to move something: record, and what moves.
    pub(crate) fn moves(&self) -> Vec<(u16, Intent)> {
        let past = self.tickets.past.lock();
        let of = |own: &u16| (*own, self.intent_of(*own));
        let moves = |(_, intent): &(u16, Intent)| matches!(intent, Intent::Move(..));
        past.values().map(of).filter(moves).collect()
    }

    /// Notes of a request of a dead daemon whether what it meant to move has moved.
    pub(crate) fn settle_move(&self, own: u16, moved: bool) {
        self.set_in_ticket(own, INTENT, if moved { MOVED } else { 0 });
    }

    pub(super) fn links_in_tickets(&self) -> Vec<Link> {
        let mut links = Vec::new();
        let used = 0..self.used_tickets();
        for own in used.filter(|own| self.in_ticket(*own, UNIQUE) != 0) {
            if let Intent::Move(first, second) = self.intent_of(own) {
                links.push(first.to);
                links.extend(second.map(|mover| mover.to));
            }
        }
        links
    }

    /// The words of a record whose request has ended are not looked at any more.
    #[cfg(test)]
    pub(super) fn in_progress(&self) -> usize {
        let busy = |own: &u16| self.in_ticket(*own, UNIQUE) != 0;
        (0..COUNT).filter(busy).count()
    }
}
