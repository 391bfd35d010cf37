//! Random layers, random operations: the engine must show what the model says, after every step.
//!
//! A failure is shrunk and printed as a case for [`crate::check::check`]. `PLYFS_MODEL_SECONDS`
//! says how long to look (default 8), `PLYFS_MODEL_SEED` where to begin.
use plyfs_testkit::need_root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use plyfs_sys::stat::Kind;
use plyfs_testkit::model::{Layer, Model, Move, Op, Planted, Shown};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::client::Client;
use crate::ops;
use crate::view::{self, Seen};
use crate::world::{World, memory};

/// Layers and what is done with them.
#[derive(Clone, Debug)]
struct Case {
    upper: Layer,
    lowers: Vec<Layer>,
    options: &'static str,
    ops: Vec<Op>,
}

impl Case {
    fn layers(&self) -> String {
        let lowers: Vec<_> = self
            .lowers
            .iter()
            .map(|l| format!("lower:{l} | "))
            .collect();
        format!(
            "{}upper:{} | opts: {}",
            lowers.concat(),
            self.upper,
            self.options
        )
    }

    fn model(&self) -> Model {
        let layers: Vec<_> = [&self.upper]
            .into_iter()
            .chain(&self.lowers)
            .cloned()
            .collect();
        Model::new(&layers, true, self.options.contains("redirect=on"))
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..=3)
        .prop_map(|names| format!("/{}", names.join("/")))
}

/// A path, sometimes one that begins at something held.
fn place() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => path(),
        1 => (0..2u8, path()).prop_map(|(slot, path)| format!("@{slot}{path}")),
    ]
}

/// What can be written to: a place, or what is held itself.
fn target() -> impl Strategy<Value = String> {
    prop_oneof![4 => place(), 1 => (0..2u8).prop_map(|slot| format!("@{slot}"))]
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "yy", "zzz"]).prop_map(str::to_owned)
}

fn layer(is_upper: bool) -> impl Strategy<Value = Layer> {
    let whiteouts = u32::from(!is_upper);
    let thing = prop_oneof![
        4 => any::<bool>().prop_map(|opaque| Planted::Dir { opaque }),
        2 => Just(Planted::Dir { opaque: false }),
        6 => text().prop_map(Planted::File),
        1 => Just(Planted::Symlink("t".to_owned())),
        3 * whiteouts => Just(Planted::Whiteout),
    ];
    prop::collection::vec((path(), thing), 0..6).prop_map(|things| Layer::new(&things))
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        4 => Just(Move::Plain),
        1 => Just(Move::NoReplace),
        1 => Just(Move::Exchange)
    ];
    prop_oneof![
        3 => place().prop_map(Op::Mkdir),
        1 => place().prop_map(Op::Create),
        1 => place().prop_map(|p| Op::Symlink(p, "s".to_owned())),
        2 => (target(), place()).prop_map(|(old, new)| Op::Link(old, new)),
        3 => (place(), text()).prop_map(|(p, t)| Op::Write(p, t)),
        3 => (target(), text()).prop_map(|(p, t)| Op::Append(p, t)),
        1 => (target(), 0..5usize).prop_map(|(p, n)| Op::Truncate(p, n)),
        2 => (target(), prop::sample::select(vec![0o600, 0o711])).prop_map(|(p, m)| Op::Chmod(p, m)),
        5 => place().prop_map(Op::Unlink),
        4 => place().prop_map(Op::Rmdir),
        8 => (how, place(), place()).prop_map(|(how, a, b)| Op::Rename(how, a, b)),
        2 => (0..2u8, path()).prop_map(|(slot, p)| Op::Hold(slot, p)),
        1 => (0..2u8).prop_map(Op::Drop),
        1 => Just(Op::Reopen),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let options = prop::sample::select(vec![
        "redirect=on",
        "redirect=on metacopy",
        "redirect=follow",
        "redirect=on fds=1 cache=1",
    ]);
    (
        layer(true),
        prop::collection::vec(layer(false), 1..4),
        options,
        prop::collection::vec(op(), 1..14),
    )
        .prop_map(|(upper, lowers, options, ops)| Case {
            upper,
            lowers,
            options,
            ops,
        })
}

