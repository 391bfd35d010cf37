//! Mounts a stack with plyfs, a rival program or the kernel, and unmounts it without a trace.
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::kills::{self, Killed};
use crate::stack::Stack;
use crate::watch::LowersWatch;

/// How long a daemon may take to mount or to go before the test fails.
const PATIENCE: Duration = Duration::from_secs(15);

/// A mounted stack; dropping it unmounts and fails the test if the daemon did not end well, or if
/// a lower layer is not as it was.
#[derive(Debug)]
pub struct Mounted {
    mnt: PathBuf,
    daemon: Option<Daemon>,
    /// In the place of the daemon where daemons are killed.
    killed: Option<Killed>,
    done: bool,
    /// Dropped after the mount has gone.
    lowers: LowersWatch,
}

#[derive(Debug)]
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// Mounts `stack` with the plyfs binary in the mount-program grammar, `-f` in the foreground so
/// that its end is seen.
///
/// # Panics
/// When it does not mount; the message carries what the program said.
#[must_use]
pub fn mount_plyfs(stack: &Stack, extra: &str) -> Mounted {
    mount_program(&crate::bin(), stack, extra).unwrap_or_else(|e| panic!("{e}"))
}

/// Mounts `stack` with fuse-overlayfs.
///
/// # Panics
/// When there is none (see [`fuse_overlayfs`](crate::fuse_overlayfs)) or it does not mount.
#[must_use]
pub fn mount_fuse_overlayfs(stack: &Stack, extra: &str) -> Mounted {
    let program = crate::fuse_overlayfs().expect("fuse-overlayfs is not installed");
    mount_program(&program, stack, extra).unwrap_or_else(|e| panic!("{e}"))
}

/// Mounts `stack` with kernel overlayfs.
///
/// # Panics
/// When the kernel refuses.
#[must_use]
pub fn mount_kernel(stack: &Stack, extra: &str) -> Mounted {
    let lowers = stack.watch_lowers();
    let options = stack.mount_options(extra);
    let (none, kind) = (MsFlags::empty(), Some("overlay"));
    mount(kind, &stack.mnt(), kind, none, Some(options.as_os_str())).unwrap_or_else(|e| {
        panic!(
            "mount -t overlay -o {} {}: {e}",
            options.display(),
            stack.mnt().display()
        )
    });
    Mounted {
        mnt: stack.mnt(),
        daemon: None,
        killed: None,
        done: false,
        lowers,
    }
}

