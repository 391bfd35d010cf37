//! How far a run is, on standard error: a bar for people, lines for files.
use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Cell;
use crate::runner::Progress;

/// Shows each sample.
#[derive(Debug)]
pub struct Bar {
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar where standard error is a terminal.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{elapsed_precise} [{bar:30}] {pos}/{len} {wide_msg} {eta} left";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn step(&mut self, at: usize, of: usize, cell: &Cell) {
        let outcome = match (&cell.failure, cell.samples.last()) {
            (Some(failure), _) => format!("failed: {failure}"),
            (None, Some(s)) => format!("{:.2} ms, {:.2} ms cpu", s.wall * 1e3, s.cpu() * 1e3),
            (None, None) => "has no answer".to_owned(),
        };
        let line = format!("{} {}: {outcome}", cell.workload, cell.subject);
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(at as u64);
            bar.set_message(line);
            return;
        }
        // Nobody may be listening, which is no reason to stop measuring.
        drop(writeln!(std::io::stderr(), "[{at}/{of}] {line}"));
    }
}
