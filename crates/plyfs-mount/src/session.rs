//! The life of a mount: assemble, mount, serve, and leave nothing behind.
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use plyfs_fuse::{Ended, Session};
use plyfs_sys::mount::{self, FuseMount, HelperError, MountEntry, Unmount};
use plyfs_sys::process::{
    self, CHILD_ENDED_SIGNAL, PARENT_ENDED_SIGNAL, REPORT_SIGNAL, StopSignals,
};
use plyfs_sys::{Errno, SysError};
use plyfs_union::{Journal, Outlook, Union};

use crate::assemble::{Assembled, Target, assemble};
use crate::control::guards::Guards;
use crate::control::in_force::{self, InForce, Why};
use crate::control::server::Teller;
use crate::daemonize::{Post, Ready};
use crate::error::MountError;
use crate::next;
use crate::outside::{Duties, Outside};
use crate::sandbox;
use crate::spec::{MountSettings, MountSpec};
use crate::state::{MountState, Published, StoredPath, absolute};

/// First reads of large files want more than the 128 KiB the kernel starts with.
const READAHEAD_KIB: u32 = 1024;
/// Exit status of a daemon that did not wait for the users of its mount.
const EXIT_ABORTED: i32 = 1;
/// Share of the descriptor limit that caches may fill, and its bounds.
const FD_SHARE: u64 = 2;
const FD_BUDGET: std::ops::RangeInclusive<u64> = 64..=8192;

/// Changes the flags of the mount that is on the mountpoint; its layers and options stay.
///
/// # Errors
/// Why the kernel does not change it.
pub fn remount(spec: &MountSpec) -> Result<(), MountError> {
    mount::remount(&spec.mountpoint, spec.settings.flags).map_err(|source| MountError::Mount {
        path: spec.mountpoint.clone(),
        source,
    })
}

/// Mounts, or takes over a mount, and serves until the mount is taken away. `at_end` is done
/// once the mount has ended, by a process that still has the paths and privileges of this one.
///
/// # Errors
/// Why the mount was not made or could not be served.
pub fn serve(
    spec: MountSpec,
    ready: &mut Ready,
    post: Post,
    at_end: impl FnOnce() + Send + 'static,
) -> Result<(), MountError> {
    match start(spec, ready, post) {
        Ok(Some((spec, stop, serving, guards))) => {
            go_on(&spec, ready, stop, (serving, guards), Box::new(at_end))
        }
        Err(e) if e.leaves_mount() => Err(e),
        other => {
            at_end();
            other.map(drop)
        }
    }
}

type Started = (MountSpec, StopSignals, Serving, Guards);

/// None when the mount was taken away before the first request.
fn start(mut spec: MountSpec, ready: &Ready, post: Post) -> Result<Option<Started>, MountError> {
    // Before any thread exists, so that every thread inherits it.
    let stop = StopSignals::block()?.and_report()?;
    match process::raise_nofile_limit() {
        Ok(limit) => {
            let budget = (limit / FD_SHARE).clamp(*FD_BUDGET.start(), *FD_BUDGET.end());
            spec.union.fd_budget = usize::try_from(budget).unwrap_or(spec.union.fd_budget);
        }
        Err(e) => tracing::warn!("the limit of open files stays as it is: {e}"),
    }
    let (serving, stand_in) = match post {
        Post::Alone => (begin(&mut spec, None, ready)?, None),
        Post::First(memory, stand_in) => {
            let journal = Journal::begin(memory);
            (begin(&mut spec, Some(journal), ready)?, stand_in)
        }
        Post::Next(memory, mine, stand_in) => {
            let on_trial = Outlook(&memory).is_on_trial();
            let taken = next::take_over(&spec, memory, &mine).map_err(|e| match on_trial {
                true => MountError::NotTakenOver(Box::new(e)),
                false => e,
            });
            (Some(taken?), stand_in)
        }
    };
    Ok(serving.map(|serving| (spec, stop, serving, Guards::new(stand_in))))
}

