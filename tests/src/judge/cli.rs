//! The judge's command line: how many cases, from which seed, against whom, and the report.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use super::case::Case;
use super::gen_ops::{Generator, layer_steps};
use super::gen_stack::stack;
use super::mounts::Implementation;
use super::rng::Rng;
use super::runner::{Failure, Runner, Source, Verdict};
use super::shrink::shrink;
use super::watch::Watch;
use super::{ns, outcome};

/// Compare a union filesystem with kernel overlayfs on random stacks and operations.
///
/// Needs root. Everything happens in a private mount namespace; nothing stays mounted.
/// Exit status: 0 no difference, 1 differences, 2 the judge itself failed.
#[derive(Debug, Clone, Parser)]
#[command(name = "judge")]
pub struct Arguments {
    /// Seed of the first case; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cases to run.
    #[arg(long, default_value_t = 200)]
    count: u64,
    /// Steps in a case.
    #[arg(long, default_value_t = 40)]
    ops: usize,
    /// Run until this many minutes have passed, whatever the count.
    #[arg(long)]
    minutes: Option<u64>,
    /// Who is judged: `plyfs`, `kernel` (finds nothing, or the judge is wrong), or a mount program.
    #[arg(long, default_value = "plyfs")]
    subject: String,
    /// Mount options for both sides, such as `redirect_dir=on,metacopy=on`.
    #[arg(long, default_value = "")]
    options: String,
    /// Mount options for the subject alone.
    #[arg(long, default_value = "")]
    subject_options: String,
    /// Percent of cases whose top lower was written by an earlier kernel mount with redirects and
    /// metacopy.
    #[arg(long, default_value_t = 15)]
    layered: u64,
    /// Keep the layers in this directory instead of on a fresh tmpfs per case.
    #[arg(long)]
    backing: Option<PathBuf>,
    /// Facts that do not count, such as `nlink,d_ino`: to look past a known difference.
    #[arg(long, value_delimiter = ',')]
    ignore: Vec<String>,
    /// Stop after this many different failures.
    #[arg(long, default_value_t = 10)]
    max_failures: usize,
    /// Seconds to spend on making one failing case small.
    #[arg(long, default_value_t = 30)]
    shrink_seconds: u64,
    /// Seconds without progress after which the subject counts as hung.
    #[arg(long, default_value_t = 15)]
    hang_seconds: u64,
    /// Write each small failing case into this directory.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Run these cases instead of random ones.
    #[arg(long, num_args = 1..)]
    replay: Vec<PathBuf>,
    /// Processes that share the work.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Distance between the seeds of one process (set by --jobs).
    #[arg(long, default_value_t = 1, hide = true)]
    stride: u64,
    /// Print how often each operation ended how.
    #[arg(long)]
    coverage: bool,
    /// Print every seed as it is run.
    #[arg(long, short)]
    verbose: bool,
}

/// What a run found.
#[derive(Debug, Default)]
struct Tally {
    run: u64,
    without_oracle: u64,
    failed: u64,
    /// How often each kind of failure came.
    kinds: BTreeMap<String, u64>,
}

/// Runs the judge; true when no difference was found.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.jobs > 1 && arguments.replay.is_empty() {
        return run_jobs(arguments);
    }
    outcome::start_clock();
    ns::enter()?;
    let watch = Watch::start(Duration::from_secs(arguments.hang_seconds));
    let base = arguments.backing.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new()
        .prefix("judge-")
        .tempdir_in(&base)?;
    let runner = Runner {
        scratch: scratch.path().to_owned(),
        tmpfs: arguments.backing.is_none(),
        subject: subject(&arguments.subject)?,
        subject_options: arguments.subject_options.clone(),
        ignored: arguments.ignore.clone(),
        watch,
        coverage: Default::default(),
    };
    std::fs::set_permissions(
        scratch.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let start = Instant::now();
    let tally = if arguments.replay.is_empty() {
        random(arguments, &runner, start)?
    } else {
        replay(&arguments.replay, &runner)?
    };
    if arguments.coverage {
        for ((verb, ending), count) in runner.coverage.borrow().iter() {
            println!("  {count:6} {verb} {ending}");
        }
    }
    for (key, count) in &tally.kinds {
        println!("  {count:5} x {key}");
    }
    println!(
        "judge: {} sequences against {}, {} differ, {} not mountable, {:.1} s",
        tally.run,
        arguments.subject,
        tally.failed,
        tally.without_oracle,
        start.elapsed().as_secs_f64()
    );
    Ok(tally.failed == 0)
}

fn subject(name: &str) -> Result<Implementation> {
    let words: Vec<String> = match name {
        "kernel" => return Ok(Implementation::Kernel),
        "plyfs" => vec![plyfs_testkit::bin().display().to_string()],
        other => other.split_whitespace().map(str::to_owned).collect(),
    };
    Ok(Implementation::Program(words))
}

