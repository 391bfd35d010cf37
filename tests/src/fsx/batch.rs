//! A batch of epochs on one stack: plant, mount, work, compare, mount again, compare again.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use plyfs_testkit::{Mounted, Stack, mount_kernel, mount_program};

use super::cli::Arguments;
use super::op::{BLOCK, Draw, Op, Range, Space};
use super::rng::{Rng, pattern};
use super::subject::Subject;

/// The files of an epoch: one in a lower layer, one in the upper of an earlier mount, a new one.
const FILES: [&str; 3] = ["lower", "old", "new"];

/// How many steps a failure shows.
const SHOWN: usize = 2000;

/// A file and all that it must hold.
type Left = (String, Vec<u8>);

/// Runs the epochs of one batch.
pub(crate) fn run(arguments: &Arguments, epochs: &[u64]) -> Result<()> {
    let stack = planted(arguments, epochs)?;
    let mounted = mount(arguments, &stack)?;
    let spaces = offered(mounted.path())?;
    let left = work(arguments, epochs, mounted.path(), &spaces)?;
    compare(mounted.path(), &left).context("at the end of the batch")?;
    mounted.unmount();
    stack.assert_lowers_unchanged();
    let again = mount(arguments, &stack)?;
    compare(again.path(), &left).context("after mounting again")?;
    again.unmount();
    Ok(())
}

/// What fallocate(2) can do on the subject, for the words at the start.
pub(crate) fn spaces_of(arguments: &Arguments) -> Result<Vec<Space>> {
    let stack = planted(arguments, &[])?;
    let mounted = mount(arguments, &stack)?;
    offered(mounted.path())
}

fn mount(arguments: &Arguments, stack: &Stack) -> Result<Mounted> {
    let program = match arguments.subject.as_str() {
        "kernel" => return Ok(mount_kernel(stack, &arguments.options)),
        "plyfs" => plyfs_testkit::bin(),
        program => program.into(),
    };
    mount_program(&program, stack, &arguments.options).map_err(Error::msg)
}

fn planted(arguments: &Arguments, epochs: &[u64]) -> Result<Stack> {
    let stack = Stack::new(2);
    for epoch in epochs {
        for (name, layer) in [
            ("lower", stack.lower((epoch % 2) as usize).to_owned()),
            ("old", stack.upper()),
        ] {
            let path = layer.join(format!("{epoch}/{name}"));
            fs::create_dir_all(path.parent().context("a file in a directory")?)?;
            write_sparse(&path, &initial(arguments, *epoch, name))?;
        }
    }
    Ok(stack.sealed())
}

/// What a file holds before an epoch: often a few blocks, with holes, sometimes nothing.
fn initial(arguments: &Arguments, epoch: u64, name: &str) -> Vec<u8> {
    let mark = mark(arguments.seed, epoch, u64::MAX - name.len() as u64);
    let mut rng = Rng::new(mark);
    let len = rng.below(arguments.max_len) as usize;
    let mut bytes = match (name, rng.below(10)) {
        ("new", _) | (_, 0) => Vec::new(),
        _ => pattern(mark, 0, len),
    };
    for block in bytes.chunks_mut(BLOCK as usize * 2) {
        if rng.chance(30) {
            block.fill(0);
        }
    }
    bytes
}

fn write_sparse(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::create_new(path)?;
    file.set_len(bytes.len() as u64)?;
    for (i, block) in bytes.chunks(BLOCK as usize).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, i as u64 * BLOCK)?;
        }
    }
    Ok(())
}

/// A number that no other step of this or another seed has.
fn mark(seed: u64, epoch: u64, step: u64) -> u64 {
    Rng::new(seed ^ Rng::new(epoch).next()).next() ^ step
}

fn offered(dir: &Path) -> Result<Vec<Space>> {
    let mut spaces = Vec::new();
    for space in Space::ALL {
        let path = dir.join("probe");
        fs::write(&path, vec![1; 4 * BLOCK as usize])?;
        let file = File::options().write(true).open(&path)?;
        match rustix::fs::fallocate(&file, space.flags(), BLOCK, BLOCK) {
            Ok(()) => spaces.push(space),
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => bail!("fallocate {space:?}: {e}"),
        }
        fs::remove_file(&path)?;
    }
    Ok(spaces)
}