/// A mount that is about to be served.
pub(crate) struct Serving {
    pub(crate) union: Arc<Union>,
    pub(crate) session: Session,
    pub(crate) mounted: Arc<Mounted>,
    pub(crate) published: Option<Published>,
    pub(crate) state: MountState,
    pub(crate) since: Instant,
    /// Held until the end: locks, and the connection under the number that the journal has.
    pub(crate) held: Vec<OwnedFd>,
}

/// Makes the mount. None when it was taken away before the first request, which for a process in
/// the foreground is an end like any other.
fn begin(
    spec: &mut MountSpec,
    journal: Option<Arc<Journal>>,
    ready: &Ready,
) -> Result<Option<Serving>, MountError> {
    let Assembled {
        config,
        locks,
        target,
        stack_depth,
    } = assemble(spec)?;
    spec.session.stack_depth = stack_depth;
    if config.upper.is_none() {
        spec.settings.flags.insert(mount::MountFlags::RDONLY);
    }
    let state = describe(spec, &target);
    if let Some(journal) = &journal {
        journal.stands_on(stack_depth);
    }
    let union = Union::open_noted(config, journal)?;
    let (dev, mounted) = match connect(target, &spec.settings) {
        Ok(connected) => connected,
        Err(e) => {
            close_unused(&union);
            return Err(e);
        }
    };
    let mounted = Arc::new(mounted);
    // Before the first answer: who sees the mount work can ask about it.
    let published = mounted
        .entry
        .as_ref()
        .and_then(|e| Published::publish(e.dev, &state));
    let mut held = locks;
    if let Some(journal) = union.journal() {
        held.push(next::keep(
            journal,
            &held,
            &dev,
            &mounted,
            published.as_ref(),
        )?);
    }
    let session = match Session::start(union.clone(), dev, spec.session.clone()) {
        Ok(session) => session,
        Err(e) => {
            let gone = mounted.is_gone();
            mounted.leave();
            if let Some(published) = published {
                published.withdraw();
            }
            close_unused(&union);
            if gone && !ready.is_awaited() {
                return Ok(None);
            }
            return Err(match e.kind() {
                std::io::ErrorKind::Unsupported => MountError::Passthrough(e),
                _ => MountError::Session(e),
            });
        }
    };
    if let Some(entry) = &mounted.entry {
        let raised = mount::raise_readahead(entry.dev, READAHEAD_KIB);
        tracing::debug!(raised, "readahead");
    }
    Ok(Some(Serving {
        union,
        session,
        mounted,
        published,
        state,
        since: Instant::now(),
        held,
    }))
}

/// Serves to the end, and leaves nothing behind.
fn go_on(
    spec: &MountSpec,
    ready: &mut Ready,
    stop: StopSignals,
    (serving, guards): (Serving, Guards),
    at_end: Box<dyn FnOnce() + Send>,
) -> Result<(), MountError> {
    // Before anybody can ask who serves.
    if serving.union.journal().is_some_and(|j| !j.may_serve()) {
        return Err(MountError::NotAwaited);
    }
    let Serving {
        union,
        session,
        mounted,
        mut published,
        state,
        since,
        held,
    } = serving;
    let duties = Duties {
        mounted,
        published: published.as_ref().and_then(|p| p.withdrawal().ok()),
        at_end,
    };
    let mut options = in_force::options(spec, &union);
    // The path is not to be had any more in the sandbox.
    let binary = own_binary();
    let (outside, sandbox) = confine(spec, &union, ready, duties)?;
    let outside = Arc::new(outside);
    options.push(sandbox);
    let teller = Arc::new(Teller {
        state,
        data_only: spec.data_only.iter().map(|p| absolute(p)).collect(),
        options,
        read_only: spec.is_read_only(),
        counts: session.counts(),
        union: Arc::downgrade(&union),
        since,
        guards,
        binary,
    });
    if let Some(published) = &mut published {
        published.answer(Arc::clone(&teller));
    }
    watch_signals(stop, Arc::downgrade(&outside), teller);
    if let Some(journal) = union.journal() {
        next::replaceable(journal, &union);
    }
    let served = match ready.announce() {
        Ok(()) => session.run().map_err(MountError::Session),
        Err(e) => Err(e),
    };
    if let Some(journal) = union.journal() {
        journal.has_ended();
    }
    // Who was unmounted leaves alone what is on the mountpoint now: the next mount may be there
    // already, and may even have the number of ours.
    if served
        .as_ref()
        .map_or(true, |ended| *ended == Ended::Aborted)
    {
        outside.leave();
    }
    drop(union);
    drop(held);
    outside.end();
    if let Some(published) = published {
        published.keep_lock();
    }
    served.map(drop)
}

