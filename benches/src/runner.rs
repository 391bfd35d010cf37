//! Takes the samples: round after round, workload after workload, subject after subject.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::fixture::{Built, Fixture, Fixtures, Sizes};
use crate::machine::{self, Machine};
use crate::report::{Cell, Report};
use crate::sample::{Sample, measure};
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
    /// How much to do.
    pub sizes: Sizes,
    /// Where layers and uppers go; everything below `run` in it is removed.
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
    let mut run = Run {
        plan,
        fixtures: Fixtures::new(plan.scratch.join("fixtures"), plan.sizes),
        cells: empty_cells(plan),
    };
    fs::create_dir_all(&plan.scratch)
        .with_context(|| format!("mkdir {}", plan.scratch.display()))?;
    let machine = Machine::here(&plan.scratch);
    run.rounds(progress)?;
    Ok(Report {
        machine: Machine {
            load: machine::load(),
            ..machine
        },
        sizes: plan.sizes,
        rounds: plan.rounds,
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
    fixtures: Fixtures,
    cells: Vec<Cell>,
}

impl Run<'_> {
    fn rounds(&mut self, progress: &mut dyn Progress) -> Result<()> {
        let plan = self.plan;
        let subjects = plan.subjects.len();
        let of = plan.rounds * plan.workloads.len() * subjects;
        let mut at = 0;
        for round in 0..plan.rounds {
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
        Ok(())
    }

    fn fill(&mut self, cell: usize, workload: &Workload, subject: &dyn Subject) -> Result<()> {
        let skip = workload.about_copy_up && !subject.copies_up();
        if skip || self.cells[cell].failure.is_some() {
            return Ok(());
        }
        let bench = self.bench(workload)?;
        match bench.sample(workload, subject) {
            Ok(sample) => self.cells[cell].samples.push(sample),
            Err(error) => self.cells[cell].failure = Some(format!("{error:#}")),
        }
        bench.clear()
    }

    fn bench(&mut self, workload: &Workload) -> Result<Bench> {
        let plain = self.fixtures.get(Fixture {
            layers: 1,
            ..workload.fixture
        })?;
        let bench = Bench {
            dir: self.plan.scratch.join("run"),
            built: self.fixtures.get(workload.fixture)?,
            plain: Arc::clone(&plain),
            archive: Some(self.fixtures.archive()?),
            sizes: self.plan.sizes,
        };
        bench.clear()?;
        Ok(bench)
    }
}

/// The place where one sample is taken.
struct Bench {
    dir: PathBuf,
    built: Arc<Built>,
    plain: Arc<Built>,
    archive: Option<Arc<crate::fixture::Archive>>,
    sizes: Sizes,
}

impl Bench {
    fn sample(&self, workload: &Workload, subject: &dyn Subject) -> Result<Sample> {
        let stack = self.stack(workload, subject)?;
        if workload.start != Start::Cold {
            self.warm_lowers(workload)?;
        }
        let mounted = subject.mount(&stack).context("mount")?;
        let site = Site {
            root: mounted.root().to_owned(),
            built: Arc::clone(&self.built),
            sizes: self.sizes,
            archive: self.archive.clone(),
        };
        let sample = timed(workload, &site, mounted.pid())?;
        (workload.check)(&site).context("check the result")?;
        mounted.unmount()?;
        Ok(sample)
    }

    fn stack(&self, workload: &Workload, subject: &dyn Subject) -> Result<Stack> {
        let stack = Stack {
            lowers: self.built.lowers.clone(),
            upper: self.dir.join("upper"),
            work: self.dir.join("work"),
            mountpoint: self.dir.join("mnt"),
            plain: match workload.touch {
                Touch::Reads => self.plain.lowers[0].clone(),
                Touch::Adds | Touch::ChangesLower => self.dir.join("plain"),
            },
        };
        for dir in [&stack.upper, &stack.work, &stack.mountpoint, &stack.plain] {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        if workload.touch == Touch::ChangesLower && !subject.copies_up() {
            let from = self.plain.lowers[0].join(".");
            let status = Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(&stack.plain)
                .status()?;
            ensure!(status.success(), "cp -a ended with {status}");
        }
        Ok(stack)
    }

    /// Names, attributes and content of the layers get into the kernel's caches.
    fn warm_lowers(&self, workload: &Workload) -> Result<()> {
        for lower in [&self.built.lowers, &self.plain.lowers]
            .into_iter()
            .flatten()
        {
            warm(lower, workload)?;
        }
        if let Some(archive) = &self.archive {
            std::io::copy(&mut File::open(&archive.path)?, &mut std::io::sink())?;
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        if self.dir.exists() {
            let dir = self.dir.display();
            fs::remove_dir_all(&self.dir).with_context(|| format!("remove {dir}"))?;
        }
        Ok(())
    }
}

fn timed(workload: &Workload, site: &Site, daemon: Option<u32>) -> Result<Sample> {
    (workload.prepare)(site).context("prepare")?;
    let run = || {
        let done = (workload.run)(site)?;
        let expected = (workload.expect)(site);
        ensure!(done == expected, "did {done:?}, expected {expected:?}");
        Ok(())
    };
    if workload.start == Start::Warm {
        run()?;
    }
    if workload.start == Start::Cold || workload.touch != Touch::Reads {
        nix::unistd::sync();
    }
    if workload.start == Start::Cold {
        drop_caches()?;
    }
    let passes = workload.passes;
    let (sample, ()) = measure(daemon, || (0..passes).try_for_each(|_| run()))?;
    Ok(sample.divided(passes))
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
