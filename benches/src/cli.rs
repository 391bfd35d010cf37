//! The command line of a run, for `plyfs bench` and for `plyfs-bench` alike.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::contenders::{found_here, passing};
use crate::progress::Bar;
use crate::{
    KernelOverlay, Plain, Plan, Program, Report, Sizes, Subject, Workload, default_scratch,
    isolate, markdown, page, run, workloads,
};

/// What to compare, and where the results go.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Another mount program to compare with, called as COMMAND -f -o OPTIONS MOUNTPOINT
    #[arg(long, value_name = "NAME=COMMAND")]
    pub contender: Vec<String>,
    /// Compare these only (a name from the table)
    #[arg(long, value_name = "NAME")]
    pub subject: Vec<String>,
    /// Run workloads whose name starts with this
    #[arg(long, value_name = "PREFIX")]
    pub workload: Vec<String>,
    /// Depths of the stack, for workloads where it matters
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub layers: Vec<usize>,
    /// Samples of each subject at each workload
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Fewer rounds, if this many minutes are over; one is always taken whole
    #[arg(long, value_name = "N")]
    pub minutes: Option<u64>,
    /// A tenth of the work
    #[arg(long)]
    pub quick: bool,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots to this file; it needs nothing else to be shown
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where layers and uppers go, kept for the next run: /dev/shm/plyfs-bench if 5 GiB fit in
    /// there, which keeps the disk out of the results, else /var/tmp/plyfs-bench
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// List the workloads
    #[arg(long)]
    pub list: bool,
}

impl Options {
    /// Measures what was asked for with `plyfs` as the subject of that name, and writes the table
    /// to standard output.
    ///
    /// # Errors
    /// When a name is unknown, without root, or when a result cannot be written.
    pub fn run(&self, plyfs: &Path, fuse_overlayfs: Option<&Path>) -> Result<()> {
        let workloads = self.workloads()?;
        if self.list {
            for workload in &workloads {
                writeln!(std::io::stdout(), "{:24} {}", workload.name, workload.about)?;
            }
            return Ok(());
        }
        let sizes = match self.quick {
            true => Sizes::QUICK,
            false => Sizes::FULL,
        };
        let scratch = self.scratch.clone();
        let plan = Plan {
            subjects: self.subjects(plyfs, fuse_overlayfs)?,
            workloads,
            rounds: self.rounds.max(1),
            limit: self.minutes.map(|n| Duration::from_secs(60 * n)),
            sizes,
            scratch: scratch.unwrap_or_else(|| default_scratch(&sizes)),
        };
        isolate()?;
        let report = run(&plan, &mut Bar::new())?;
        self.write(&report)
    }

    fn write(&self, report: &Report) -> Result<()> {
        if let Some(path) = &self.json {
            save(path, &serde_json::to_vec_pretty(report)?)?;
        }
        if let Some(path) = &self.html {
            save(path, page(report).as_bytes())?;
        }
        write!(std::io::stdout(), "{}", markdown(report))?;
        Ok(())
    }

    fn subjects(
        &self,
        plyfs: &Path,
        fuse_overlayfs: Option<&Path>,
    ) -> Result<Vec<Box<dyn Subject>>> {
        let mut all: Vec<Box<dyn Subject>> = vec![Box::new(Plain), Box::new(KernelOverlay)];
        all.push(Box::new(Program::new(
            "plyfs",
            &plyfs.display().to_string(),
        )?));
        all.extend(passing(plyfs)?);
        all.extend(found_here(fuse_overlayfs)?);
        for contender in &self.contender {
            all.push(Box::new(Program::parse(contender)?));
        }
        for name in &self.subject {
            if !all.iter().any(|subject| subject.name() == name) {
                bail!("no subject {name:?}; there are {}", names(&all).join(", "));
            }
        }
        let wanted = |s: &dyn Subject| self.subject.iter().any(|name| name == s.name());
        all.retain(|s| self.subject.is_empty() || wanted(&**s));
        Ok(all)
    }

    fn workloads(&self) -> Result<Vec<Workload>> {
        let mut all = workloads(&self.layers);
        for prefix in &self.workload {
            if !all.iter().any(|workload| workload.name.starts_with(prefix)) {
                bail!("no workload starts with {prefix:?}; --list shows them");
            }
        }
        let wanted = |workload: &Workload| {
            self.workload.is_empty() || self.workload.iter().any(|p| workload.name.starts_with(p))
        };
        all.retain(wanted);
        Ok(all)
    }
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn names(subjects: &[Box<dyn Subject>]) -> Vec<&str> {
    subjects.iter().map(|subject| subject.name()).collect()
}
