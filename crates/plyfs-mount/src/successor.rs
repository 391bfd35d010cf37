//! Another program in the place of the one that looks after a mount.
//!
//! The holder makes a copy of itself, with all descriptors, and the copy becomes the other
//! program, which makes a daemon. When that daemon is about to serve, the holder ends. Until then
//! it has everything that a daemon of its own needs to go on.
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plyfs_sys::{SysError, process, shared, socket, takeover};
use plyfs_union::{Outlook, Verdict};

use crate::daemonize::FAILED;
use crate::holder::Hold;

/// How long the other program may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the other program does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Sys(#[from] SysError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it cannot be started: {0}")]
    NotStarted(String),
    #[error("it does not serve: {0}")]
    DidNotServe(String),
}

impl From<&Failed> for Verdict {
    fn from(e: &Failed) -> Self {
        match e {
            Failed::DidNotServe(_) => Self::DidNotServe,
            _ => Self::NotStarted,
        }
    }
}

/// First byte of the message of a process that cannot become the other program.
const NOT_STARTED: u8 = b'X';

/// Has `program` look after the mount, whose daemon has ended. The caller has nothing to do with the
/// mount any more then.
///
/// # Errors
/// Why it does not serve; nothing of it is left then.
pub(crate) fn begin<F>(program: &Path, hold: &Hold<F>) -> Result<(), Failed> {
    let (reader, writer) = std::io::pipe()?;
    let plan = serde_json::to_vec(&hold.plan).map_err(std::io::Error::from)?;
    let plan = shared::file_of(c"plyfs-plan", &plan)?;
    let Some(group) = process::fork_group()? else {
        let e = become_program(program, hold, &plan, &writer);
        let text = e.to_string();
        let mut message = vec![NOT_STARTED];
        message.extend_from_slice(text.as_bytes());
        // Nobody reads it: then nobody needs it.
        drop((&writer).write_all(&message));
        process::end_at_once();
    };
    drop(writer);
    let said = read_until_end(reader);
    if !Outlook(&hold.shared).gives_up() {
        return Ok(());
    }
    group.end();
    Err(match said.split_first() {
        Some((&NOT_STARTED, text)) => Failed::NotStarted(lossy(text)),
        Some((&FAILED, text)) => Failed::DidNotServe(lossy(text)),
        _ => Failed::DidNotServe("it has ended, or was silent for too long".to_owned()),
    })
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// What the other program says until it ends or lets go of the pipe.
fn read_until_end(mut reader: PipeReader) -> Vec<u8> {
    let mut said = Vec::new();
    let mut buf = [0; 1024];
    while socket::wait_readable(&reader, PATIENCE).unwrap_or(false) {
        match reader.read(&mut buf) {
            Ok(n) if n > 0 => said.extend_from_slice(&buf[..n]),
            _ => break,
        }
    }
    said
}

/// Returns why not. Descriptors of this process alone are closed by becoming another program.
fn become_program<F>(
    program: &Path,
    hold: &Hold<F>,
    plan: &std::fs::File,
    writer: &PipeWriter,
) -> Failed {
    let named = [
        takeover::number(&hold.shared),
        takeover::number(plan),
        takeover::number(writer),
    ];
    let handed_on = || {
        let mut all = takeover::open_now()?;
        all.retain(|fd| !hold.mine.contains(fd));
        all.extend(named);
        all.extend(hold.plan.kept());
        all.into_iter().try_for_each(takeover::hand_on)
    };
    if let Err(e) = handed_on() {
        return e.into();
    }
    let [journal, plan, ready] = named.map(|number| number.to_string());
    let mut command = Command::new(program);
    command.arg0("plyfs").args(hold.plan.words());
    command.args(["hold", &journal, &plan, &ready]);
    command.exec().into()
}
