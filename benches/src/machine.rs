//! What a result was measured on, without which it is worth nothing.
use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine and the moment.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Processors that can be used.
    pub processors: usize,
    /// Memory in MiB.
    pub memory: u64,
    /// File system below layers, upper and workdir.
    pub filesystem: String,
    /// Kernel overlayfs's defaults, which decide what it does at all.
    pub overlay: String,
    /// UTC date and time of the start.
    pub date: String,
    /// The commit of the working directory, `+` if the sources differ from it.
    pub commit: String,
    /// Load averages when the run ended.
    pub load: String,
}

impl Machine {
    /// Looks around; layers, upper and workdir are on `filesystem`.
    #[must_use]
    pub fn here(filesystem: String) -> Self {
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(),
            filesystem,
            overlay: overlay(),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M"]),
            commit: commit(),
            load: load(),
        }
    }
}

/// The load averages now.
pub(crate) fn load() -> String {
    let line = first_line("/proc/loadavg");
    line.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn memory() -> u64 {
    let kib = field("/proc/meminfo", "MemTotal");
    kib.split(' ')
        .next()
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn overlay() -> String {
    let value = |name| {
        let value = first_line(&format!("/sys/module/overlay/parameters/{name}"));
        format!("{name}={value}")
    };
    ["redirect_dir", "metacopy", "index"].map(value).join(" ")
}

fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--", "crates"]);
    if changed.is_empty() {
        commit
    } else {
        format!("{commit}+")
    }
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value
        .map_or("unknown", |(_, value)| value.trim())
        .to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        .unwrap_or_default()
}
