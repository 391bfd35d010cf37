//! Takes the samples: round after round, workload after workload, subject after subject.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::fixture::{Archive, Built, Fixture, Fixtures, Sizes};
use crate::ground::{Ground, Place};
use crate::machine::{self, Machine};
use crate::report::{Cell, Report};
use crate::sample::{Clock, Sample};
use crate::site::{Site, Stack, Touch};
use crate::subject::Subject;
use crate::workload::{Start, Workload};

/// What to measure.
pub struct Plan {
    /// The contenders; one of them should be kernel overlayfs.
    pub subjects: Vec<Box<dyn Subject>>,
    /// What they have to do.
    pub workloads: Vec<Workload>,
    /// How many samples of each pair.
    pub rounds: usize,
    /// No round begins that would end later than this after the first, judged by those before.
    pub limit: Option<Duration>,
    /// How much to do.
    pub sizes: Sizes,
    /// Where layers and uppers go; `fixtures` in it is kept for the next run, `run` is removed.
    pub scratch: PathBuf,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field(
                "subjects",
                &self.subjects.iter().map(|s| s.name()).collect::<Vec<_>>(),
            )
            .field("workloads", &self.workloads.len())
            .field("rounds", &self.rounds)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}

/// Hears how far a run is.
pub trait Progress {
    /// Sample `at` of `of` was taken, or could not be.
    fn step(&mut self, at: usize, of: usize, cell: &Cell);
}

/// Moves this process to a mount namespace of its own, so that no mount outlives it.
/// Call it before the first thread starts.
///
/// # Errors
/// When the kernel refuses: it needs root.
pub fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of our own; are you root?")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("make mounts private")
}

/// Measures everything in `plan`.
///
/// # Errors
/// When fixtures cannot be made or caches cannot be dropped. A subject that fails at a workload
/// is no error: its cell says so, and it is not asked again.
pub fn run(plan: &Plan, progress: &mut dyn Progress) -> Result<Report> {
    let ground = Ground::new(&plan.scratch)?;
    let machine = Machine::here(ground.describe());
    let fixtures = Fixtures::new(plan.sizes);
    let mut run = Run {
        plan,
        ground,
        fixtures,
        cells: empty_cells(plan),
    };
    let rounds = run.rounds(progress)?;
    Ok(Report {
        machine: Machine {
            load: machine::load(),
            ..machine
        },
        sizes: plan.sizes,
        rounds,
        subjects: plan
            .subjects
            .iter()
            .map(|s| (s.name().to_owned(), s.version()))
            .collect(),
        workloads: plan
            .workloads
            .iter()
            .map(|w| (w.name.clone(), w.about.to_owned()))
            .collect(),
        cells: run.cells,
    })
}

fn empty_cells(plan: &Plan) -> Vec<Cell> {
    let cell = |workload: &Workload, subject: &dyn Subject| Cell {
        workload: workload.name.clone(),
        subject: subject.name().to_owned(),
        samples: Vec::new(),
        failure: None,
    };
    let row = |workload| {
        plan.subjects
            .iter()
            .map(move |subject| cell(workload, &**subject))
    };
    plan.workloads.iter().flat_map(row).collect()
}

struct Run<'a> {
    plan: &'a Plan,
    ground: Ground,
    fixtures: Fixtures,
    cells: Vec<Cell>,
}

impl Run<'_> {
    /// Answers how many rounds there was time for.
    fn rounds(&mut self, progress: &mut dyn Progress) -> Result<usize> {
        let plan = self.plan;
        let subjects = plan.subjects.len();
        let of = plan.rounds * plan.workloads.len() * subjects;
        let mut at = 0;
        let start = Instant::now();
        for round in 0..plan.rounds {
            let rounds = u32::try_from(round).unwrap_or(u32::MAX);
            let one = start.elapsed() / rounds.max(1);
            if plan
                .limit
                .is_some_and(|limit| round > 0 && start.elapsed() + one > limit)
            {
                return Ok(round);
            }
            for (row, workload) in plan.workloads.iter().enumerate() {
                for turn in 0..subjects {
                    // Nobody is always first, or always after the same other.
                    let column = (turn + round + row) % subjects;
                    let cell = row * subjects + column;
                    self.fill(cell, workload, &*plan.subjects[column])?;
                    at += 1;
                    progress.step(at, of, &self.cells[cell]);
                }
            }
        }
        Ok(plan.rounds)
    }

    fn fill(&mut self, cell: usize, workload: &Workload, subject: &dyn Subject) -> Result<()> {
        let skip = workload.about_copy_up && !subject.copies_up();
        let skip = skip || (workload.touch != Touch::Reads && !subject.writes());
        if skip || self.cells[cell].failure.is_some() {
            return Ok(());
        }
        let bench = self.bench(workload, subject)?;
        let sample = bench.sample(workload, subject);
        bench.place.clear()?;
        match sample {
            Ok(sample) => self.cells[cell].samples.push(sample),
            Err(error) => self.cells[cell].failure = Some(format!("{error:#}")),
        }
        Ok(())
    }

    fn bench(&mut self, workload: &Workload, subject: &dyn Subject) -> Result<Bench<'_>> {
        // A plain directory shows the same files in one layer.
        let layers = if subject.copies_up() {
            workload.fixture.layers
        } else {
            1
        };
        let fixture = Fixture {
            layers,
            ..workload.fixture
        };
        let (mold, built) = self.fixtures.get(&self.ground, fixture)?;
        let archive = self.fixtures.archive(&self.ground)?;
        let place = self.ground.place(&mold)?;
        let sizes = self.plan.sizes;
        Ok(Bench {
            ground: &self.ground,
            place,
            layers,
            built,
            archive,
            sizes,
        })
    }
}

