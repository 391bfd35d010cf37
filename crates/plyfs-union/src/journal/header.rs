//! What a daemon needs to begin with: descriptors by number, and what was agreed with the kernel.
use std::sync::atomic::Ordering;

use plyfs_format::names::XattrNamespace;
use plyfs_layer::Caps;

use super::Journal;

pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = 1;
pub(super) const BROKEN_AT: usize = 2;
const SERVING_AT: usize = 3;
const RESTARTS_AT: usize = 4;
const CAPS_AT: usize = 5;
const PROGRESS_AT: usize = 6;
const SINCE_AT: usize = 7;
const CRASHED_AT: usize = 8;
const HELLO_LEN_AT: usize = 9;
const MOUNT_ID_AT: usize = 10;
/// Records of requests that have ever been used are the first so many.
pub(super) const TICKETS_AT: usize = 11;
const HELD_AT: usize = 12;
/// How often the right to make the next daemon was taken.
const TURN_AT: usize = 13;
const STACK_DEPTH_AT: usize = 14;
/// Records of open files that have ever been used are the first so many.
pub(super) const OPENS_AT: usize = 15;
/// Words 16 to 23 are about changing the program (`super::change`).
pub(super) const CHANGE_AT: usize = 16;
const HELLO_AT: usize = 24;
/// Longest message of a handshake that is kept, in words.
const HELLO_MAX: usize = 32;
const REPLY_LEN_AT: usize = HELLO_AT + HELLO_MAX;
const REPLY_AT: usize = REPLY_LEN_AT + 1;
const KEPT_LEN_AT: usize = REPLY_AT + HELLO_MAX;
const KEPT_AT: usize = KEPT_LEN_AT + 1;
const KEPT_END: usize = 2048;
/// The rest of the header is the path of another program.
pub(super) const PROGRAM_AT: usize = KEPT_END;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The connection to the kernel.
    Connection = 1,
    /// The root of a lower layer, topmost first; then those of data-only layers.
    Lower = 2,
    /// The root of a layer with nothing but data.
    DataOnly = 3,
    /// The root of the upper.
    Upper = 4,
    /// The workdir.
    Work = 5,
    /// A lock on the upper or the workdir.
    Lock = 6,
    /// The state file.
    State = 7,
    /// The control socket.
    Socket = 8,
}

/// A descriptor that the next daemon takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What it is for.
    pub keep: Keep,
    /// Its number.
    pub number: i32,
}

const ALL: [Keep; 8] = [
    Keep::Connection,
    Keep::Lower,
    Keep::DataOnly,
    Keep::Upper,
    Keep::Work,
    Keep::Lock,
    Keep::State,
    Keep::Socket,
];

impl Journal {
    /// Notes descriptors for the next daemon.
    pub fn keep(&self, keep: Keep, numbers: impl IntoIterator<Item = i32>) {
        for number in numbers {
            let at = self.get(KEPT_LEN_AT) as usize;
            if KEPT_AT + at >= KEPT_END {
                return self.break_off("too many layers");
            }
            let number = u64::from(number.cast_unsigned());
            self.set(KEPT_AT + at, ((keep as u64) << 32) | number);
            self.set(KEPT_LEN_AT, at as u64 + 1);
        }
    }

