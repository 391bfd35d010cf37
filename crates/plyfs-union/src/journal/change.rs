//! Changing the program that serves: asked for by a daemon, carried out by whoever looks after it.
//!
//! The daemon notes the path and ends. The holder starts the other program on trial. What decides is
//! one word that the first daemon of the other program and the holder both want to change: the
//! daemon when it is about to serve, the holder when it gives up waiting. Only one of them can.
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::header::{CHANGE_AT, Outlook, PROGRAM_AT};
use super::{HEADER, Journal};

const STATE_AT: usize = CHANGE_AT;
const CHANGES_AT: usize = CHANGE_AT + 1;
const FAILED_AT: usize = CHANGE_AT + 2;
const LEN_AT: usize = CHANGE_AT + 3;

/// Nothing is to be changed.
const NONE: u64 = 0;
/// A path is noted; the daemon ends.
const WANTED: u64 = 1;
/// The other program is on trial.
const TRIED: u64 = 2;
/// The trial is over: nothing of the other program is to serve.
const GIVEN_UP: u64 = 3;

/// How the last change went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The program could not be started.
    NotStarted,
    /// It ended, or did not begin to serve in time.
    DidNotServe,
}

impl Journal {
    /// Notes that `program` is to serve from now on: the daemon is about to end. False where the
    /// path has no room.
    #[must_use]
    pub fn change_to(&self, program: &Path) -> bool {
        let bytes = program.as_os_str().as_bytes();
        if bytes.len() > (HEADER - PROGRAM_AT) * 8 {
            return false;
        }
        self.store_bytes(PROGRAM_AT, bytes);
        self.set(LEN_AT, bytes.len() as u64);
        self.set(FAILED_AT, 0);
        self.set(STATE_AT, WANTED);
        true
    }

    /// Whether this daemon is the first of another program.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.get(STATE_AT) == TRIED
    }

    /// The daemon begins to serve; false where nobody waits for it any more and it must not. Ends a
    /// trial.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        match self.get(STATE_AT) {
            NONE => true,
            TRIED => {
                let free = swap(self.word(STATE_AT), TRIED, NONE);
                if free {
                    self.word(CHANGES_AT).fetch_add(1, Ordering::AcqRel);
                }
                free
            }
            _ => false,
        }
    }

    /// How often the program has been changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.get(CHANGES_AT)
    }

    /// How the last change went wrong, if it did.
    #[must_use]
    pub fn change_failed(&self) -> Option<Verdict> {
        match self.get(FAILED_AT) {
            0 => None,
            1 => Some(Verdict::NotStarted),
            _ => Some(Verdict::DidNotServe),
        }
    }
}

pub(super) fn swap(word: &AtomicU64, from: u64, to: u64) -> bool {
    word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

impl Outlook<'_> {
    fn state(&self) -> &AtomicU64 {
        &self.0.words()[STATE_AT]
    }

    /// The program that a daemon has asked for before it ended. It is on trial from now on.
    #[must_use]
    pub fn takes_program(&self) -> Option<PathBuf> {
        if !swap(self.state(), WANTED, TRIED) {
            return None;
        }
        let len = (self.get(LEN_AT) as usize).min((HEADER - PROGRAM_AT) * 8);
        let words = (0..len.div_ceil(8)).flat_map(|i| self.get(PROGRAM_AT + i).to_ne_bytes());
        let bytes: Vec<u8> = words.take(len).collect();
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }

    /// Whether a program is on trial.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.get(STATE_AT) == TRIED
    }

    /// Nothing of the program on trial may serve any more; false where it does already.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        swap(self.state(), TRIED, GIVEN_UP)
    }

    /// A daemon of the program from before is to serve again. To be called when nothing of the
    /// other is left.
    pub fn goes_back(&self, why: Verdict) {
        let why = match why {
            Verdict::NotStarted => 1,
            Verdict::DidNotServe => 2,
        };
        self.0.words()[FAILED_AT].store(why, Ordering::Release);
        self.state().store(NONE, Ordering::Release);
    }
}