/// The place where one sample is taken, and what is there.
struct Bench<'a> {
    ground: &'a Ground,
    place: Place,
    layers: usize,
    built: Arc<Built>,
    archive: Arc<Archive>,
    sizes: Sizes,
}

impl Bench<'_> {
    fn sample(&self, workload: &Workload, subject: &dyn Subject) -> Result<Sample> {
        let stack = self.stack(workload, subject)?;
        if workload.start != Start::Cold {
            self.warm_layers(workload)?;
        }
        let clock = Clock::start(None)?;
        let mounted = subject.mount(&stack).context("mount")?;
        let site = Site {
            root: mounted.root().to_owned(),
            lowers: stack.lowers.clone(),
            built: Arc::clone(&self.built),
            sizes: self.sizes,
            archive: Arc::clone(&self.archive),
        };
        let sample = if workload.start == Start::Mounting {
            do_once(workload, &site)?;
            clock.stop(mounted.pid())?
        } else {
            self.timed(workload, &site, mounted.pid())?
        };
        (workload.check)(&site).context("check the result")?;
        mounted.unmount()?;
        Ok(sample)
    }

    fn stack(&self, workload: &Workload, subject: &dyn Subject) -> Result<Stack> {
        let plain = match workload.touch {
            Touch::Reads => self.place.layer(0),
            Touch::Adds => self.place.dir("plain")?,
            Touch::ChangesLower => self.copy_of_lower(subject)?,
        };
        Ok(Stack {
            lowers: (0..self.layers)
                .map(|index| self.place.layer(index))
                .collect(),
            upper: self.place.dir("upper")?,
            work: self.place.dir("work")?,
            mountpoint: self.place.dir("mnt")?,
            plain,
            options: workload.options,
        })
    }

    /// Only who changes the lower layer in place needs a copy of it.
    fn copy_of_lower(&self, subject: &dyn Subject) -> Result<PathBuf> {
        let copy = self.place.dir("plain")?;
        if !subject.copies_up() {
            let from = self.place.layer(0).join(".");
            let status = Command::new("cp").arg("-a").arg(from).arg(&copy).status()?;
            ensure!(status.success(), "cp -a ended with {status}");
        }
        Ok(copy)
    }

    /// Names, attributes and content of the layers get into the kernel's caches.
    fn warm_layers(&self, workload: &Workload) -> Result<()> {
        for index in 0..self.layers {
            warm(&self.place.layer(index), workload)?;
        }
        std::io::copy(&mut File::open(&self.archive.path)?, &mut std::io::sink())?;
        Ok(())
    }

    fn timed(&self, workload: &Workload, site: &Site, daemon: Option<u32>) -> Result<Sample> {
        (workload.prepare)(site).context("prepare")?;
        if workload.start == Start::Warm {
            do_once(workload, site)?;
        }
        if workload.start == Start::Cold || workload.touch != Touch::Reads {
            self.place.settle()?;
        }
        if workload.start == Start::Cold && !self.ground.is_cold_when_fresh() {
            drop_caches()?;
        }
        let passes = workload.passes;
        let clock = Clock::start(daemon)?;
        (0..passes).try_for_each(|_| do_once(workload, site))?;
        Ok(clock.stop(daemon)?.divided(passes))
    }
}

fn do_once(workload: &Workload, site: &Site) -> Result<()> {
    let done = (workload.run)(site)?;
    let expected = (workload.expect)(site);
    ensure!(done == expected, "did {done:?}, expected {expected:?}");
    Ok(())
}

/// Pages, directory entries and inodes of every file system.
fn drop_caches() -> Result<()> {
    let path = "/proc/sys/vm/drop_caches";
    fs::write(path, "3\n").with_context(|| format!("write {path}"))
}

fn warm(dir: &Path, workload: &Workload) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.metadata()?.file_type();
        if kind.is_dir() {
            warm(&entry.path(), workload)?;
        } else if kind.is_file() && workload.fixture.kind.has_content() {
            std::io::copy(&mut File::open(entry.path())?, &mut std::io::sink())?;
        }
    }
    Ok(())
}
