//! One timed run: how long it took, and how much processor time on whose account.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

/// What one run cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Elapsed time in seconds.
    pub wall: f64,
    /// Processor time of the workload and the programs it started, in seconds.
    pub client_cpu: f64,
    /// Processor time of the daemon, in seconds.
    pub daemon_cpu: f64,
    /// Anonymous memory of the daemon after the work, in bytes.
    pub daemon_memory: u64,
}

impl Sample {
    /// Processor time of both sides in seconds. It tells more than `wall` on a busy machine.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.client_cpu + self.daemon_cpu
    }

    /// What one of `passes` cost.
    pub(crate) fn divided(self, passes: u32) -> Self {
        let passes = f64::from(passes);
        Self {
            wall: self.wall / passes,
            client_cpu: self.client_cpu / passes,
            daemon_cpu: self.daemon_cpu / passes,
            ..self
        }
    }
}

/// What was used up when the clock started.
#[derive(Debug)]
pub(crate) struct Clock {
    at: Instant,
    client: Duration,
    daemon: Duration,
}

impl Clock {
    /// Starts; `daemon` is the process that serves the mount, where there is one by now.
    ///
    /// # Errors
    /// When processor times cannot be read.
    pub(crate) fn start(daemon: Option<u32>) -> Result<Self> {
        Ok(Self {
            daemon: daemon_cpu(daemon)?,
            client: client_cpu()?,
            at: Instant::now(),
        })
    }

    /// What it took since the start.
    ///
    /// # Errors
    /// When processor times or memory cannot be read.
    pub(crate) fn stop(self, daemon: Option<u32>) -> Result<Sample> {
        let wall = self.at.elapsed();
        let client = client_cpu()?.saturating_sub(self.client);
        let daemon_cpu = daemon_cpu(daemon)?.saturating_sub(self.daemon);
        Ok(Sample {
            wall: wall.as_secs_f64(),
            client_cpu: client.as_secs_f64(),
            daemon_cpu: daemon_cpu.as_secs_f64(),
            daemon_memory: daemon_memory(daemon)?,
        })
    }
}

/// Anonymous memory of the daemon in bytes, as it is now.
fn daemon_memory(pid: Option<u32>) -> Result<u64> {
    let Some(pid) = pid else {
        return Ok(0);
    };
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no RssAnon"))? << 10)
}

fn client_cpu() -> Result<Duration> {
    let own = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let children = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    Ok(total(&own) + total(&children))
}

fn total(usage: &Usage) -> Duration {
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Adds up all threads: /proc/PID/schedstat alone speaks of the first thread only.
fn daemon_cpu(daemon: Option<u32>) -> Result<Duration> {
    let Some(pid) = daemon else {
        return Ok(Duration::ZERO);
    };
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut nanos = 0;
    for task in std::fs::read_dir(&tasks).with_context(|| format!("{}", tasks.display()))? {
        // A thread that has just ended takes its few microseconds with it.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        nanos += text
            .split(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}
