//! Several threads at once on one side, each with a list of steps of its own.

use std::sync::Barrier;

use anyhow::{Result, bail};

use super::exec;
use super::ns::Acting;
use super::ops::Step;
use super::outcome::Outcome;
use super::side::Side;

/// Runs lists of steps that commute; their outcomes, list by list. `at_once` gives each list a
/// thread, else they run one after the other.
pub(crate) fn run(side: &Side, lanes: &[Vec<Step>], at_once: bool) -> Result<Vec<Vec<Outcome>>> {
    if !at_once {
        return lanes.iter().map(|lane| in_turn(side, lane)).collect();
    }
    let start = Barrier::new(lanes.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .iter()
            .map(|lane| {
                scope.spawn(|| {
                    start.wait();
                    in_turn(side, lane)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(outcomes) => outcomes,
            Err(_) => bail!("a thread of the judge panicked"),
        });
        joined.collect()
    })
}

fn in_turn(side: &Side, lane: &[Step]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for step in lane {
        let acting = Acting::begin(step.who)?;
        outcomes.push(exec::run_beside(side, &step.op));
        acting.end()?;
    }
    Ok(outcomes)
}
