//! The parent of the judge's processes: splits the work over them and survives their death.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::case::Case;
use super::cli::{Arguments, Tally, report};
use super::runner::{Failure, Verdict};
use super::trace::read_trace;

/// Begins the line on which a process tells what it found so far.
pub(crate) const TALLY: &str = "@tally ";
/// Name of the trace in a process's scratch directory.
pub(crate) const TRACE: &str = "trace";

/// Runs everything in child processes: a mount namespace, ids and a umask belong to one process
/// each, and one that dies by a signal (a mapping the subject cannot fill) is a finding.
pub(crate) fn supervise(arguments: &Arguments) -> Result<bool> {
    let start = Instant::now();
    let jobs = if arguments.replay.is_empty() {
        arguments.jobs.max(1)
    } else {
        1
    };
    let shares: Vec<Arguments> = (0..jobs)
        .map(|job| Arguments {
            seed: arguments.seed + job,
            stride: jobs,
            count: (arguments.count + jobs - 1 - job) / jobs,
            ..arguments.clone()
        })
        .collect();
    let threads: Vec<_> = shares
        .into_iter()
        .map(|share| std::thread::spawn(move || run_job(share)))
        .collect();
    let mut total = Tally::default();
    for thread in threads {
        match thread.join() {
            Ok(tally) => total.add(tally?),
            Err(_) => bail!("a supervising thread panicked"),
        }
    }
    if arguments.coverage {
        for (what, count) in &total.coverage {
            println!("  {count:6} {what}");
        }
    }
    for (key, count) in &total.kinds {
        println!("  {count:5} x {key}");
    }
    println!(
        "judge: {} sequences against {}, {} differ, {} not mountable, {:.1} s",
        total.run,
        arguments.subject,
        total.failed,
        total.without_oracle,
        start.elapsed().as_secs_f64()
    );
    Ok(total.failed == 0)
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.run += other.run;
        self.without_oracle += other.without_oracle;
        self.failed += other.failed;
        for (mine, theirs) in [
            (&mut self.kinds, other.kinds),
            (&mut self.coverage, other.coverage),
        ] {
            for (key, count) in theirs {
                *mine.entry(key).or_default() += count;
            }
        }
    }
}

/// Runs one share of the work, in as many processes as it takes.
fn run_job(mut arguments: Arguments) -> Result<Tally> {
    let mut total = Tally::default();
    loop {
        let base = arguments.backing.clone();
        let base = base.unwrap_or_else(std::env::temp_dir);
        let scratch = tempfile::Builder::new()
            .prefix("judge-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(base)?;
        let (status, mut tally) = run_process(&arguments, scratch.path(), true)?;
        let Some(signal) = status.signal() else {
            total.add(tally);
            if status.code().is_none_or(|code| code > 1) {
                bail!("a judge process ended with {status}");
            }
            return Ok(total);
        };
        let (number, case) = read_trace(&scratch.path().join(TRACE))?;
        let failure = death(&case, signal);
        tally.failed += 1;
        *tally.kinds.entry(failure.key.clone()).or_default() += 1;
        let mut again = |case: &mut Case| dies(&arguments, case);
        report(&arguments, &mut again, number, &case, &failure)?;
        let done = if arguments.replay.is_empty() {
            let done = (number - arguments.seed) / arguments.stride + 1;
            arguments.seed = number + arguments.stride;
            arguments.count = arguments.count.saturating_sub(done);
            done
        } else {
            arguments.replay.drain(..=number as usize);
            number + 1
        };
        tally.run = done;
        total.add(tally);
        let over = arguments.count == 0 && arguments.minutes.is_none();
        if over || total.kinds.len() >= arguments.max_failures {
            return Ok(total);
        }
    }
}

/// The failure that the death of the judge's process is.
fn death(case: &Case, signal: i32) -> Failure {
    let verb = case
        .steps
        .last()
        .map_or_else(String::new, |step| step.op.verb());
    let name = nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| signal.to_string(), |signal| signal.to_string());
    Failure {
        step: case.steps.len().saturating_sub(1),
        key: format!("{verb}: {name} for the program that uses the mount"),
        oracle: "lives".to_owned(),
        subject: name,
    }
}

/// Runs a case in a process of its own; different only if the process dies.
fn dies(arguments: &Arguments, case: &mut Case) -> Result<Verdict> {
    let scratch = tempfile::Builder::new().prefix("judge-").tempdir()?;
    let file = scratch.path().join("replay.txt");
    std::fs::write(&file, case.to_text()?)?;
    let alone = Arguments {
        replay: vec![file],
        ..arguments.clone()
    };
    let (status, _) = run_process(&alone, scratch.path(), false)?;
    match status.signal() {
        Some(signal) => {
            let (_, died) = read_trace(&scratch.path().join(TRACE))?;
            Ok(Verdict::Different(death(&died, signal)))
        }
        None => Ok(Verdict::Same),
    }
}

/// Runs a process to its end and collects what it last told.
fn run_process(arguments: &Arguments, scratch: &Path, aloud: bool) -> Result<(ExitStatus, Tally)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments.words())
        .arg(format!("--scratch={}", scratch.display()))
        .arg("--replay")
        .args(&arguments.replay)
        .stdout(Stdio::piped())
        .stderr(if aloud {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn()
        .context("starting a judge process")?;
    let mut tally = Tally::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            match line.strip_prefix(TALLY) {
                Some(json) => tally = serde_json::from_str(json)?,
                None if aloud => println!("{line}"),
                None => {}
            }
        }
    }
    Ok((child.wait()?, tally))
}