    /// The descriptors that were noted, in that order.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        let len = (self.get(KEPT_LEN_AT) as usize).min(KEPT_END - KEPT_AT);
        let of = |word: u64| {
            let keep = ALL.into_iter().find(|k| *k as u64 == word >> 32)?;
            let number = (word as u32).cast_signed();
            Some(Kept { keep, number })
        };
        (0..len).filter_map(|i| of(self.get(KEPT_AT + i))).collect()
    }

    /// Keeps the first message of the kernel, which no daemon but the first gets.
    pub fn keep_hello(&self, message: &[u8]) {
        if message.len() > HELLO_MAX * 8 {
            return self.break_off("the first message of the kernel is too long");
        }
        self.store_bytes(HELLO_AT, message);
        self.set(HELLO_LEN_AT, message.len() as u64);
    }

    /// The first message of the kernel.
    #[must_use]
    pub fn hello(&self) -> Vec<u8> {
        self.bytes(
            HELLO_AT,
            (self.get(HELLO_LEN_AT) as usize).min(HELLO_MAX * 8),
        )
    }

    /// Keeps the answer to it: what kernel and daemons have agreed on.
    pub fn keep_agreement(&self, reply: &[u8]) {
        if reply.len() > HELLO_MAX * 8 {
            return self.break_off("the answer to the kernel is too long");
        }
        self.store_bytes(REPLY_AT, reply);
        self.set(REPLY_LEN_AT, reply.len() as u64);
    }

    /// The answer to the first message of the kernel.
    #[must_use]
    pub fn agreement(&self) -> Vec<u8> {
        self.bytes(
            REPLY_AT,
            (self.get(REPLY_LEN_AT) as usize).min(HELLO_MAX * 8),
        )
    }

    pub(super) fn store_bytes(&self, at: usize, bytes: &[u8]) {
        for (i, part) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.set(at + i, u64::from_ne_bytes(word));
        }
    }

    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|i| self.get(at + i).to_ne_bytes());
        words.take(len).collect()
    }

    /// The mount answers from now on: whoever is killed now is to be replaced.
    pub fn serves(&self, since: u64) {
        self.set(SINCE_AT, since);
        self.set(SERVING_AT, 1);
    }

    /// Whether [`Journal::serves`] was called by this daemon or one before it.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.get(SERVING_AT) == 1
    }

    /// The mount has ended: nobody is to be replaced any more.
    pub fn has_ended(&self) {
        self.set(SERVING_AT, 0);
    }

    /// Whether the process that looks after the daemon has let go of terminal and directory.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.get(HELD_AT) == 1
    }

    /// When the mount was made, as its first daemon said.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.get(SINCE_AT)
    }

    /// Notes on how many file systems deep the mount stands.
    pub fn stands_on(&self, depth: u32) {
        self.set(STACK_DEPTH_AT, depth.into());
    }

    /// What was noted by [`Journal::stands_on`].
    #[must_use]
    pub fn stack_depth(&self) -> u32 {
        self.get(STACK_DEPTH_AT) as u32
    }

    /// Notes which mount it is, by the kernel's number.
    pub fn is_mount(&self, id: u64) {
        self.set(MOUNT_ID_AT, id);
    }

    /// What was noted by [`Journal::is_mount`].
    #[must_use]
    pub fn mount_id(&self) -> Option<u64> {
        Some(self.get(MOUNT_ID_AT)).filter(|id| *id != 0)
    }

    /// A daemon takes over from one that has died.
    pub fn restarted(&self) {
        self.word(RESTARTS_AT).fetch_add(1, Ordering::AcqRel);
    }

    /// How many daemons have died.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.get(RESTARTS_AT)
    }

    pub(super) fn progress(&self) {
        self.word(PROGRESS_AT).fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what the file system of the upper can do: with a full disk it cannot be tried again.
    pub(crate) fn keep_caps(&self, caps: &Caps) {
        let ns = match caps.xattr {
            None => 0,
            Some(XattrNamespace::Trusted) => 1,
            Some(XattrNamespace::User) => 2,
        };
        let flags = [caps.whiteout, caps.exchange, caps.rename_whiteout];
        let bits = flags
            .iter()
            .fold(1, |all, flag| all << 1 | u64::from(*flag));
        self.set(CAPS_AT, bits << 2 | ns);
    }

    /// What was noted by [`Journal::keep_caps`].
    pub(crate) fn caps(&self) -> Option<Caps> {
        let word = self.get(CAPS_AT);
        let flag = |i: u64| word >> (2 + i) & 1 == 1;
        (word != 0).then(|| Caps {
            xattr: match word & 3 {
                1 => Some(XattrNamespace::Trusted),
                2 => Some(XattrNamespace::User),
                _ => None,
            },
            whiteout: flag(2),
            exchange: flag(1),
            rename_whiteout: flag(0),
        })
    }
}

/// What a process that looks after a daemon sees of its journal, without being one.
#[derive(Debug)]
pub struct Outlook<'a>(pub &'a plyfs_sys::shared::Shared);

impl Outlook<'_> {
    pub(super) fn get(&self, at: usize) -> u64 {
        self.0.words()[at].load(Ordering::Acquire)
    }

    /// Whether a daemon that dies now is to be replaced.
    #[must_use]
    pub fn is_replaceable(&self) -> bool {
        self.get(SERVING_AT) == 1 && self.get(BROKEN_AT) == 0
    }

    /// No daemon is to be replaced any more.
    pub fn ends(&self) {
        self.0.words()[SERVING_AT].store(0, Ordering::Release);
    }

    /// Changes whenever somebody has taken it upon himself to make the next daemon.
    #[must_use]
    pub fn turn(&self) -> u64 {
        self.get(TURN_AT)
    }

    /// Takes the right to make the next daemon; false where somebody else has it since `turn`.
    #[must_use]
    pub fn takes_turn(&self, turn: u64) -> bool {
        super::change::swap(&self.0.words()[TURN_AT], turn, turn + 1)
    }

    /// From now on the daemon is looked after.
    pub fn holds(&self) {
        self.0.words()[HELD_AT].store(1, Ordering::Release);
    }

    /// Grows with the requests that have been answered.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.get(PROGRESS_AT)
    }

    /// Says whether the daemon has ended by a fault of its own and not by somebody's signal.
    pub fn has_crashed(&self, crashed: bool) {
        self.0.words()[CRASHED_AT].store(u64::from(crashed), Ordering::Release);
    }
}

impl Journal {
    /// Whether the last daemon has ended by a fault of its own.
    pub(super) fn last_crashed(&self) -> bool {
        self.get(CRASHED_AT) == 1
    }
}