/// Runs the epochs on a few threads, which share the mount but no file.
fn work(arguments: &Arguments, epochs: &[u64], root: &Path, spaces: &[Space]) -> Result<Vec<Left>> {
    let next = AtomicU64::new(0);
    let one_thread = || -> Result<Vec<Left>> {
        let mut left = Vec::new();
        while let Some(number) = epochs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let epoch = Epoch {
                arguments,
                number: *number,
                root,
                spaces,
            };
            left.extend(epoch.run()?);
        }
        Ok(left)
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Pages of mappings are written back at any moment, not only when a step asks for it.
        let disturb = arguments
            .disturb
            .then(|| scope.spawn(|| write_back(root, &done)));
        let jobs = 1..=arguments.jobs;
        let threads: Vec<_> = jobs.map(|_| scope.spawn(one_thread)).collect();
        let ended: Vec<_> = threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        if let Some(disturb) = disturb {
            disturb
                .join()
                .map_err(|_| Error::msg("a thread panicked"))??;
        }
        let mut left = Vec::new();
        for ended in ended {
            left.extend(ended.map_err(|_| Error::msg("a thread panicked"))??);
        }
        Ok(left)
    })
}

/// Has the kernel write all dirty pages of the mount, again and again.
fn write_back(root: &Path, done: &AtomicBool) -> Result<()> {
    let dir = File::open(root)?;
    while !done.load(Ordering::Relaxed) {
        rustix::fs::syncfs(&dir)?;
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn compare(root: &Path, left: &[Left]) -> Result<()> {
    for (name, copy) in left {
        let got = fs::read(root.join(name)).with_context(|| name.clone())?;
        let same = got == *copy;
        ensure!(
            same,
            "{name} has changed: {} bytes, {} before",
            got.len(),
            copy.len()
        );
    }
    Ok(())
}

struct Epoch<'a> {
    arguments: &'a Arguments,
    number: u64,
    root: &'a Path,
    spaces: &'a [Space],
}

impl Epoch<'_> {
    fn run(&self) -> Result<Vec<Left>> {
        let mut subjects = Vec::new();
        fs::create_dir_all(self.root.join(self.number.to_string()))?;
        for name in FILES {
            let path = self.root.join(format!("{}/{name}", self.number));
            let copy = initial(self.arguments, self.number, name);
            subjects.push(Subject::open(&path, copy, self.arguments.max_len)?);
        }
        let mut rng = Rng::new(mark(self.arguments.seed, self.number, 0));
        let mut log = VecDeque::new();
        for step in 1..=self.arguments.epoch_ops {
            let sizes: Vec<_> = subjects.iter().map(Subject::size).collect();
            let max_len = self.arguments.max_len;
            let draw = Draw {
                sizes: &sizes,
                max_len,
                spaces: self.spaces,
            };
            let (on, op) = draw.step(&mut rng);
            if log.len() == SHOWN {
                log.pop_front();
            }
            log.push_back(format!("{step} {}: {op}", FILES[on]));
            let done = apply(
                &mut subjects,
                on,
                &op,
                mark(self.arguments.seed, self.number, step),
            );
            done.with_context(|| self.story(&log))?;
        }
        let name = |i: usize| format!("{}/{}", self.number, FILES[i]);
        let each = subjects.into_iter().enumerate();
        each.map(|(i, mut subject)| {
            subject
                .apply(&Op::Check, 0)
                .with_context(|| format!("the end of {}", name(i)))?;
            Ok((name(i), subject.into_copy()))
        })
        .collect()
    }

    /// The last steps, and how to have them again.
    fn story(&self, log: &VecDeque<String>) -> String {
        let steps: Vec<_> = log.iter().map(|line| format!("    {line}\n")).collect();
        let Arguments {
            seed,
            max_len,
            epoch_ops,
            subject,
            options,
            ..
        } = self.arguments;
        format!(
            "the last of these steps (numbers of files: 0 lower, 1 old, 2 new):\n{}  \
             again: fsx --seed {seed} --epoch {} --max-len {max_len} --epoch-ops {epoch_ops} \
             --subject {subject} --options '{options}'\n ",
            steps.concat(),
            self.number,
        )
    }
}

fn apply(subjects: &mut [Subject], on: usize, op: &Op, mark: u64) -> Result<()> {
    match *op {
        Op::Copy { to, from, into } => copy(subjects, on, to, from, into),
        _ => subjects[on].apply(op, mark),
    }
}

/// `copy_file_range(2)` until it is done or the source ends.
fn copy(subjects: &mut [Subject], on: usize, to: usize, from: Range, into: u64) -> Result<()> {
    let bytes = subjects[on].expected(from).to_vec();
    let mut done = 0;
    loop {
        let (mut at, mut put) = (from.off + done, into + done);
        let (source, target) = (subjects[on].file(), subjects[to].file());
        let len = (from.len - done) as usize;
        let count = rustix::fs::copy_file_range(source, Some(&mut at), target, Some(&mut put), len)
            .with_context(|| subjects[to].path().display().to_string())?;
        done += count as u64;
        if count == 0 || done == from.len {
            break;
        }
    }
    ensure!(
        done == bytes.len() as u64,
        "copied {done:#x} bytes of {:#x}",
        bytes.len()
    );
    subjects[to].write_copy(into, &bytes);
    Ok(())
}
