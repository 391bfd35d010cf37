//! The watchdog: a subject that stops answering is cut off, and the step that waited is named.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the driver and the watchdog thread share.
#[derive(Debug)]
pub(crate) struct Watch {
    start: Instant,
    /// Milliseconds after `start` at which the driver last moved on.
    beat: AtomicU64,
    /// Minor device number of the FUSE mount under test, 0 for none.
    minor: AtomicU32,
    /// Process of the subject, 0 for none.
    pid: AtomicI32,
    fired: AtomicBool,
}

impl Watch {
    /// Starts the thread. It lives as long as the process.
    pub(crate) fn start(limit: Duration) -> Arc<Self> {
        let watch = Arc::new(Self {
            start: Instant::now(),
            beat: AtomicU64::new(0),
            minor: AtomicU32::new(0),
            pid: AtomicI32::new(0),
            fired: AtomicBool::new(false),
        });
        let mine = Arc::clone(&watch);
        std::thread::spawn(move || mine.patrol(limit));
        watch
    }

    /// The driver is alive.
    pub(crate) fn beat(&self) {
        self.beat
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Names the mount and process to cut off; zeroes for none.
    pub(crate) fn guard(&self, minor: u32, pid: i32) {
        self.beat();
        self.minor.store(minor, Ordering::Relaxed);
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Whether the watchdog had to act since the last call.
    pub(crate) fn take_fired(&self) -> bool {
        self.fired.swap(false, Ordering::Relaxed)
    }

    fn patrol(&self, limit: Duration) {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let idle = (self.start.elapsed().as_millis() as u64)
                .saturating_sub(self.beat.load(Ordering::Relaxed));
            if idle < limit.as_millis() as u64 {
                continue;
            }
            let minor = self.minor.swap(0, Ordering::Relaxed);
            let pid = self.pid.swap(0, Ordering::Relaxed);
            if minor == 0 && pid == 0 {
                continue;
            }
            self.fired.store(true, Ordering::Relaxed);
            self.beat();
            let abort = format!("/sys/fs/fuse/connections/{minor}/abort");
            if let Err(error) = std::fs::write(&abort, "1") {
                eprintln!("judge: cannot abort the hung mount through {abort}: {error}");
            }
            if pid != 0
                && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
            {
                eprintln!("judge: cannot kill the hung subject {pid}: {error}");
            }
        }
    }
}
