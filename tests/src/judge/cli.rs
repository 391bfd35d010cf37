//! The judge's command line: how many cases, from which seed, against whom, and the report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::gen_ops::{Generator, layer_steps};
use super::gen_stack::{stack, with_data_only, with_user_marks};
use super::mounts::Implementation;
use super::rng::Rng;
use super::runner::{Failure, Runner, Source, Verdict};
use super::shrink::{Again, shrink};
use super::supervise::{TALLY, TRACE, supervise};
use super::trace::Trace;
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
    pub(crate) seed: u64,
    /// How many cases to run.
    #[arg(long, default_value_t = 200)]
    pub(crate) count: u64,
    /// Steps in a case.
    #[arg(long, default_value_t = 40)]
    pub(crate) ops: usize,
    /// Run until this many minutes have passed, whatever the count.
    #[arg(long)]
    pub(crate) minutes: Option<u64>,
    /// Who is judged: `plyfs`, `kernel` (finds nothing, or the judge is wrong), or a mount program.
    #[arg(long, default_value = "plyfs")]
    pub(crate) subject: String,
    /// Mount options for both sides, such as `redirect_dir=on,metacopy=on`.
    #[arg(long, default_value = "")]
    pub(crate) options: String,
    /// Mount options for the subject alone.
    #[arg(long, default_value = "")]
    pub(crate) subject_options: String,
    /// Percent of cases whose top lower was written by an earlier kernel mount with redirects and
    /// metacopy.
    #[arg(long, default_value_t = 15)]
    pub(crate) layered: u64,
    /// Keep the layers in this directory instead of on a fresh tmpfs per case.
    #[arg(long)]
    pub(crate) backing: Option<PathBuf>,
    /// Facts that do not count, such as `nlink,d_ino`: to look past a known difference.
    #[arg(long, value_delimiter = ',')]
    pub(crate) ignore: Vec<String>,
    /// Stop after this many different failures.
    #[arg(long, default_value_t = 10)]
    pub(crate) max_failures: usize,
    /// Seconds to spend on making one failing case small.
    #[arg(long, default_value_t = 30)]
    pub(crate) shrink_seconds: u64,
    /// Seconds without progress after which the subject counts as hung.
    #[arg(long, default_value_t = 15)]
    pub(crate) hang_seconds: u64,
    /// Write each small failing case into this directory.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
    /// Run these cases instead of random ones.
    #[arg(long, num_args = 0..)]
    pub(crate) replay: Vec<PathBuf>,
    /// Processes that share the work.
    #[arg(long, default_value_t = 1)]
    pub(crate) jobs: u64,
    /// Distance between the seeds of one process (set by --jobs).
    #[arg(long, default_value_t = 1, hide = true)]
    pub(crate) stride: u64,
    /// Work in this directory and keep there what is being done (set for each process).
    #[arg(long, hide = true)]
    pub(crate) scratch: Option<PathBuf>,
    /// Also make files append-only and immutable (chattr +a, +i).
    #[arg(long)]
    pub(crate) immutable: bool,
    /// Change who mounts which side after every so many steps, so that each upper is written by the
    /// kernel and by the subject in turn.
    #[arg(long, default_value_t = 0)]
    pub(crate) alternate: usize,
    /// Put the data of some lower files into a data-only layer; needs metacopy=on.
    #[arg(long)]
    pub(crate) data_only: bool,
    /// Run one after the other what else threads run at once.
    #[arg(long)]
    pub(crate) one_thread: bool,
    /// Print how often each operation ended how.
    #[arg(long)]
    pub(crate) coverage: bool,
    /// Print every seed as it is run.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// What a run found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) run: u64,
    pub(crate) without_oracle: u64,
    pub(crate) failed: u64,
    /// How often each kind of failure came.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// How often each operation ended how on the oracle.
    pub(crate) coverage: BTreeMap<String, u64>,
}