fn random(arguments: &Arguments, runner: &Runner, start: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    let limit = arguments
        .minutes
        .map(|minutes| Duration::from_secs(60 * minutes));
    let mut seed = arguments.seed;
    let enough = |tally: &Tally| match limit {
        Some(limit) => start.elapsed() > limit,
        None => tally.run >= arguments.count,
    };
    while !enough(&tally) && tally.kinds.len() < arguments.max_failures {
        if arguments.verbose {
            println!("seed {seed}");
        }
        let mut rng = Rng::new(seed);
        let mut case = stack(&mut rng);
        case.options = arguments.options.clone();
        if rng.chance(arguments.layered) {
            let mut generator = Generator::new(rng.clone(), &case, false);
            case.pre = layer_steps(&mut generator, 8);
        }
        let generator = Generator::new(rng, &case, true).on_disk(!runner.tmpfs);
        let source = Source::Generate(generator, arguments.ops);
        let verdict = runner
            .run(&mut case, source)
            .with_context(|| format!("seed {seed}"))?;
        tally.run += 1;
        match verdict {
            Verdict::Same => {}
            Verdict::NoOracle(why) => {
                tally.without_oracle += 1;
                if arguments.verbose {
                    println!("seed {seed}: {why}");
                }
            }
            Verdict::Different(failure) => {
                tally.failed += 1;
                let times = tally.kinds.entry(failure.key.clone()).or_default();
                *times += 1;
                if *times == 1 {
                    report(arguments, runner, seed, &case, &failure)?;
                }
            }
        }
        seed += arguments.stride;
    }
    Ok(tally)
}

/// Shrinks a failure and prints it in the form that `--replay` reads.
fn report(
    arguments: &Arguments,
    runner: &Runner,
    seed: u64,
    case: &Case,
    failure: &Failure,
) -> Result<()> {
    let limit = Duration::from_secs(arguments.shrink_seconds);
    let (case, failure) = shrink(runner, case, failure, limit)?;
    let text = format!("# seed {seed}\n{}{}", describe(&failure), case.to_text()?);
    println!("{text}");
    if let Some(dir) = &arguments.keep {
        std::fs::create_dir_all(dir)?;
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let key: String = failure.key.chars().map(word).collect();
        std::fs::write(dir.join(format!("{key}-{seed}.txt")), &text)?;
    }
    Ok(())
}

fn describe(failure: &Failure) -> String {
    format!(
        "# {} at step {}\n#  oracle: {}\n# subject: {}\n",
        failure.key,
        failure.step,
        failure.oracle.replace('\n', " "),
        failure.subject.replace('\n', " ")
    )
}

fn replay(paths: &[PathBuf], runner: &Runner) -> Result<Tally> {
    let mut tally = Tally::default();
    for path in paths {
        let mut case = read_case(path)?;
        tally.run += 1;
        match runner.run(&mut case, Source::Replay)? {
            Verdict::Same => println!("{}: same", path.display()),
            Verdict::NoOracle(why) => {
                tally.without_oracle += 1;
                println!("{}: the kernel does not mount it: {why}", path.display());
            }
            Verdict::Different(failure) => {
                tally.failed += 1;
                *tally.kinds.entry(failure.key.clone()).or_default() += 1;
                println!("{}: differs\n{}", path.display(), describe(&failure));
            }
        }
    }
    Ok(tally)
}

fn read_case(path: &Path) -> Result<Case> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Case::from_text(&text).with_context(|| path.display().to_string())
}

/// Splits the seeds over processes: a mount namespace, ids and a umask belong to one process each.
fn run_jobs(arguments: &Arguments) -> Result<bool> {
    let me = std::env::current_exe()?;
    let mut children = Vec::new();
    for job in 0..arguments.jobs {
        let mut command = Command::new(&me);
        let share = (arguments.count + arguments.jobs - 1 - job) / arguments.jobs;
        command
            .args(child_words(arguments, job, share))
            .stdout(Stdio::piped());
        children.push(command.spawn().context("starting a judge process")?);
    }
    let mut good = true;
    let readers: Vec<_> = children
        .iter_mut()
        .filter_map(|child| child.stdout.take())
        .map(|out| {
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    println!("{line}");
                }
            })
        })
        .collect();
    for mut child in children {
        let status = child.wait()?;
        good &= status.success();
        if status.code().is_none_or(|code| code > 1) {
            bail!("a judge process ended with {status}");
        }
    }
    for reader in readers {
        if reader.join().is_err() {
            bail!("a reader of a judge process's output panicked");
        }
    }
    Ok(good)
}

fn child_words(arguments: &Arguments, job: u64, share: u64) -> Vec<String> {
    let mut words = vec![
        format!("--seed={}", arguments.seed + job),
        format!("--stride={}", arguments.jobs),
        format!("--count={share}"),
        format!("--ops={}", arguments.ops),
        format!("--subject={}", arguments.subject),
        format!("--options={}", arguments.options),
        format!("--subject-options={}", arguments.subject_options),
        format!("--layered={}", arguments.layered),
        format!("--max-failures={}", arguments.max_failures),
        format!("--shrink-seconds={}", arguments.shrink_seconds),
        format!("--ignore={}", arguments.ignore.join(",")),
        format!("--hang-seconds={}", arguments.hang_seconds),
    ];
    words.extend(
        arguments
            .minutes
            .map(|minutes| format!("--minutes={minutes}")),
    );
    words.extend(
        arguments
            .backing
            .iter()
            .map(|dir| format!("--backing={}", dir.display())),
    );
    words.extend(
        arguments
            .keep
            .iter()
            .map(|dir| format!("--keep={}", dir.display())),
    );
    words.extend(arguments.coverage.then(|| "--coverage".to_owned()));
    words.extend(arguments.verbose.then(|| "--verbose".to_owned()));
    words
}