/// The program that this process runs; its path says so where the file has gone meanwhile.
fn own_binary() -> Option<StoredPath> {
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    Some(StoredPath::new(&path))
}

/// Where every daemon goes into the sandbox, the first one and those that take over: before the
/// first thread and the first request.
fn confine(
    spec: &MountSpec,
    union: &Union,
    ready: &mut Ready,
    duties: Duties,
) -> Result<(Outside, InForce), MountError> {
    if !spec.sandbox {
        let off = sandbox::off(Why::Given, "the daemon has the rights of who mounted");
        return Ok((Outside::here(duties), off));
    }
    ready.prepare()?;
    match Outside::start(duties) {
        Ok(outside) => Ok((outside, sandbox::enter(spec, union).in_force())),
        Err((duties, e)) => {
            tracing::warn!("no sandbox, as nothing can be left outside: {e}");
            let off = sandbox::off(Why::Probed, &e.to_string());
            Ok((Outside::here(duties), off))
        }
    }
}

/// A view that was never mounted must not leave the mark of a volatile mount.
fn close_unused(union: &Union) {
    if let Err(e) = union.close() {
        tracing::warn!("the upper stays marked as not closed: {e}");
    }
}

pub(crate) fn describe(spec: &MountSpec, target: &Target) -> MountState {
    let mountpoint = match target {
        Target::Directory { path, .. } => StoredPath::new(path),
        Target::Inherited(_) => StoredPath::new(&spec.mountpoint),
    };
    MountState {
        pid: std::process::id(),
        mountpoint,
        lowers: spec.lowers.iter().map(|p| absolute(p)).collect(),
        upper: spec.upper.as_deref().map(absolute),
        work: spec.work.as_deref().map(absolute),
        restarts: 0,
    }
}

/// Gets the mounted connection.
fn connect(target: Target, settings: &MountSettings) -> Result<(OwnedFd, Mounted), MountError> {
    let (path, dev) = match target {
        Target::Inherited(dev) => {
            return Ok((
                dev,
                Mounted {
                    path: None,
                    entry: None,
                },
            ));
        }
        Target::Directory { path, dev } => (path, dev),
    };
    let what = FuseMount {
        subtype: &settings.subtype,
        source: &settings.source,
        target: &path,
        flags: settings.flags,
        allow_other: settings.allow_other,
        max_read: settings.max_read,
    };
    let direct = match &dev {
        Some(dev) => mount::mount_fuse(dev.as_fd(), &what),
        None => Err(SysError::new("mount", Errno::EPERM)),
    };
    let dev = match (direct, dev) {
        (Ok(()), Some(dev)) => dev,
        // A capability over another namespace does not help: the helper may.
        (Err(e), _) if e.errno() == Errno::EPERM && mount::helper().is_some() => {
            mount::mount_by_helper(&what).map_err(|e| helper_error(e, &path))?
        }
        (Err(source), _) => return Err(MountError::Mount { path, source }),
        (Ok(()), None) => return Err(MountError::NoPrivilege),
    };
    let entry = mount::mount_at(&path).unwrap_or_else(|e| {
        tracing::debug!("mountinfo: {e}");
        None
    });
    Ok((
        dev,
        Mounted {
            path: Some(path),
            entry,
        },
    ))
}

