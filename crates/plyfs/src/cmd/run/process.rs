//! Running the runtime: signals are passed on, the exit status comes back.
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, bail};
use plyfs_sys::process::StopSignals;

/// The container could not be made or run; as Docker and Podman have it.
pub(super) const NOT_RUN: u8 = 125;
/// The program cannot be executed; as shells have it.
const NOT_EXECUTABLE: u8 = 126;
/// The program is not there.
const NOT_FOUND: u8 = 127;
/// What a shell adds to the number of a signal.
const BY_SIGNAL: i32 = 128;
/// Runtimes that are looked for.
const RUNTIMES: [&str; 2] = ["crun", "runc"];

/// The runtime that was asked for, or one that is there.
pub(super) fn runtime(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(runtime) = asked {
        return Ok(runtime.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // crun refuses to work where cgroups of both versions are mounted.
    let is_hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    let mut names = RUNTIMES;
    if is_hybrid {
        names.reverse();
    }
    let found = names.iter().find_map(|name| {
        let places = std::env::split_paths(&path).map(|dir| dir.join(name));
        places.into_iter().find(|p| p.is_file())
    });
    match found {
        Some(runtime) => Ok(runtime),
        None => bail!("neither crun nor runc is installed: install one, or name it by --runtime"),
    }
}

/// Runs the bundle to its end.
pub(super) fn run(runtime: &Path, bundle: &Path, id: &str) -> anyhow::Result<ExitCode> {
    // What is sent to us is passed on. What a terminal sends, the runtime gets and passes on itself.
    let from_terminal = std::io::stdin().is_terminal();
    let stop = StopSignals::block()?;
    let log = bundle.join("runtime.log");
    let mut child = Command::new(runtime)
        .arg("--log")
        .arg(&log)
        .args(["--log-format", "json", "run", "--bundle"])
        .arg(bundle)
        .arg(id)
        .spawn()
        .with_context(|| format!("running {runtime:?}"))?;
    let (program, name) = (runtime.to_owned(), id.to_owned());
    std::thread::spawn(move || {
        while let Ok(signal) = stop.wait() {
            if signal == "SIGINT" && from_terminal {
                continue;
            }
            let short = signal.trim_start_matches("SIG");
            let sent = Command::new(&program).args(["kill", &name, short]).status();
            if let Err(e) = sent {
                tracing::warn!("the signal was not passed on: {e}");
            }
        }
    });
    let status = child.wait().context("waiting for the runtime")?;
    let failed = if status.success() {
        None
    } else {
        // Nothing in it, or no log at all: the runtime found no fault of its own.
        failure_of(&std::fs::read_to_string(&log).unwrap_or_default())
    };
    Ok(ExitCode::from(failed.unwrap_or_else(|| code(status))))
}

/// The status for what the runtime itself has failed at; None if it was the program that failed.
fn failure_of(log: &str) -> Option<u8> {
    let error = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .rfind(|entry| entry["level"] == "error")?;
    let what = error["msg"].as_str().unwrap_or_default();
    let says = |words: &[&str]| words.iter().any(|word| what.contains(word));
    // Runtimes say in words alone whether it was the program; podman goes by them too.
    let is_program = says(&["exec", "executable"]);
    Some(
        if is_program && says(&["not found", "o such file or directory"]) {
            NOT_FOUND
        } else if is_program && says(&["ermission denied", "xec format error", "s a directory"]) {
            NOT_EXECUTABLE
        } else {
            NOT_RUN
        },
    )
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => BY_SIGNAL + signal,
        (None, None) => i32::from(NOT_RUN),
    };
    u8::try_from(code).unwrap_or(NOT_RUN)
}
