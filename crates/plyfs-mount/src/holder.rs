//! The processes behind a daemon: they share its descriptors, wait for its end, and one makes the next.
//!
//! The holder is the parent of the daemon and the stand-in its child, which does the same where
//! the holder has ended before. Both have one thread and do nothing of their own, so there is little
//! that could end them. See `plyfs_union::restart_design`.
use std::collections::{BTreeSet, VecDeque};
use std::io::PipeWriter;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use plyfs_sys::shared::Shared;
use plyfs_sys::takeover::{self, End, Side, Twin};
use plyfs_sys::{SysError, process};
use plyfs_union::{Journal, Outlook, Verdict};

use crate::daemonize::{Post, Ready, run_child};
use crate::error::MountError;
use crate::plan::Plan;
use crate::successor;

/// Exit status of a process whose main thread has panicked.
const PANICKED: i32 = 101;
const SIGKILL: i32 = 9;
/// So many daemons may die in so much time without having answered one request.
const MAX_DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(10);
/// How long a process that cannot be made is tried again.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// How often a stand-in looks whether the holder does its work.
const LOOK: Duration = Duration::from_millis(5);

/// What a process that looks after daemons has, and each daemon it makes.
pub(crate) struct Hold<F> {
    /// The memory of the journal.
    pub(crate) shared: Shared,
    /// The descriptors that belong to this process and not to a daemon.
    pub(crate) mine: BTreeSet<i32>,
    pub(crate) plan: Plan,
    pub(crate) serve: F,
}

/// Which daemon of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    Next,
}

/// Runs `serve` in a daemon of its own and looks after it; answers the exit status.
pub(crate) fn hold(
    writer: PipeWriter,
    plan: Plan,
    serve: impl FnOnce(&mut Ready, Post) -> Result<(), MountError>,
) -> i32 {
    match prepare(&writer) {
        Ok((shared, mine)) => {
            let hold = Hold {
                shared,
                mine,
                plan,
                serve,
            };
            begin(writer, hold, Turn::First)
        }
        Err(e) => {
            tracing::warn!("the daemon will not be replaced if it dies: {e}");
            run_child(Some(writer), Post::Alone, serve)
        }
    }
}