/// Runs the judge; true when no difference was found.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let Some(scratch) = &arguments.scratch else {
        return supervise(arguments);
    };
    outcome::start_clock();
    ns::enter()?;
    let runner = Runner {
        scratch: scratch.clone(),
        tmpfs: arguments.backing.is_none(),
        subject: subject(&arguments.subject)?,
        subject_options: arguments.subject_options.clone(),
        ignored: arguments.ignore.clone(),
        one_thread: arguments.one_thread,
        alternate: arguments.alternate,
        watch: Watch::start(Duration::from_secs(arguments.hang_seconds)),
        trace: Trace::new(&scratch.join(TRACE))?,
        coverage: Default::default(),
    };
    let mut tally = if arguments.replay.is_empty() {
        random(arguments, &runner)?
    } else {
        replay(&arguments.replay, &runner)?
    };
    tally.coverage = runner.coverage.take();
    tell(&tally)?;
    Ok(tally.failed == 0)
}

/// Tells the parent what was found so far.
fn tell(tally: &Tally) -> Result<()> {
    println!("{TALLY}{}", serde_json::to_string(tally)?);
    Ok(())
}

impl Arguments {
    /// These arguments for a process that does the work, without the files to replay.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![
            format!("--seed={}", self.seed),
            format!("--stride={}", self.stride),
            format!("--count={}", self.count),
            format!("--ops={}", self.ops),
            format!("--subject={}", self.subject),
            format!("--options={}", self.options),
            format!("--subject-options={}", self.subject_options),
            format!("--layered={}", self.layered),
            format!("--max-failures={}", self.max_failures),
            format!("--shrink-seconds={}", self.shrink_seconds),
            format!("--ignore={}", self.ignore.join(",")),
            format!("--hang-seconds={}", self.hang_seconds),
            format!("--alternate={}", self.alternate),
        ];
        words.extend(self.minutes.map(|minutes| format!("--minutes={minutes}")));
        let dir = |name: &str, dir: &PathBuf| format!("--{name}={}", dir.display());
        words.extend(self.backing.iter().map(|path| dir("backing", path)));
        words.extend(self.keep.iter().map(|path| dir("keep", path)));
        words.extend(self.immutable.then(|| "--immutable".to_owned()));
        words.extend(self.data_only.then(|| "--data-only".to_owned()));
        words.extend(self.one_thread.then(|| "--one-thread".to_owned()));
        words.extend(self.coverage.then(|| "--coverage".to_owned()));
        words.extend(self.verbose.then(|| "--verbose".to_owned()));
        words
    }
}

fn subject(name: &str) -> Result<Implementation> {
    let words: Vec<String> = match name {
        "kernel" => return Ok(Implementation::Kernel),
        "plyfs" => vec![plyfs_testkit::bin().display().to_string()],
        other => other.split_whitespace().map(str::to_owned).collect(),
    };
    Ok(Implementation::Program(words))
}

fn random(arguments: &Arguments, runner: &Runner) -> Result<Tally> {
    let start = Instant::now();
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
        runner.trace.number(seed);
        let mut rng = Rng::new(seed);
        let mut case = stack(&mut rng);
        case.options = arguments.options.clone();
        if arguments.data_only {
            with_data_only(&mut rng, &mut case);
        }
        let in_user = case.has("userxattr");
        if in_user {
            with_user_marks(&mut case);
        }
        // With userxattr the kernel makes no redirects.
        if rng.chance(arguments.layered) && !in_user {
            let mut generator = Generator::new(rng.clone(), &case, false);
            case.pre = layer_steps(&mut generator, 8);
        }
        let generator = Generator::new(rng, &case, true)
            .on_disk(!runner.tmpfs)
            .with_immutable(arguments.immutable);
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
                // Told at once: the next case may be the end of this process.
                let times = tally.kinds.entry(failure.key.clone()).or_default();
                *times += 1;
                if *times == 1 {
                    let mut again = |case: &mut Case| runner.run(case, Source::Replay);
                    report(arguments, &mut again, seed, &case, &failure)?;
                }
                tell(&tally)?;
            }
        }
        seed += arguments.stride;
    }
    Ok(tally)
}

/// Shrinks a failure and prints it in the form that `--replay` reads.
pub(crate) fn report(
    arguments: &Arguments,
    run: &mut Again<'_>,
    seed: u64,
    case: &Case,
    failure: &Failure,
) -> Result<()> {
    let limit = Duration::from_secs(arguments.shrink_seconds);
    let (case, failure) = shrink(run, case, failure, limit)?;
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
    for (number, path) in paths.iter().enumerate() {
        let mut case = read_case(path)?;
        runner.trace.number(number as u64);
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
