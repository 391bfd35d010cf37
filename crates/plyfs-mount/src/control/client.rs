//! The asking side: is there a daemon, and what does it say?
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use plyfs_sys::socket::connect_local;

use crate::control::{Answer, MAX_LINE, Program, Question, Status, VERSION};
use crate::state::Watched;

/// How long a daemon may take; it needs no disk and no lock that is held for long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a mount does not say how it is.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The process that served it has ended and left the mount behind.
    #[error("its daemon is dead: take the mount away with plyfs umount --lazy")]
    Dead,
    /// It tells nothing: no directory for its socket, or another program's mount.
    #[error("it has no control socket")]
    NoSocket,
    /// It is somebody else's.
    #[error("only its owner and root may ask it")]
    NotAllowed,
    /// It lives and is silent.
    #[error("its daemon is not answering: {0}")]
    Silent(std::io::Error),
    /// It answered, and not with a status.
    #[error("its daemon says: {0}")]
    Refused(String),
}

/// Asks the daemon of the mount with device number `dev`, mounted by user `owner`.
///
/// # Errors
/// See [`Unanswered`].
pub fn ask_status(dev: (u32, u32), owner: Option<u32>) -> Result<Status, Unanswered> {
    match ask_mount(dev, owner, "status", None)? {
        Answer {
            status: Some(s), ..
        } => Ok(*s),
        Answer { error: Some(e), .. } => Err(Unanswered::Refused(e)),
        _ => Err(Unanswered::Refused("nothing".to_owned())),
    }
}

/// Has the daemon of a mount end, and `program` serve in its place. What came of it the next daemon
/// tells (see [`Status::upgrades`]).
///
/// # Errors
/// See [`Unanswered`]. The daemon goes on then.
pub fn ask_upgrade(
    dev: (u32, u32),
    owner: Option<u32>,
    program: Program,
) -> Result<(), Unanswered> {
    match ask_mount(dev, owner, "upgrade", Some(program))? {
        Answer {
            upgrading: true, ..
        } => Ok(()),
        Answer { error: Some(e), .. } => Err(Unanswered::Refused(e)),
        _ => Err(Unanswered::Refused("nothing".to_owned())),
    }
}

fn ask_mount(
    dev: (u32, u32),
    owner: Option<u32>,
    command: &str,
    program: Option<Program>,
) -> Result<Answer, Unanswered> {
    let watched = Watched::open_any(dev, owner).ok_or(Unanswered::NoSocket)?;
    if watched.daemon_is_gone() {
        return Err(Unanswered::Dead);
    }
    let question = Question {
        version: VERSION,
        command: command.to_owned(),
        program,
    };
    ask(&watched.socket(), &question).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Unanswered::NoSocket,
        std::io::ErrorKind::PermissionDenied => Unanswered::NotAllowed,
        _ => Unanswered::Silent(e),
    })
}

fn ask(socket: &Path, question: &Question) -> std::io::Result<Answer> {
    let mut stream = connect_local(socket, PATIENCE)?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_LINE)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}
