//! Mounting one side with kernel overlayfs or with a program, and unmounting it again.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::watch::Watch;

/// Who implements the union.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Implementation {
    /// Kernel overlayfs.
    Kernel,
    /// A program in the grammar of mount programs: `PROGRAM -f -o lowerdir=… MOUNTPOINT`.
    Program(Vec<String>),
}

/// The directories of one side.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Topmost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// A layer for the data of metacopies alone, below all others.
    pub(crate) data: Option<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) mountpoint: PathBuf,
}

impl Layout {
    fn options(&self, extra: &str) -> String {
        let lowers: Vec<_> = self
            .lowers
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let data = self.data.iter().map(|path| format!("::{}", path.display()));
        let mut text = format!(
            "lowerdir={}{},upperdir={},workdir={}",
            lowers.join(":"),
            data.collect::<String>(),
            self.upper.display(),
            self.work.display()
        );
        if !extra.is_empty() {
            text.push(',');
            text.push_str(extra);
        }
        text
    }
}

/// A live mount; dropping it unmounts lazily, `unmount` properly.
#[derive(Debug)]
pub(crate) struct Mounted {
    mountpoint: PathBuf,
    daemon: Option<Daemon>,
    gone: bool,
}

#[derive(Debug)]
struct Daemon {
    child: Child,
    log: PathBuf,
    watch: Arc<Watch>,
}

/// How long a program may take to mount or to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Mounts. The error text says what the implementation said.
pub(crate) fn mount(
    how: &Implementation,
    layout: &Layout,
    extra: &str,
    watch: &Arc<Watch>,
) -> Result<Mounted> {
    let options = layout.options(extra);
    let mountpoint = layout.mountpoint.clone();
    match how {
        Implementation::Kernel => {
            let data = CString::new(options.clone())?;
            rustix::mount::mount(
                "overlay",
                &mountpoint,
                "overlay",
                MountFlags::empty(),
                data.as_c_str(),
            )
            .with_context(|| format!("mount -t overlay -o {options}"))?;
            Ok(Mounted {
                mountpoint,
                daemon: None,
                gone: false,
            })
        }
        Implementation::Program(words) => {
            let daemon = Daemon::start(words, &options, &mountpoint, watch)?;
            Ok(Mounted {
                mountpoint,
                daemon: Some(daemon),
                gone: false,
            })
        }
    }
}

impl Daemon {
    fn start(words: &[String], options: &str, at: &Path, watch: &Arc<Watch>) -> Result<Self> {
        let [program, arguments @ ..] = words else {
            bail!("no subject program given")
        };
        let log = at.with_extension("log");
        let out = File::options().create(true).append(true).open(&log)?;
        let before = at.metadata()?.dev();
        // The subject ends with the judge's process, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .args(["-f", "-o", options])
            .arg(at)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut daemon = Self {
            child,
            log,
            watch: Arc::clone(watch),
        };
        daemon.await_mount(at, before)?;
        Ok(daemon)
    }

    /// Waits until the mount point's device changes, which is when the program answers requests.
    fn await_mount(&mut self, at: &Path, before: u64) -> Result<()> {
        let pid = self.child.id() as i32;
        let start = Instant::now();
        self.watch.guard(0, pid);
        loop {
            self.watch.beat();
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the subject ended ({status}) instead of mounting: {}",
                    self.said()
                );
            }
            if let Some(minor) = fuse_minor(at)? {
                self.watch.guard(minor, pid);
                if at.metadata().context("stat of the fresh mount")?.dev() != before {
                    return Ok(());
                }
            }
            if start.elapsed() > PATIENCE {
                self.finish(true)?;
                bail!(
                    "the subject did not mount within {PATIENCE:?}: {}",
                    self.said()
                );
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines[lines.len().saturating_sub(8)..].join(" | ")
    }

    /// A panic that a worker thread survived is still a bug.
    fn panicked(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).contains("panicked at")
    }

    /// Waits for the end of the process; `kill` does not wait for its good will.
    fn finish(&mut self, kill: bool) -> Result<()> {
        let start = Instant::now();
        if kill {
            self.child.kill()?;
        }
        loop {
            self.watch.beat();
            if let Some(status) = self.child.try_wait()? {
                self.watch.guard(0, 0);
                if !kill && (!status.success() || self.panicked()) {
                    bail!("the subject ended with {status}: {}", self.said());
                }
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                self.child.kill()?;
                self.child.wait()?;
                self.watch.guard(0, 0);
                bail!("the subject still ran {PATIENCE:?} after its mount was gone");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// The minor device number of the FUSE file system mounted at `at`, without asking that file system.
fn fuse_minor(at: &Path) -> Result<Option<u32>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let at = at.display().to_string();
    for line in table.lines().rev() {
        let mut words = line.split(' ');
        let device = words.nth(2).unwrap_or("");
        if words.nth(1) == Some(at.as_str()) && line.contains(" - fuse") {
            let minor = device.split(':').nth(1).and_then(|text| text.parse().ok());
            return Ok(minor);
        }
    }
    Ok(None)
}

impl Mounted {
    /// Unmounts and waits for the program to end well.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.gone = true;
        let start = Instant::now();
        loop {
            match rustix::mount::unmount(&self.mountpoint, UnmountFlags::empty()) {
                Ok(()) => break,
                Err(Errno::BUSY) if start.elapsed() < Duration::from_secs(2) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH)?;
                    bail!("unmount of {}: {error}", self.mountpoint.display());
                }
            }
        }
        match &mut self.daemon {
            Some(daemon) => daemon.finish(false),
            None => Ok(()),
        }
    }

    /// Whether the program (if it is one) is still there; its last words otherwise.
    pub(crate) fn alive(&mut self) -> std::result::Result<(), String> {
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        match daemon.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the subject died ({status}): {}", daemon.said())),
            Err(error) => Err(format!("cannot wait for the subject: {error}")),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        if let Err(error) = rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH) {
            let said = self.daemon.as_ref().map(Daemon::said).unwrap_or_default();
            eprintln!(
                "judge: unmount of {}: {error} {said}",
                self.mountpoint.display()
            );
        }
        if let Some(daemon) = &mut self.daemon
            && let Err(error) = daemon.finish(true)
        {
            eprintln!("judge: {error:#}");
        }
    }
}
