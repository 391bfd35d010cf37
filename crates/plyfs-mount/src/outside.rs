//! The process outside of the sandbox: it does what the daemon may not any more.
//!
//! It is a copy of the daemon from before the sandbox, holds nothing open and waits for one of
//! three words. So the daemon can have the mount taken away, and nothing else that needs a path or
//! a privilege. It ends with the daemon.
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use plyfs_sys::confine::root;
use plyfs_sys::process::{self, Child, Fork};
use plyfs_sys::{Errno, SysError, takeover};

use crate::session::Mounted;
use crate::state::Withdrawal;

/// What is to be done.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Take the mount away.
    Leave = b'L',
    /// End the connection under its users.
    Abort = b'A',
    /// Remove what tells of the mount, and do what follows the end.
    End = b'E',
}

const DONE: u8 = b'D';
const FAILED: u8 = b'F';

/// What the end of a mount takes, for whoever does it.
pub(crate) struct Duties {
    pub(crate) mounted: Arc<Mounted>,
    pub(crate) published: Option<Withdrawal>,
    /// Does what whoever mounted wants done after the mount.
    pub(crate) at_end: Box<dyn FnOnce() + Send>,
}

impl Duties {
    fn end(self) {
        if let Some(published) = self.published {
            published.carry_out();
        }
        (self.at_end)();
    }
}

/// Whoever does it: this process, or the one outside.
pub(crate) struct Outside {
    mounted: Arc<Mounted>,
    /// Kept by both processes: it may hold locks.
    duties: Mutex<Option<Duties>>,
    other: Option<(Mutex<UnixStream>, Child)>,
}

impl Outside {
    /// Without a sandbox there is no outside.
    pub(crate) fn here(duties: Duties) -> Self {
        Self {
            mounted: Arc::clone(&duties.mounted),
            duties: Mutex::new(Some(duties)),
            other: None,
        }
    }

    /// Leaves a process outside. The calling one must have a single thread.
    pub(crate) fn start(duties: Duties) -> Result<Self, (Duties, SysError)> {
        let started = UnixStream::pair().map_err(|e| {
            SysError::new("socketpair", Errno::from_raw(e.raw_os_error().unwrap_or(0)))
        });
        let (ours, theirs) = match started {
            Ok(pair) => pair,
            Err(e) => return Err((duties, e)),
        };
        match process::fork() {
            Ok(Fork::Parent(child)) => {
                drop(theirs);
                let other = Some((Mutex::new(ours), child));
                Ok(Self {
                    other,
                    ..Self::here(duties)
                })
            }
            // Nothing of the daemon's is dropped here but by what it wants done.
            Ok(Fork::Child) => std::process::exit(wait_and_serve(theirs, duties)),
            Err(e) => Err((duties, e)),
        }
    }

    /// Takes the mount away: from now on when it is idle, else as soon as its users are done.
    pub(crate) fn leave(&self) {
        if self.ask(Word::Leave).is_none() {
            self.mounted.leave();
        }
    }

    /// Ends the connection under its users; whether the kernel could be told.
    pub(crate) fn abort(&self) -> bool {
        self.ask(Word::Abort)
            .unwrap_or_else(|| self.mounted.abort())
    }

    /// The mount has ended.
    pub(crate) fn end(&self) {
        let Some((_, child)) = &self.other else {
            let mut duties = self.duties.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(duties) = duties.take() {
                duties.end();
            }
            return;
        };
        // Where nobody answers, what tells of the mount stays, as after a kill.
        self.ask(Word::End);
        if let Err(e) = child.wait() {
            tracing::debug!("the process outside: {e}");
        }
    }

    /// What the other process answers; None where there is none.
    fn ask(&self, word: Word) -> Option<bool> {
        let (socket, _) = self.other.as_ref()?;
        let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = [FAILED];
        let asked = socket
            .write_all(&[word as u8])
            .and_then(|()| socket.read_exact(&mut answer));
        if let Err(e) = asked {
            tracing::warn!("the process outside of the sandbox does not answer: {e}");
            return None;
        }
        Some(answer == [DONE])
    }
}

/// In the process outside. Answers the exit status.
fn wait_and_serve(mut socket: UnixStream, duties: Duties) -> i32 {
    let alone = process::ignore_signals()
        .and_then(|()| process::set_name(c"plyfs-outside"))
        .and_then(|()| process::open_null())
        .and_then(|null| process::release_stdio(&null))
        .and_then(|()| root::hold_nothing_but(takeover::number(&socket)));
    // It must not keep the connection open, or the mount would live on without a daemon.
    if alone.is_err() {
        return 1;
    }
    let mut word = [0];
    while socket.read_exact(&mut word).is_ok() {
        let done = match word[0] {
            b'L' => {
                duties.mounted.leave();
                true
            }
            b'A' => duties.mounted.abort(),
            b'E' => {
                duties.end();
                // Who waits for the answer waits for the end of this process besides.
                return i32::from(socket.write_all(&[DONE]).is_err());
            }
            _ => return 1,
        };
        let answer = if done { DONE } else { FAILED };
        if socket.write_all(&[answer]).is_err() {
            return 1;
        }
    }
    // The daemon has ended without a word: another one may go on, with a process of its own.
    0
}