fn shown(seen: &Seen) -> Shown {
    let kind = match seen.kind {
        Kind::Dir => 'd',
        Kind::File => '-',
        Kind::Symlink => 'l',
        _ => '?',
    };
    Shown {
        kind,
        mode: seen.mode,
        content: seen.content.clone(),
        nlink: if kind == 'd' { 0 } else { seen.nlink as usize },
    }
}

/// Compares everything there is to see with the model.
fn agree(client: &Client, model: &Model) -> Result<(), String> {
    let mut got = view::of_union(&client.union);
    got.remove("/");
    let got: BTreeMap<_, _> = got.into_iter().map(|(p, s)| (p, shown(&s))).collect();
    let wanted = model.tree();
    if got != wanted {
        return Err(format!("engine: {got:?}\n  model: {wanted:?}"));
    }
    for (slot, wanted) in model.held() {
        let path = format!("@{slot}");
        let attr = client.attr(&path).map_err(|e| format!("{path}: {e:?}"))?;
        let nlink = if wanted.kind == 'd' {
            0
        } else {
            attr.nlink as usize
        };
        if (nlink, attr.mode & 0o7777) != (wanted.nlink, wanted.mode) {
            return Err(format!("{path}: {attr:?}, model: {wanted:?}"));
        }
        if wanted.kind == '-' && client.read(&path).ok().as_ref() != Some(&wanted.content) {
            return Err(format!("{path} has other data than {wanted:?}"));
        }
    }
    Ok(())
}

/// The whiteouts on the disk, by path.
fn whiteouts(world: &World) -> BTreeSet<String> {
    let upper = view::of_dir(&world.upper());
    let is_whiteout = |s: &Seen| s.kind == Kind::Char && s.rdev == (0, 0);
    upper
        .iter()
        .filter(|(_, s)| is_whiteout(s))
        .map(|(p, _)| p.clone())
        .collect()
}

fn run(case: &Case, base: &Path, ask_kernel: bool) -> Result<(), String> {
    let mut world = World::new_in(base, &case.layers());
    let mut client = Client::new(world.open());
    let mut model = case.model();
    agree(&client, &model).map_err(|e| format!("before anything: {e}"))?;
    for op in &case.ops {
        if model.is_moot(op) {
            continue;
        }
        let wanted = model.apply(op);
        let text = op.to_string();
        if matches!(op, Op::Reopen) {
            ops::run(&world, &mut client, &text);
        } else {
            let words: Vec<_> = text.split_whitespace().collect();
            let got = client.act(&words);
            if format!("{got:?}") != format!("{wanted:?}") {
                return Err(format!("{text}: {got:?}, model: {wanted:?}"));
            }
        }
        agree(&client, &model).map_err(|e| format!("after {text}: {e}"))?;
    }
    client.held.clear();
    world.kernel_knows &= ask_kernel;
    world.verify(&client.union);
    let (got, wanted) = (whiteouts(&world), model.whiteouts());
    if got != wanted {
        return Err(format!("whiteouts: {got:?}, model: {wanted:?}"));
    }
    Ok(())
}

fn seconds() -> Duration {
    let text = std::env::var("PLYFS_MODEL_SECONDS").unwrap_or_default();
    Duration::from_secs(text.parse().unwrap_or(8))
}

#[test]
fn the_engine_does_what_the_model_says() {
    need_root!();
    let (base, end) = (memory(), Instant::now() + seconds());
    let seed = std::env::var("PLYFS_MODEL_SEED").unwrap_or_default();
    let first: u64 = seed.parse().unwrap_or_else(|_| rand_seed());
    let done = std::cell::Cell::new(0u32);
    for seed in first.. {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config {
            cases: 64,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&case(), |case| {
            done.set(done.get() + 1);
            run(&case, &base, done.get().is_multiple_of(16)).map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, case)) => {
                let text: Vec<_> = case.ops.iter().map(ToString::to_string).collect();
                let layers = case.layers();
                panic!(
                    "seed {seed}: {why}\ncheck({layers:?},\n      {:?}, \"tree: …\")",
                    text.join("; ")
                );
            }
            Err(e) => panic!("{e}"),
        }
        if Instant::now() >= end {
            break;
        }
    }
    eprintln!("{} sequences agree", done.get());
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) >> 16
}
