//! The command line of `fsx`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use super::batch;
use super::op::BLOCK;

/// How many epochs share a stack.
const BATCH: u64 = 8;

/// Works at random on files of a union mount and checks every byte that is read.
#[derive(Debug, Parser)]
#[command(name = "fsx")]
pub struct Arguments {
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many steps in all.
    #[arg(long, default_value_t = 1_000_000)]
    pub ops: u64,
    /// Run this epoch alone, as a failure asks for.
    #[arg(long)]
    pub epoch: Option<u64>,
    /// How many steps an epoch has.
    #[arg(long, default_value_t = 1500)]
    pub epoch_ops: u64,
    /// No file becomes larger; a multiple of 4096.
    #[arg(long, default_value_t = 256 << 10)]
    pub max_len: u64,
    /// How many epochs run at once.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Have dirty pages written back all the time.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub disturb: bool,
    /// plyfs, kernel, or another mount program.
    #[arg(long, default_value = "plyfs")]
    pub subject: String,
    /// Further options of the mount.
    #[arg(long, default_value = "")]
    pub options: String,
}

/// Runs as the arguments say.
///
/// # Errors
/// At the first difference; the text has the steps and how to replay them.
pub fn run(arguments: &Arguments) -> Result<()> {
    let fits = arguments.max_len > 0 && arguments.max_len.is_multiple_of(BLOCK);
    ensure!(
        fits,
        "--max-len must be a multiple of {BLOCK}, and more than nothing"
    );
    println!("fsx: fallocate offers {:?}", batch::spaces_of(arguments)?);
    if let Some(epoch) = arguments.epoch {
        return batch::run(arguments, &[epoch]);
    }
    let begin = Instant::now();
    let mut said = begin;
    let epochs = arguments.ops.div_ceil(arguments.epoch_ops.max(1));
    for first in (0..epochs).step_by(BATCH as usize) {
        let numbers: Vec<_> = (first..epochs.min(first + BATCH)).collect();
        batch::run(arguments, &numbers).with_context(|| format!("seed {}", arguments.seed))?;
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            println!(
                "fsx: {} steps",
                (first + numbers.len() as u64) * arguments.epoch_ops
            );
        }
    }
    println!(
        "fsx: seed {}, {} steps on {}, no difference, {} s",
        arguments.seed,
        epochs * arguments.epoch_ops,
        arguments.subject,
        begin.elapsed().as_secs()
    );
    Ok(())
}
