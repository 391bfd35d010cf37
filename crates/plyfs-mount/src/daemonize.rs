//! Running in the background: the parent waits until the mount answers or the reason why not.
use std::fs::File;
use std::io::{PipeWriter, Read, Write};

use std::collections::BTreeSet;

use plyfs_sys::process::{self, Child, Fork};
use plyfs_sys::shared::Shared;
use plyfs_sys::takeover::Twin;
use plyfs_sys::{Errno, SysError};

use crate::error::MountError;
use crate::holder;
use crate::plan::Plan;

/// First byte of the daemon's message when the mount answers.
const READY: u8 = b'R';
/// First byte of the daemon's message when it gives up; the reason follows.
pub(crate) const FAILED: u8 = b'E';

/// What a daemon is to do.
#[derive(Debug)]
pub enum Post {
    /// Make the mount and serve it; nobody takes over.
    Alone,
    /// Make the mount and serve it, noting in this memory what the next one needs. Beside the parent
    /// process there is a child that makes the next one, if the parent has ended.
    First(Shared, Option<Twin>),
    /// Go on where one that died has left off. The descriptors that were open before it are this
    /// process's own.
    Next(Shared, BTreeSet<i32>, Option<Twin>),
}

/// Tells whoever waits that the mount answers.
#[derive(Debug)]
pub struct Ready {
    pipe: Option<PipeWriter>,
    null: Option<File>,
}

impl Ready {
    /// For a process that stays in the foreground: nobody waits.
    #[must_use]
    pub fn nobody_waits() -> Self {
        Self {
            pipe: None,
            null: None,
        }
    }

    /// Whether a parent process waits for the mount.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.pipe.is_some()
    }

    /// Opens what letting go takes, while there are paths.
    ///
    /// # Errors
    /// When /dev/null cannot be opened.
    pub fn prepare(&mut self) -> Result<(), MountError> {
        if self.pipe.is_some() {
            self.null = Some(process::open_null()?);
        }
        Ok(())
    }

    /// Lets go of terminal, working directory and standard descriptors, then lets the parent go.
    ///
    /// # Errors
    /// When the parent is gone: whoever wanted the mount has given up on it.
    pub fn announce(&mut self) -> Result<(), MountError> {
        if self.pipe.is_none() {
            return Ok(());
        }
        if self.null.is_none() {
            self.prepare()?;
        }
        process::leave_session()?;
        if let Some(null) = self.null.take() {
            process::release_stdio(&null)?;
        }
        // From here on nobody reads what the daemon has to say.
        let Some(mut pipe) = self.pipe.take() else {
            return Ok(());
        };
        pipe.write_all(&[READY])
            .map_err(|e| sys("write", &e).into())
    }
}

fn sys(call: &'static str, e: &std::io::Error) -> SysError {
    SysError::new(call, Errno::from_raw(e.raw_os_error().unwrap_or(0)))
}

/// Forks; the child runs `serve` and ends with it, the parent returns once the mount answers. With a
/// plan the child looks after a daemon that runs `serve`, and makes another when it dies.
///
/// # Errors
/// Why the mount was not made, as the child tells it.
pub fn in_background(
    plan: Option<Plan>,
    serve: impl FnOnce(&mut Ready, Post) -> Result<(), MountError>,
) -> Result<(), MountError> {
    let (mut reader, writer) = std::io::pipe().map_err(|e| sys("pipe2", &e))?;
    match process::fork()? {
        Fork::Parent(child) => {
            drop(writer);
            let mut message = Vec::new();
            wait_for_message(&mut reader, &mut message).map_err(|e| sys("read", &e))?;
            verdict(&message, &child)
        }
        Fork::Child => {
            drop(reader);
            let code = match plan {
                Some(plan) => holder::hold(writer, plan, serve),
                None => run_child(Some(writer), Post::Alone, serve),
            };
            std::process::exit(code);
        }
    }
}

/// Reads until the daemon is ready, or to the end.
fn wait_for_message(reader: &mut impl Read, message: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buf = [0u8; 1024];
    loop {
        match reader.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => message.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if message.first() == Some(&READY) {
            return Ok(());
        }
    }
}

fn verdict(message: &[u8], child: &Child) -> Result<(), MountError> {
    match message.split_first() {
        Some((&READY, _)) => Ok(()),
        Some((&FAILED, reason)) => {
            // The reason is what counts; the wait only leaves no zombie behind.
            child.wait()?;
            Err(MountError::Reported(
                String::from_utf8_lossy(reason).into_owned(),
            ))
        }
        _ => Err(MountError::DaemonDied {
            status: child.wait()?,
        }),
    }
}

/// Serves to the end; answers the exit status.
pub(crate) fn run_child(
    writer: Option<PipeWriter>,
    post: Post,
    serve: impl FnOnce(&mut Ready, Post) -> Result<(), MountError>,
) -> i32 {
    let mut ready = Ready {
        pipe: writer,
        null: None,
    };
    let Err(e) = serve(&mut ready, post) else {
        return 0;
    };
    match ready.pipe.take() {
        Some(pipe) => fail(pipe, &e),
        None => tracing::error!("{e}"),
    }
    1
}

/// Tells whoever waits that there will be no mount, and why.
pub(crate) fn fail(mut pipe: PipeWriter, e: &MountError) {
    let mut message = vec![FAILED];
    message.extend_from_slice(e.to_string().as_bytes());
    if pipe.write_all(&message).is_err() {
        tracing::error!("{e}");
    }
}
