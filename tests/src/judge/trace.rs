//! What is being done right now, in a file that outlives the process: a mapping that faults takes the
//! whole driver with it, and the case must still be known.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::case::Case;
use super::ops::Step;

/// The file: the text form of the running case, with the steps so far.
#[derive(Debug)]
pub(crate) struct Trace {
    file: RefCell<File>,
    number: Cell<u64>,
}

impl Trace {
    /// Starts an empty trace.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self {
            file: RefCell::new(file),
            number: Cell::new(0),
        })
    }

    /// The seed of the cases to come, or the place of a replayed one in the list of files.
    pub(crate) fn number(&self, number: u64) {
        self.number.set(number);
    }

    /// This case is run now.
    pub(crate) fn case(&self, case: &Case) -> Result<()> {
        let stack = Case {
            steps: Vec::new(),
            ..case.clone()
        };
        let text = format!("# {}\n{}steps\n", self.number.get(), stack.to_text()?);
        let mut file = self.file.borrow_mut();
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        Ok(())
    }

    /// This step is run now.
    pub(crate) fn step(&self, step: &Step) -> Result<()> {
        let line = serde_json::to_string(step)? + "\n";
        self.file.borrow_mut().write_all(line.as_bytes())?;
        Ok(())
    }
}

/// The case in a trace that a dead process left, and its number.
pub(crate) fn read_trace(path: &Path) -> Result<(u64, Case)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let first = text.lines().next().unwrap_or("");
    let number = first.trim_start_matches("# ").parse();
    let number = number.with_context(|| format!("{}: no number", path.display()))?;
    Ok((number, Case::from_text(&text)?))
}
