//! Runs the benchmarks from the command line.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use plyfs_benches::{
    Cell, KernelOverlay, Plain, Plan, Program, Progress, Sizes, Subject, Workload, default_scratch,
    isolate, markdown, run, workloads,
};

/// Compares plyfs with kernel overlayfs and others: medians of interleaved rounds.
///
/// Needs root. The table goes to standard output, progress to standard error.
#[derive(Debug, Parser)]
#[command(name = "plyfs-bench")]
struct Args {
    /// The plyfs binary
    #[arg(long, default_value = "plyfs")]
    plyfs: PathBuf,
    /// The fuse-overlayfs binary; left out of the comparison when not given
    #[arg(long)]
    fuse_overlayfs: Option<PathBuf>,
    /// Another mount program to compare with
    #[arg(long, value_name = "NAME=COMMAND")]
    contender: Vec<String>,
    /// Compare these only (a name from the table)
    #[arg(long, value_name = "NAME")]
    subject: Vec<String>,
    /// Run workloads whose name starts with this
    #[arg(long, value_name = "PREFIX")]
    workload: Vec<String>,
    /// Depths of the stack, for workloads where it matters
    #[arg(long, value_delimiter = ',', default_value = "1")]
    layers: Vec<usize>,
    /// Samples of each subject at each workload
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tenth of the work
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where layers and uppers go, kept for the next run: /dev/shm/plyfs-bench if 5 GiB fit in
    /// there, which keeps the disk out of the results, else /var/tmp/plyfs-bench
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// List the workloads
    #[arg(long)]
    list: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let workloads = chosen_workloads(&args)?;
    if args.list {
        for workload in &workloads {
            writeln!(std::io::stdout(), "{:24} {}", workload.name, workload.about)?;
        }
        return Ok(());
    }
    let sizes = if args.quick {
        Sizes::QUICK
    } else {
        Sizes::FULL
    };
    let plan = Plan {
        subjects: subjects(&args)?,
        workloads,
        rounds: args.rounds.max(1),
        sizes,
        scratch: args
            .scratch
            .clone()
            .unwrap_or_else(|| default_scratch(&sizes)),
    };
    isolate()?;
    let report = run(&plan, &mut Lines)?;
    if let Some(path) = &args.json {
        let text = serde_json::to_vec_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    write!(std::io::stdout(), "{}", markdown(&report))?;
    Ok(())
}

fn subjects(args: &Args) -> Result<Vec<Box<dyn Subject>>> {
    let mut all: Vec<Box<dyn Subject>> = vec![Box::new(Plain), Box::new(KernelOverlay)];
    all.push(Box::new(Program::new(
        "plyfs",
        &args.plyfs.display().to_string(),
    )?));
    if let Some(path) = &args.fuse_overlayfs {
        all.push(Box::new(Program::new(
            "fuse-overlayfs",
            &path.display().to_string(),
        )?));
    }
    for contender in &args.contender {
        all.push(Box::new(Program::parse(contender)?));
    }
    for name in &args.subject {
        if !all.iter().any(|subject| subject.name() == name) {
            bail!("no subject {name:?}; there are {}", names(&all).join(", "));
        }
    }
    all.retain(|s| args.subject.is_empty() || args.subject.iter().any(|name| name == s.name()));
    Ok(all)
}

fn names(subjects: &[Box<dyn Subject>]) -> Vec<&str> {
    subjects.iter().map(|subject| subject.name()).collect()
}

fn chosen_workloads(args: &Args) -> Result<Vec<Workload>> {
    let mut all = workloads(&args.layers);
    for prefix in &args.workload {
        if !all.iter().any(|workload| workload.name.starts_with(prefix)) {
            bail!("no workload starts with {prefix:?}; --list shows them");
        }
    }
    let wanted = |workload: &Workload| {
        args.workload.is_empty() || args.workload.iter().any(|p| workload.name.starts_with(p))
    };
    all.retain(wanted);
    Ok(all)
}

/// One line for each sample.
struct Lines;

impl Progress for Lines {
    fn step(&mut self, at: usize, of: usize, cell: &Cell) {
        let outcome = match (&cell.failure, cell.samples.last()) {
            (Some(failure), _) => format!("failed: {failure}"),
            (None, Some(s)) => format!("{:.2} ms, {:.2} ms cpu", s.wall * 1e3, s.cpu() * 1e3),
            (None, None) => "has no answer".to_owned(),
        };
        let line = format!(
            "[{at}/{of}] {} {}: {outcome}\n",
            cell.workload, cell.subject
        );
        // Nobody may be listening, which is no reason to stop measuring.
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}
