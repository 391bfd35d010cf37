//! Mounts whose daemon is killed again and again while a test works on them.
//!
//! With `PLYFS_TEST_KILLS=MILLISECONDS` in the environment every test that mounts plyfs by
//! [`crate::mount_plyfs`] gets such a mount: what it checks must hold all the same.
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the processes of a mount may take to end with it.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often daemons are to be killed, if they are.
pub(crate) fn interval() -> Option<Duration> {
    let text = std::env::var("PLYFS_TEST_KILLS").ok()?;
    Some(Duration::from_millis(text.parse().expect("milliseconds")))
}

/// A daemon in the background, and the thread that kills it.
#[derive(Debug)]
pub(crate) struct Killed {
    state: PathBuf,
    log: PathBuf,
    killer: Option<(Sender<()>, JoinHandle<u32>)>,
}

impl Killed {
    /// Mounts by `program` with the words of a mount program, without `-f`.
    pub(crate) fn mount(
        program: &Path,
        (options, mnt): (&std::ffi::OsStr, &Path),
        log: PathBuf,
        interval: Duration,
    ) -> Result<Self, String> {
        let said = File::create(&log).map_err(|e| e.to_string())?;
        let status = Command::new(program)
            .arg("-o")
            .arg(options)
            .arg(mnt)
            .env("PLYFS_LOG_FILE", &log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .status()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        if !status.success() {
            let log = fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("{} ended with {status}: {log}", program.display()));
        }
        let dev = fs::metadata(mnt).map_err(|e| e.to_string())?.dev();
        let minor = nix::sys::stat::minor(dev);
        let state = PathBuf::from(format!("/run/plyfs/{minor}.json"));
        let (stop, stopped) = mpsc::channel();
        let file = state.clone();
        let killer = std::thread::spawn(move || {
            let mut kills = 0;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if let Some(pid) = pid_in(&file) {
                    kills += u32::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
                }
            }
            kills
        });
        Ok(Self {
            state,
            log,
            killer: Some((stop, killer)),
        })
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process that serves now.
    pub(crate) fn pid(&self) -> Option<u32> {
        pid_in(&self.state).and_then(|pid| u32::try_from(pid).ok())
    }

    /// No daemon is killed from now on.
    pub(crate) fn spare(&mut self) {
        if let Some((stop, killer)) = self.killer.take() {
            drop(stop);
            let kills = killer.join().unwrap_or_default();
            eprintln!("{kills} daemons were killed");
        }
    }

    /// Waits for the processes of a mount that was taken away.
    pub(crate) fn wait(&self) -> Result<(), String> {
        let start = Instant::now();
        while self.state.exists() {
            if start.elapsed() > PATIENCE {
                return Err(format!("the daemon outlived its mount: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let log = self.log();
        let mut restarts = log.lines().filter(|l| l.contains("took over"));
        if let Some(line) = restarts.find(|l| !l.contains("lost=0")) {
            return Err(format!("a daemon has lost inodes: {line}"));
        }
        // fuser calls it an error when a caller has not waited for the reply.
        match log.contains("panicked at") || log.contains("ERROR plyfs") {
            true => Err(format!("the daemons said: {log}")),
            false => Ok(()),
        }
    }
}

/// What a state file says; None while it is written, and when the mount has gone.
fn pid_in(state: &Path) -> Option<i32> {
    let text = fs::read_to_string(state).ok()?;
    let behind = text.split("\"pid\":").nth(1)?;
    behind.split([',', '}']).next()?.trim().parse().ok()
}