/// Mounts `stack` with any mount program that takes `-f -o OPTIONS MOUNTPOINT`.
///
/// # Errors
/// When it ends or does not mount in time; the text carries its exit status and what it said.
pub fn mount_program(program: &Path, stack: &Stack, extra: &str) -> Result<Mounted, String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let log = stack.dir().join(format!(
        "daemon-{}.log",
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    let lowers = stack.watch_lowers();
    if let Some(interval) = kills::interval().filter(|_| program == crate::bin()) {
        let (options, mnt) = (stack.mount_options(extra), stack.mnt());
        let killed = Killed::mount(program, (&options, &mnt), log, interval)?;
        return Ok(Mounted {
            mnt,
            daemon: None,
            killed: Some(killed),
            done: false,
            lowers,
        });
    }
    let out = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let child = bound_to_us(program)
        .arg("-f")
        .arg("-o")
        .arg(stack.mount_options(extra))
        .arg(stack.mnt())
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(|e| e.to_string())?)
        .stderr(out)
        .spawn()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let mut daemon = Daemon { child, log };
    let start = Instant::now();
    while mounted_at(&stack.mnt()).is_none() {
        let ended = daemon.child.try_wait().map_err(|e| e.to_string())?;
        if let Some(status) = ended {
            return Err(format!(
                "{} ended with {status}: {}",
                program.display(),
                daemon.log()
            ));
        }
        if start.elapsed() > PATIENCE {
            drop(daemon.child.kill());
            drop(daemon.child.wait());
            return Err(format!(
                "{} did not mount: {}",
                program.display(),
                daemon.log()
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Mounted {
        mnt: stack.mnt(),
        daemon: Some(daemon),
        killed: None,
        done: false,
        lowers,
    })
}

/// A command that the kernel kills when the calling thread ends, so that no daemon outlives a
/// test that was killed.
fn bound_to_us(program: &Path) -> Command {
    if !crate::has_program("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Mounted {
    /// The mountpoint.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mnt
    }

    /// A path below the mountpoint.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mnt.join(path)
    }

    /// The process that serves the mount, where there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let killed = self.killed.as_ref().and_then(Killed::pid);
        self.daemon.as_ref().map(|d| d.child.id()).or(killed)
    }

    /// The same mount in a test that changes a lower layer itself, for the reason it gives.
    #[must_use]
    pub fn with_changing_lowers(mut self, _reason: &'static str) -> Self {
        self.lowers.look_away();
        self
    }

    /// What the daemon has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        let killed = self.killed.as_ref().map(Killed::log);
        let daemon = self.daemon.as_ref().map(Daemon::log);
        daemon.or(killed).unwrap_or_default()
    }

    /// Unmounts and checks that the daemon ended well, as dropping does.
    ///
    /// # Panics
    /// When it did not.
    pub fn unmount(mut self) {
        self.done = true;
        if let Err(why) = self.finish() {
            panic!("{why}");
        }
    }

    /// Waits for the daemon to end by itself: after a foreign unmount or a signal.
    ///
    /// # Panics
    /// When it does not end in time; it is killed then.
    pub fn wait(mut self) -> ExitStatus {
        self.done = true;
        let daemon = self.daemon.as_mut().expect("a mount with a daemon");
        let status = wait_for_end(daemon).unwrap_or_else(|why| panic!("{why}"));
        assert!(
            mounted_at(&self.mnt).is_none(),
            "the daemon ended, its mount did not"
        );
        status
    }

    fn finish(&mut self) -> Result<(), String> {
        if let Some(killed) = &mut self.killed {
            killed.spare();
        }
        unmount(&self.mnt)?;
        if let Some(killed) = &self.killed {
            return killed.wait();
        }
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        let status = wait_for_end(daemon)?;
        let log = daemon.log();
        if !status.success() {
            return Err(format!("the daemon ended with {status}: {log}"));
        }
        if log.contains("panicked at") {
            return Err(format!("the daemon panicked: {log}"));
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let ended = self.finish();
        if std::thread::panicking() {
            eprintln!("the daemon said: {}", self.log());
        } else if let Err(why) = ended {
            panic!("{why}");
        }
    }
}

fn wait_for_end(daemon: &mut Daemon) -> Result<ExitStatus, String> {
    let start = Instant::now();
    loop {
        match daemon.child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() > PATIENCE => {
                drop(daemon.child.kill());
                drop(daemon.child.wait());
                return Err(format!("the daemon outlived its mount: {}", daemon.log()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => return Err(format!("waiting for the daemon: {e}")),
        }
    }
}

/// Unmounts `mnt`; a mount that stays busy for five seconds is detached and reported.
///
/// # Errors
/// When it was busy or could not be unmounted. A path that is no mountpoint is no error.
pub fn unmount(mnt: &Path) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match umount2(mnt, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            // Closed descriptors are released a moment after close(2) returns.
            Err(Errno::EBUSY) if start.elapsed() < Duration::from_secs(5) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => {
                let detached = umount2(mnt, MntFlags::MNT_DETACH);
                return Err(format!(
                    "umount {}: {e}; detaching: {detached:?}",
                    mnt.display()
                ));
            }
        }
    }
}

/// The file system type mounted at `path` in the calling thread's namespace, without asking it.
#[must_use]
pub fn mounted_at(path: &Path) -> Option<String> {
    let table = std::fs::read("/proc/thread-self/mountinfo").ok()?;
    table.split(|b| *b == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let mountpoint = unescape(fields.nth(4)?);
        let kind = fields.skip_while(|f| *f != b"-").nth(1)?;
        (mountpoint == path).then(|| String::from_utf8_lossy(kind).into_owned())
    })
}

/// Undoes the octal escapes of the mount table.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(code) if byte == b'\\' => {
                out.push(code);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// Polls until `condition` holds.
///
/// # Panics
/// When it does not within `PATIENCE`; `what` names the condition.
pub fn wait_until(what: impl AsRef<OsStr>, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        let what = what.as_ref().as_bytes().escape_ascii();
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_escapes() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/a\04"), Path::new(r"/a\04"));
    }

    #[test]
    fn kernel_mount_is_seen_and_goes() {
        crate::need_overlay!();
        let stack = Stack::planted(&["f a = 1\nw b", "f b = 2\nf c = 3"]);
        let mounted = mount_kernel(&stack, "");
        assert_eq!(mounted_at(mounted.path()).as_deref(), Some("overlay"));
        assert_eq!(crate::snapshot(mounted.path()).paths(), [".", "a", "c"]);
        mounted.unmount();
        assert_eq!(mounted_at(&stack.mnt()), None);
        stack.assert_lowers_unchanged();
    }

    #[test]
    fn a_rival_mounts_and_its_daemon_goes() {
        crate::need_fuse!();
        if crate::fuse_overlayfs().is_none() {
            eprintln!("SKIP: needs fuse-overlayfs");
            return;
        }
        let stack = Stack::planted(&["f a = 1"]);
        let mounted = mount_fuse_overlayfs(&stack, "");
        std::fs::write(mounted.join("new"), "x").unwrap();
        mounted.unmount();
        assert!(stack.upper().join("new").exists());
    }

    #[test]
    fn a_program_that_fails_is_reported_with_its_words() {
        crate::need_fuse!();
        let stack = Stack::planted(&["f a"]);
        let error = mount_program(Path::new("/bin/ls"), &stack, "").unwrap_err();
        assert!(error.contains("ended with"), "{error}");
    }
}
