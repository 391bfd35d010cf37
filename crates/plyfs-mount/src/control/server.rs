//! The daemon's side: one thread that answers, one question a connection.
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use plyfs_fuse::RequestCounts;
use plyfs_sys::{die, process, socket, usage};
use plyfs_union::{Journal, Union, Verdict};

use crate::control::guards::Guards;
use crate::control::in_force::InForce;
use crate::control::status::{self, CopyUps, Process, Status};
use crate::control::{Answer, MAX_LINE, Program, Question, VERSION};
use crate::state::{MountState, StoredPath};

/// How long an asker may take to write and read. One at a time is served, so this is also what a
/// silent one can cost the next; only the owner and root get that far.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a failure to accept (no descriptors left), so that the thread does not spin.
const PAUSE: Duration = Duration::from_millis(200);
/// What an id outside of the daemon's user namespace looks like (the kernel's overflowuid).
const OVERFLOW_UID: u32 = 65534;

/// What a daemon can tell. It holds the view weakly: the view's end is not the socket's business.
#[derive(Debug)]
pub struct Teller {
    /// What does not change.
    pub state: MountState,
    /// Layers with nothing but data.
    pub data_only: Vec<StoredPath>,
    /// What is in force.
    pub options: Vec<InForce>,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// The counters of the connection.
    pub counts: Arc<RequestCounts>,
    /// The view.
    pub union: Weak<Union>,
    /// When the mount was made.
    pub since: Instant,
    /// Who makes the next daemon.
    pub guards: Guards,
    /// The program that this process runs.
    pub binary: Option<StoredPath>,
}

impl Teller {
    /// What SIGUSR1 makes fuse-overlayfs print, and its readers look for, then what there is more.
    #[must_use]
    pub fn report(&self) -> String {
        let Some(s) = self.status() else {
            return String::new();
        };
        let mut text = format!("# INODES: {}\n# NODES: {}\n", s.inodes, s.references);
        for r in &s.requests {
            text.push_str(&format!("# REQUESTS {}: {}\n", r.kind, r.count));
        }
        text
    }

    /// The holder has ended.
    pub fn lost_holder(&self) {
        if self.guards.lost_holder() {
            tracing::warn!("the holder has ended; its stand-in replaces this daemon if it dies");
        } else {
            self.is_unprotected();
        }
    }

    /// A child has ended, which may be the stand-in of the holder.
    pub fn lost_child(&self) {
        if !self.guards.lost_child() {
            return;
        }
        if self.guards.count() == 0 {
            self.is_unprotected();
        } else {
            tracing::warn!("the stand-in of the holder has ended");
        }
    }

    /// Nobody takes over any more if this process dies.
    fn is_unprotected(&self) {
        if let Some(union) = self.union.upgrade()
            && let Some(journal) = union.journal()
        {
            journal.is_of_no_use("the processes that would replace it have ended");
        }
    }

    /// Notes that another program is to serve. This process must end then.
    fn upgrade(&self, to: Option<&Program>) -> Result<(), String> {
        let to = to.ok_or("upgrade needs a program")?;
        let union = self.union.upgrade();
        let journal = union.as_ref().and_then(|u| u.journal());
        let journal = journal.filter(|j| j.is_whole() && j.has_served()).ok_or(
            "its daemon cannot be replaced (plyfs status says why), so there is no upgrade: mount it anew",
        )?;
        if to.handover != Journal::VERSION {
            return Err(format!(
                "the other program takes over mounts of version {}, this one is of version {}: mount it anew",
                to.handover,
                Journal::VERSION
            ));
        }
        let path = to.path.to_path();
        if !path.is_absolute() || !journal.change_to(&path) {
            return Err("the path of the program is not absolute, or too long".to_owned());
        }
        Ok(())
    }

    /// Everything about the mount now; None once the view has ended.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let union = self.union.upgrade()?;
        let stats = union.stats();
        Some(Status {
            plyfs: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.since.elapsed().as_secs_f64(),
            mount: self.state.clone(),
            data_only: self.data_only.clone(),
            read_only: self.read_only,
            options: self.options.clone(),
            requests: status::requests(&self.counts),
            copy_ups: CopyUps::from(&stats),
            caches: stats.caches.into_iter().map(Into::into).collect(),
            inodes: stats.inodes,
            references: stats.references,
            opens: union.passes_through().then(|| union.open_counts().into()),
            process: Process::from(usage::of_this_process()),
            replaceable: union.journal().is_some_and(Journal::is_whole),
            holders: union.journal().map_or(0, |_| self.guards.count()),
            binary: self.binary.clone(),
            handover: Journal::VERSION,
            upgrades: union.journal().map_or(0, Journal::changes),
            upgrade_failed: union.journal().and_then(Journal::change_failed).map(|v| {
                let text = match v {
                    Verdict::NotStarted => "the other program could not be started",
                    Verdict::DidNotServe => "the other program did not serve",
                };
                text.to_owned()
            }),
        })
    }
}

