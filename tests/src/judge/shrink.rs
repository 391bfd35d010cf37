//! Makes a failing case small: drops steps, entries and attributes while the same failure stays.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::case::{Case, Entry};
use super::ops::{Op, Step};
use super::runner::{Failure, Verdict};

/// Runs a case once more.
pub(crate) type Again<'a> = dyn FnMut(&mut Case) -> Result<Verdict> + 'a;

/// The smallest case found within `limit` that fails with the same key, and its failure.
pub(crate) fn shrink(
    run: &mut Again<'_>,
    case: &Case,
    failure: &Failure,
    limit: Duration,
) -> Result<(Case, Failure)> {
    let mut shrinker = Shrinker {
        run,
        best: case.clone(),
        failure: failure.clone(),
        deadline: Instant::now() + limit,
    };
    shrinker.best.steps.truncate(failure.step + 1);
    loop {
        let before = shrinker.best.clone();
        shrinker.round()?;
        if shrinker.best == before || shrinker.late() {
            return Ok((shrinker.best, shrinker.failure));
        }
    }
}

struct Shrinker<'a, 'b> {
    run: &'a mut Again<'b>,
    best: Case,
    failure: Failure,
    deadline: Instant,
}

impl Shrinker<'_, '_> {
    fn late(&self) -> bool {
        Instant::now() > self.deadline
    }

    /// Keeps `case` if it still fails in the same way.
    fn offer(&mut self, mut case: Case) -> Result<bool> {
        if case == self.best || self.late() {
            return Ok(false);
        }
        // A smaller case may be no stack at all (no layer left): then it is no smaller failure either.
        // Threads that meet in a bad way may need several tries to do so again.
        let races = |step: &Step| matches!(step.op, Op::Together { .. });
        let tries = if case.steps.iter().any(races) { 6 } else { 1 };
        for _ in 0..tries {
            let Ok(Verdict::Different(found)) = (self.run)(&mut case) else {
                continue;
            };
            if found.key == self.failure.key {
                self.best = case;
                self.failure = found;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn round(&mut self) -> Result<()> {
        self.thin(|case| &mut case.steps)?;
        for index in 0..self.best.steps.len() {
            self.thin_lanes(index)?;
        }
        self.thin(|case| &mut case.upper)?;
        self.thin(|case| &mut case.layers)?;
        for index in (0..self.best.layers.len()).rev() {
            self.thin_entries(index)?;
        }
        self.thin(|case| &mut case.pre)?;
        for index in 0..self.best.layers.len() {
            for entry in 0..self.best.layers[index].len() {
                self.simplify(|case| case.layers.get_mut(index)?.get_mut(entry))?;
            }
        }
        for entry in 0..self.best.upper.len() {
            self.simplify(|case| case.upper.get_mut(entry))?;
        }
        self.offer(Case {
            umask: 0o022,
            ..self.best.clone()
        })?;
        self.offer(Case {
            split: false,
            ..self.best.clone()
        })?;
        self.as_root()
    }

    /// Takes single steps away from those that run at once.
    fn thin_lanes(&mut self, step: usize) -> Result<()> {
        let (mut lane, mut at) = (0, 0);
        while !self.late() {
            let mut case = self.best.clone();
            let Some(Op::Together { lanes }) = case.steps.get_mut(step).map(|step| &mut step.op)
            else {
                return Ok(());
            };
            let Some(steps) = lanes.get_mut(lane) else {
                return Ok(());
            };
            if at >= steps.len() {
                (lane, at) = (lane + 1, 0);
                continue;
            }
            steps.remove(at);
            if steps.is_empty() {
                lanes.remove(lane);
            }
            if !self.offer(case)? {
                at += 1;
            }
        }
        Ok(())
    }

    fn thin_entries(&mut self, layer: usize) -> Result<()> {
        self.thin(|case| match case.layers.get_mut(layer) {
            Some(entries) => entries,
            None => &mut case.upper,
        })
    }

    /// Drops pieces of a list, first large ones, then single elements, from the end.
    fn thin<T: Clone>(&mut self, list: impl Fn(&mut Case) -> &mut Vec<T>) -> Result<()> {
        let mut piece = list(&mut self.best).len().div_ceil(2);
        while piece > 0 {
            let mut end = list(&mut self.best).len();
            while end > 0 && !self.late() {
                let start = end.saturating_sub(piece);
                let mut smaller = self.best.clone();
                list(&mut smaller).drain(start..end);
                self.offer(smaller)?;
                end = start.min(list(&mut self.best).len());
            }
            piece /= 2;
        }
        Ok(())
    }

    /// Makes an entry plain, piece by piece.
    fn simplify(&mut self, find: impl Fn(&mut Case) -> Option<&mut Entry>) -> Result<()> {
        let plainer: &[&dyn Fn(&mut Entry)] = &[
            &|entry| *entry = Entry::plain(entry.path.clone(), entry.kind.clone()),
            &|entry| entry.xattrs.clear(),
            &|entry| drop(entry.xattrs.pop()),
            &|entry| {
                let plain = Entry::plain(entry.path.clone(), entry.kind.clone());
                *entry = Entry {
                    xattrs: std::mem::take(&mut entry.xattrs),
                    ..plain
                };
            },
        ];
        for change in plainer {
            let mut case = self.best.clone();
            if let Some(entry) = find(&mut case) {
                change(entry);
                self.offer(case)?;
            }
        }
        Ok(())
    }

    /// Lets root run steps that somebody else runs without need.
    fn as_root(&mut self) -> Result<()> {
        for index in 0..self.best.steps.len() {
            let mut case = self.best.clone();
            if let Some(step) = case.steps.get_mut(index) {
                step.who = Default::default();
                self.offer(case)?;
            }
        }
        Ok(())
    }
}