fn helper_error(e: HelperError, path: &std::path::Path) -> MountError {
    match e {
        HelperError::Missing => MountError::NoPrivilege,
        HelperError::Refused(text) => MountError::HelperRefused { text },
        HelperError::Sys(source) => MountError::Mount {
            path: path.to_owned(),
            source,
        },
    }
}

/// Our mount in the tree of mounts.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// None for a connection that somebody else has mounted.
    pub(crate) path: Option<PathBuf>,
    /// None where /proc is not there to tell.
    pub(crate) entry: Option<MountEntry>,
}

impl Mounted {
    /// Whether our mount, and no other, is what is seen on the path.
    fn is_on_top(&self) -> bool {
        let (Some(path), Some(entry)) = (&self.path, &self.entry) else {
            return self.path.is_some();
        };
        mount::mount_at(path).is_ok_and(|now| now.is_some_and(|n| n.id == entry.id))
    }

    /// Whether somebody has unmounted us.
    fn is_gone(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| {
            mount::mounts().is_ok_and(|all| all.iter().all(|m| m.id != entry.id))
        })
    }

    /// Takes the mount away: from now on when it is idle, else as soon as its users are done.
    pub(crate) fn leave(&self) {
        let Some(path) = self.path.as_ref().filter(|_| self.is_on_top()) else {
            return;
        };
        for how in [Unmount::Idle, Unmount::Lazy] {
            let done = match mount::unmount(path, how) {
                Err(e) if e.errno() == Errno::EPERM => {
                    mount::unmount_by_helper(path, how).map_err(|e| format!("{e:?}"))
                }
                other => other.map_err(|e| e.to_string()),
            };
            match done {
                Ok(()) => return,
                Err(e) => tracing::debug!(?how, "not unmounted: {e}"),
            }
        }
        tracing::warn!(path = %path.display(), "the mount could not be taken away");
    }

    /// Ends the connection under its users; false where the kernel cannot be told.
    pub(crate) fn abort(&self) -> bool {
        let entry = self.entry.as_ref();
        entry.is_some_and(|e| mount::abort_connection(e.dev))
    }
}

/// One thread waits for the signals that ask to stop: the first unmounts, which ends the session
/// once the last user is gone; the second does not wait for users.
fn watch_signals(stop: StopSignals, outside: Weak<Outside>, teller: Arc<Teller>) {
    let run = move || {
        let mut asked = false;
        loop {
            match stop.wait() {
                Ok(REPORT_SIGNAL) => {
                    // A daemon has no stderr any more; then the log has it.
                    let report = teller.report();
                    drop(std::io::stderr().write_all(report.as_bytes()));
                    tracing::info!("{}", report.trim_end().replace('\n', "; "));
                    continue;
                }
                Ok(PARENT_ENDED_SIGNAL) => {
                    teller.lost_holder();
                    continue;
                }
                Ok(CHILD_ENDED_SIGNAL) => {
                    teller.lost_child();
                    continue;
                }
                Ok(signal) => tracing::info!(signal, "stopping"),
                Err(e) => {
                    tracing::error!("signals are not watched any more: {e}");
                    return;
                }
            }
            // Without it the mount has ended, and the process is about to.
            let Some(outside) = outside.upgrade() else {
                return;
            };
            outside.leave();
            if asked {
                tracing::warn!(
                    "asked twice to stop: not waiting for those who still use the mount"
                );
                // Where the kernel cannot be told, the end of the process does it.
                if !outside.abort() {
                    std::process::exit(EXIT_ABORTED);
                }
            }
            asked = true;
        }
    };
    if let Err(e) = std::thread::Builder::new()
        .name("signals".into())
        .spawn(run)
    {
        tracing::error!("signals are not watched: {e}");
    }
}
