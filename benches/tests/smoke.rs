//! Every workload runs, and its result is what it expects, on tiny amounts of work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use plyfs_benches::{
    Cell, KernelOverlay, Plain, Plan, Program, Progress, Sizes, Subject, default_scratch, isolate,
    markdown, run, workloads,
};

const TINY: Sizes = Sizes {
    tree: 200,
    small: 200,
    big: 4 << 20,
    crowd: 500,
    rewrite: 64 << 10,
    archive: 20,
};

struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: usize, _: usize, _: &Cell) {}
}

#[test]
fn every_workload_is_done_by_every_subject() {
    if isolate().is_err() {
        println!("SKIP: mounting needs root");
        return;
    }
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Plain), Box::new(KernelOverlay)];
    if let Ok(plyfs) = std::env::var("PLYFS_BIN") {
        subjects.push(Box::new(Program::new("plyfs", &plyfs).unwrap()));
    }
    let base = default_scratch(&TINY).parent().unwrap().to_owned();
    let scratch = tempfile::tempdir_in(base).unwrap();
    let plan = Plan {
        subjects,
        workloads: workloads(&[1, 3]),
        rounds: 1,
        limit: None,
        sizes: TINY,
        scratch: scratch.path().to_owned(),
    };
    let report = run(&plan, &mut Silent).unwrap();
    let failures: Vec<_> = report
        .cells
        .iter()
        .filter_map(|cell| Some((&cell.workload, &cell.subject, cell.failure.as_ref()?)))
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(markdown(&report).contains("| find-fresh@3 |"));
}