/// A bound control socket that does not answer yet.
#[derive(Debug)]
pub struct Socket(UnixListener);

impl Socket {
    /// Binds the socket `path` for the owner alone. It gets its name when it has its mode, and
    /// takes the place of what a dead daemon left there.
    ///
    /// # Errors
    /// What `bind(2)` and `rename(2)` answer; the path is too long for a socket (108 bytes).
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        let early = path.with_extension(format!("new.{}", std::process::id()));
        match std::fs::remove_file(&early) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&early)?;
        let named = std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&early, path));
        if let Err(e) = named {
            drop(std::fs::remove_file(&early));
            return Err(e);
        }
        Ok(Self(listener))
    }

    /// Goes on with the socket of a daemon that died. Who has asked meanwhile waits in its queue.
    #[must_use]
    pub fn take_over(socket: OwnedFd) -> Self {
        Self(UnixListener::from(socket))
    }

    /// Answers in a thread of its own until the process ends.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn serve(self, teller: Arc<Teller>) -> std::io::Result<()> {
        let run = move || {
            for asker in self.0.incoming() {
                match asker {
                    Ok(asker) => answer(&asker, &teller),
                    Err(e) => {
                        tracing::debug!("control socket: {e}");
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("control".into());
        thread.spawn(run).map(drop)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn answer(asker: &UnixStream, teller: &Teller) {
    let done = asker
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| asker.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| {
            let answer = may_ask(asker)
                .and_then(|()| read_question(asker))
                .map_or_else(
                    |error| Answer {
                        error: Some(error),
                        ..Answer::default()
                    },
                    |question| reply_to(&question, teller),
                );
            let ends = answer.upgrading;
            let mut line = serde_json::to_vec(&Answer {
                version: VERSION,
                ..answer
            })?;
            line.push(b'\n');
            let mut asker = asker;
            let told = asker.write_all(&line);
            if ends {
                // It is noted, so it must come: whether the asker has heard of it or not.
                process::end_at_once();
            }
            told
        });
    if let Err(e) = done {
        tracing::debug!("control socket: an asker got no answer: {e}");
    }
}

/// The mode of the socket keeps others out already; this also holds where a directory was moved
/// or a descriptor handed on. An id that this user namespace has no name for got past the mode
/// only as root of an outer one.
fn may_ask(asker: &UnixStream) -> Result<(), String> {
    let uid = socket::user_of(&asker).map_err(|e| e.to_string())?;
    let outer_root = uid == OVERFLOW_UID && !process::in_initial_user_ns();
    if uid == 0 || uid == process::euid() || outer_root {
        Ok(())
    } else {
        Err(format!(
            "only the owner of the mount and root may ask, not user {uid}"
        ))
    }
}

fn read_question(asker: &UnixStream) -> Result<Question, String> {
    let mut line = Vec::new();
    BufReader::new(asker.take(MAX_LINE))
        .read_until(b'\n', &mut line)
        .map_err(|e| format!("the question did not arrive: {e}"))?;
    serde_json::from_slice(&line).map_err(|e| format!("the question is not understood: {e}"))
}

fn reply_to(question: &Question, teller: &Teller) -> Answer {
    let mut answer = Answer::default();
    match question.command.as_str() {
        _ if question.version != VERSION => {
            let asked = question.version;
            answer.error = Some(format!("version {asked} is not spoken here, but {VERSION}"));
        }
        "status" => match teller.status() {
            Some(status) => answer.status = Some(Box::new(status)),
            None => answer.error = Some("the mount is just ending".to_owned()),
        },
        "upgrade" => match teller.upgrade(question.program.as_ref()) {
            Ok(()) => answer.upgrading = true,
            Err(e) => answer.error = Some(e),
        },
        // `die REQUEST STEPS`, for the tests of debug builds.
        other if cfg!(debug_assertions) && other.starts_with("die ") => {
            let words: Vec<&str> = other.split(' ').collect();
            if let [_, request, steps] = words[..] {
                die::arm(request, steps.parse().unwrap_or(0));
            }
        }
        other => answer.error = Some(format!("unknown command {other:?}; known: status, upgrade")),
    }
    answer
}
