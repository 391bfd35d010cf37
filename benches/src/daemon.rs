//! A file system process that the benchmark started, from its start to its end.
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a daemon may take to mount or to end.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_micros(200);

/// A running daemon and the file with what it says.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` and waits until something is mounted on `mountpoint`.
    pub(crate) fn start(command: &[String], mountpoint: &Path, log: PathBuf) -> Result<Self> {
        let before = device(mountpoint)?;
        let out = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = bound_to_us(command)?
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {}", command.join(" ")))?;
        let mut daemon = Self { child, log };
        let start = Instant::now();
        while device(mountpoint)? == before {
            if let Some(status) = daemon.child.try_wait()? {
                bail!(
                    "{} ended with {status}: {}",
                    command.join(" "),
                    daemon.said()
                );
            }
            if start.elapsed() > PATIENCE {
                daemon.kill()?;
                bail!(
                    "{} did not mount in {PATIENCE:?}: {}",
                    command.join(" "),
                    daemon.said()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(daemon)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for the end that an unmount brings.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("the daemon ended with {status}: {}", self.said());
                }
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                self.kill()?;
                bail!(
                    "the daemon did not end in {PATIENCE:?} after the unmount: {}",
                    self.said()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the daemon")?;
        self.child.wait().context("wait for the daemon")?;
        Ok(())
    }
}

fn device(mountpoint: &Path) -> Result<u64> {
    let stat =
        std::fs::metadata(mountpoint).with_context(|| format!("{}", mountpoint.display()))?;
    Ok(stat.dev())
}

/// The kernel ends the daemon with us, so that a benchmark that was killed leaves no mount behind.
fn bound_to_us(command: &[String]) -> Result<Command> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut child = if setpriv.exists() {
        let mut child = Command::new(setpriv);
        child.args(["--pdeathsig", "KILL", "--"]).arg(program);
        child
    } else {
        Command::new(program)
    };
    child.args(arguments);
    Ok(child)
}