/// Makes a daemon, and looks after it.
pub(crate) fn begin<F>(writer: PipeWriter, hold: Hold<F>, turn: Turn) -> i32
where
    F: FnOnce(&mut Ready, Post) -> Result<(), MountError>,
{
    match takeover::split() {
        Ok(Side::Child) => std::process::exit(be_daemon(Some(writer), hold, turn)),
        Ok(Side::Parent(daemon)) => {
            // It is the daemon's now, which closes it in the table that both have.
            std::mem::forget(writer);
            std::process::exit(look_after(Some(daemon), hold))
        }
        Err(e) if turn == Turn::First => {
            tracing::warn!("the daemon will not be replaced if it dies: {e}");
            run_child(Some(writer), Post::Alone, hold.serve)
        }
        Err(e) => {
            tracing::error!("no daemon can be made: {e}");
            1
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

/// In the new process: it has a stand-in for its holder, and serves. Answers the exit status.
fn be_daemon<F>(writer: Option<PipeWriter>, mut hold: Hold<F>, turn: Turn) -> i32
where
    F: FnOnce(&mut Ready, Post) -> Result<(), MountError>,
{
    if let Err(e) = process::set_name(c"plyfs") {
        tracing::debug!("the daemon has the name of its holder: {e}");
    }
    if let Err(e) = process::tell_parents_end() {
        tracing::debug!("the end of the holder will not be noticed: {e}");
    }
    let known = Known {
        daemon: process::id(),
        holder: process::parent(),
        turn: Outlook(&hold.shared).turn(),
    };
    let stand_in = match takeover::split() {
        Ok(Side::Child) => {
            std::mem::forget(writer);
            std::process::exit(stand_by(known, hold))
        }
        Ok(Side::Parent(stand_in)) => Some(stand_in),
        Err(e) => {
            tracing::warn!("the holder has no stand-in: {e}");
            None
        }
    };
    // In this process the pipe is no descriptor that a dead daemon has left.
    hold.mine.extend(writer.as_ref().map(takeover::number));
    let post = match turn {
        Turn::First => Post::First(hold.shared, stand_in),
        Turn::Next => Post::Next(hold.shared, hold.mine, stand_in),
    };
    run_child(writer, post, hold.serve)
}

/// Answers the exit status. Nothing is dropped then: what this process has open the daemon has had
/// open too, in the same table, and may have closed.
fn look_after<F>(daemon: Option<Twin>, hold: Hold<F>) -> i32
where
    F: FnOnce(&mut Ready, Post) -> Result<(), MountError>,
{
    let kept = ManuallyDrop::new(hold);
    match wait_for_deaths(daemon, &kept) {
        Ended::With(status) => status,
        // This is the new process, which has copies of its own.
        Ended::Replaced => {
            let hold = ManuallyDrop::into_inner(kept);
            std::process::exit(be_daemon(None, hold, Turn::Next))
        }
    }
}

/// What a stand-in knows of the daemon it was made by.
#[derive(Debug, Clone, Copy)]
struct Known {
    daemon: i32,
    holder: i32,
    turn: u64,
}

/// In the stand-in: it waits for the end of the daemon, and does the work of the holder then if
/// that has ended. Answers the exit status.
fn stand_by<F>(known: Known, hold: Hold<F>) -> i32
where
    F: FnOnce(&mut Ready, Post) -> Result<(), MountError>,
{
    let hold = ManuallyDrop::new(hold);
    detach(c"plyfs-stand-in");
    // From then on what others open or close in the table is none of its business.
    let waited = process::wait_for_end_of(known.daemon).and_then(|()| takeover::part());
    if let Err(e) = waited {
        tracing::error!("the stand-in of the holder gives up: {e}");
        return 1;
    }
    let outlook = Outlook(&hold.shared);
    while process::is_alive(known.holder) {
        if outlook.turn() != known.turn || !outlook.is_replaceable() || outlook.is_on_trial() {
            return 0;
        }
        std::thread::sleep(LOOK);
    }
    if outlook.is_on_trial() || !outlook.is_replaceable() || !outlook.takes_turn(known.turn) {
        return 0;
    }
    tracing::warn!("daemon and holder have died; the stand-in is the holder now");
    look_after(None, ManuallyDrop::into_inner(hold))
}

fn detach(name: &std::ffi::CStr) {
    let detached = process::ignore_signals()
        .and_then(|()| process::leave_session())
        .and_then(|()| process::set_name(name));
    if let Err(e) = detached {
        tracing::debug!("{}: {e}", name.to_string_lossy());
    }
}

/// How waiting for daemons came to an end.
enum Ended {
    /// In the holder: the status to exit with.
    With(i32),
    /// In a new process, which takes over.
    Replaced,
}

/// Waits for the end of each daemon and makes the next; without a daemon one has died just now.
fn wait_for_deaths<F>(mut daemon: Option<Twin>, hold: &Hold<F>) -> Ended {
    detach(c"plyfs-holder");
    let outlook = Outlook(&hold.shared);
    outlook.holds();
    let mut deaths = Deaths::default();
    loop {
        let turn = outlook.turn();
        let end = match &daemon {
            None => End::Killed(SIGKILL),
            Some(daemon) => match daemon.wait() {
                Ok(end) => end,
                Err(e) => {
                    tracing::error!("nobody looks after the daemon any more: {e}");
                    return Ended::With(1);
                }
            },
        };
        // Whoever has no daemon has the turn already.
        let mine = daemon.is_none() || outlook.takes_turn(turn);
        if outlook.is_on_trial() || !mine {
            return Ended::With(status_of(end));
        }
        if end == End::Killed(SIGSYS) && cfg!(debug_assertions) {
            tracing::error!("the daemon made a system call that the sandbox does not know");
            outlook.ends();
            return Ended::With(status_of(end));
        }
        let program = outlook.takes_program();
        match end {
            End::Exited(code) if code != PANICKED && program.is_none() => {
                outlook.ends();
                return Ended::With(code);
            }
            _ if !outlook.is_replaceable() => return Ended::With(status_of(end)),
            _ => {}
        }
        match program {
            Some(program) => match successor::begin(&program, hold) {
                Ok(()) => return Ended::With(0),
                Err(e) => {
                    tracing::error!(
                        program = %program.display(),
                        "not upgraded, the program from before goes on: {e}"
                    );
                    outlook.goes_back(Verdict::from(&e));
                }
            },
            None if deaths.are_too_many(outlook.progress()) => {
                tracing::error!(
                    "{MAX_DEATHS} daemons have died within {} s without answering a request, the last \
                     one by {end}: the mount is given up",
                    DEATHS_WITHIN.as_secs()
                );
                outlook.ends();
                return Ended::With(status_of(end));
            }
            None => {
                outlook.has_crashed(!was_killed(end));
                tracing::warn!("the daemon has died by {end}; another one takes over");
            }
        }
        match split() {
            Ok(Side::Parent(next)) => daemon = Some(next),
            Ok(Side::Child) => return Ended::Replaced,
            Err(e) => {
                tracing::error!("no other daemon can be made, the mount is given up: {e}");
                outlook.ends();
                return Ended::With(status_of(end));
            }
        }
    }
}

/// What a debug build dies by at the wall of its sandbox. It is not replaced, so that tests see it.
const SIGSYS: i32 = 31;

/// Whether somebody has ended the daemon, an operator or the kernel that needs memory.
fn was_killed(end: End) -> bool {
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
