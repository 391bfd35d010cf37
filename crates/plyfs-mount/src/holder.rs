//! The process behind a daemon: it shares its descriptors, waits for its end, and makes the next one.
//!
//! It has one thread and does nothing of its own, so there is little that could end it. See
//! `plyfs_union::restart_design`.
use std::collections::{BTreeSet, VecDeque};
use std::io::PipeWriter;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use plyfs_sys::shared::Shared;
use plyfs_sys::takeover::{self, End, Side, Twin};
use plyfs_sys::{SysError, process};
use plyfs_union::{Journal, Outlook};

use crate::daemonize::{Post, Ready, run_child};
use crate::error::MountError;

/// Exit status of a process whose main thread has panicked.
const PANICKED: i32 = 101;
/// So many daemons may die in so much time without having answered one request.
const MAX_DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(10);
/// How long a process that cannot be made is tried again.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Runs `serve` in a daemon of its own and looks after it; answers the exit status.
pub(crate) fn hold(
    writer: PipeWriter,
    serve: impl FnOnce(&mut Ready, Post) -> Result<(), MountError>,
) -> i32 {
    let (shared, mine) = match prepare(&writer) {
        Ok(prepared) => prepared,
        Err(e) => {
            tracing::warn!("the daemon will not be replaced if it dies: {e}");
            return run_child(Some(writer), Post::Alone, serve);
        }
    };
    match takeover::split() {
        Ok(Side::Child) => {
            become_daemon();
            std::process::exit(run_child(Some(writer), Post::First(shared), serve))
        }
        Ok(Side::Parent(daemon)) => {
            // It is the daemon's now, which closes it in the table that both have.
            std::mem::forget(writer);
            std::process::exit(look_after(daemon, shared, mine, serve))
        }
        Err(e) => {
            tracing::warn!("the daemon will not be replaced if it dies: {e}");
            run_child(Some(writer), Post::Alone, serve)
        }
    }
}

/// Memory for the journal, and the descriptors that belong to this process and not to a daemon.
fn prepare(writer: &PipeWriter) -> Result<(Shared, BTreeSet<i32>), SysError> {
    let shared = Journal::memory()?;
    let mut mine = takeover::open_now()?;
    mine.remove(&takeover::number(writer));
    Ok((shared, mine))
}

/// A daemon is called as one, and says in its log when nobody looks after it any more.
fn become_daemon() {
    if let Err(e) = process::set_name(c"plyfs") {
        tracing::debug!("the daemon has the name of its holder: {e}");
    }
    if let Err(e) = process::tell_parents_end() {
        tracing::debug!("the end of the holder will not be noticed: {e}");
    }
}

/// Answers the exit status. Nothing is dropped then: what this process has open the daemon has had
/// open too, in the same table, and may have closed.
fn look_after(
    daemon: Twin,
    shared: Shared,
    mine: BTreeSet<i32>,
    serve: impl FnOnce(&mut Ready, Post) -> Result<(), MountError>,
) -> i32 {
    let kept = ManuallyDrop::new((shared, mine, serve));
    match wait_for_deaths(daemon, &kept.0) {
        Ended::With(status) => status,
        Ended::Replaced => {
            become_daemon();
            // This is the new process, which has copies of its own.
            let (shared, mine, serve) = ManuallyDrop::into_inner(kept);
            std::process::exit(run_child(None, Post::Next(shared, mine), serve))
        }
    }
}

/// How waiting for daemons came to an end.
enum Ended {
    /// In the holder: the status to exit with.
    With(i32),
    /// In a new process, which takes over.
    Replaced,
}

fn wait_for_deaths(mut daemon: Twin, shared: &Shared) -> Ended {
    let stay = process::ignore_signals()
        .and_then(|()| process::leave_session())
        .and_then(|()| process::set_name(c"plyfs-holder"));
    if let Err(e) = stay {
        tracing::debug!("holder: {e}");
    }
    Outlook(shared).holds();
    let mut deaths = Deaths::default();
    loop {
        let end = match daemon.wait() {
            Ok(End::Exited(code)) if code != PANICKED => return Ended::With(code),
            Ok(end) => end,
            Err(e) => {
                tracing::error!("nobody looks after the daemon any more: {e}");
                return Ended::With(1);
            }
        };
        let outlook = Outlook(shared);
        if !outlook.is_replaceable() {
            return Ended::With(status_of(end));
        }
        if deaths.are_too_many(outlook.progress()) {
            tracing::error!(
                "{MAX_DEATHS} daemons have died within {} s without answering a request, the last \
                 one by {end}: the mount is given up",
                DEATHS_WITHIN.as_secs()
            );
            return Ended::With(status_of(end));
        }
        outlook.has_crashed(!was_killed(end));
        tracing::warn!("the daemon has died by {end}; another one takes over");
        match split() {
            Ok(Side::Parent(next)) => daemon = next,
            Ok(Side::Child) => return Ended::Replaced,
            Err(e) => {
                tracing::error!("no other daemon can be made, the mount is given up: {e}");
                return Ended::With(status_of(end));
            }
        }
    }
}

/// Whether somebody has ended the daemon, an operator or the kernel that needs memory.
fn was_killed(end: End) -> bool {
    const SIGKILL: i32 = 9;
    end == End::Killed(SIGKILL)
}

fn status_of(end: End) -> i32 {
    match end {
        End::Exited(code) => code,
        End::Killed(signal) => 128 + signal,
    }
}

/// Waits for room where there are too many processes.
fn split() -> Result<Side, SysError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match takeover::split() {
            Err(_) if Instant::now() < until => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// The last deaths: when, and how many requests had been answered until then.
#[derive(Debug, Default)]
struct Deaths(VecDeque<(Instant, u64)>);

impl Deaths {
    fn are_too_many(&mut self, progress: u64) -> bool {
        let now = Instant::now();
        self.0.push_back((now, progress));
        if self.0.len() > MAX_DEATHS {
            self.0.pop_front();
        }
        let first = self.0.front().filter(|_| self.0.len() == MAX_DEATHS);
        first.is_some_and(|(at, then)| now - *at < DEATHS_WITHIN && *then == progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_that_answer_are_replaced_for_ever() {
        let mut deaths = Deaths::default();
        assert!((0..100).all(|answered| !deaths.are_too_many(answered)));
        let again: Vec<bool> = (0..6).map(|_| deaths.are_too_many(99)).collect();
        assert_eq!(again, [false, false, false, true, true, true]);
    }
}
