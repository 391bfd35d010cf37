//! The samples of a run, summed up.
use serde::Serialize;

use crate::fixture::Sizes;
use crate::machine::Machine;
use crate::sample::Sample;
use crate::stats::Summary;
use crate::subject::REFERENCE;

/// The spread from which on a cell says more about the machine than about the subject.
pub(crate) const NOISY: f64 = 0.25;

/// One subject at one workload.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The workload.
    pub workload: String,
    /// The subject.
    pub subject: String,
    /// What was measured, in the order of the rounds.
    pub samples: Vec<Sample>,
    /// Why there is nothing, or not everything, to show.
    pub failure: Option<String>,
}

impl Cell {
    /// Elapsed time in seconds.
    #[must_use]
    pub fn wall(&self) -> Option<Summary> {
        self.summary(|sample| sample.wall)
    }

    /// Processor time of both sides in seconds.
    #[must_use]
    pub fn cpu(&self) -> Option<Summary> {
        self.summary(Sample::cpu)
    }

    /// Memory of the daemon afterwards, in bytes; nothing where there is no daemon.
    #[must_use]
    pub fn memory(&self) -> Option<Summary> {
        let memory = self.summary(|sample| sample.daemon_memory as f64);
        memory.filter(|summary| summary.median > 0.0)
    }

    /// A subject that failed once has no time: the failing run may have been the slow one.
    fn summary(&self, of: impl Fn(&Sample) -> f64) -> Option<Summary> {
        if self.failure.is_some() {
            return None;
        }
        Summary::of(&self.samples.iter().map(of).collect::<Vec<_>>())
    }
}

/// Everything that a run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// How much there was to do.
    pub sizes: Sizes,
    /// How many rounds.
    pub rounds: usize,
    /// Names and versions of the subjects.
    pub subjects: Vec<(String, String)>,
    /// Names and descriptions of the workloads.
    pub workloads: Vec<(String, String)>,
    /// One cell for each pair.
    pub cells: Vec<Cell>,
}

impl Report {
    /// The cell of a pair.
    #[must_use]
    pub fn cell(&self, workload: &str, subject: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.workload == workload && cell.subject == subject)
    }

    /// The ratio of medians to kernel overlayfs in this run: elapsed and processor time.
    #[must_use]
    pub fn ratio(&self, cell: &Cell) -> Option<(f64, f64)> {
        let reference = self.cell(&cell.workload, REFERENCE)?;
        let wall = cell.wall()?.median / reference.wall()?.median;
        let cpu = cell.cpu()?.median / reference.cpu()?.median;
        Some((wall, cpu))
    }
}
