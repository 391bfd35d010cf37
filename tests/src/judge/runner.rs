//! Runs one case on both sides and says where they part.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags};

use super::build::build;
use super::case::{Case, Kind, has_option};
use super::commute::commuting;
use super::exec;
use super::exec_data::is_removed_dir;
use super::fsck::fsck;
use super::gen_ops::Generator;
use super::mounts::{Implementation, Layout};
use super::ns::Acting;
use super::ops::{How, Op, Stamp, Step, Who};
use super::outcome::{Outcome, Rules};
use super::side::Side;
use super::text::Bytes;
use super::together;
use super::trace::Trace;
use super::view::{TreeDifference, View};
use super::watch::Watch;

/// Where the two sides part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// Index of the step; the number of steps for the checks after the last one.
    pub(crate) step: usize,
    /// What kind of difference: the same bug gives the same key.
    pub(crate) key: String,
    pub(crate) oracle: String,
    pub(crate) subject: String,
}

impl Failure {
    fn new(key: impl Into<String>, oracle: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            step: 0,
            key: key.into(),
            oracle: oracle.into(),
            subject: subject.into(),
        }
    }

    fn tree(when: &str, found: TreeDifference) -> Self {
        Self::new(format!("{when}: {}", found.key), found.text, "")
    }
}

/// How a case went.
#[derive(Debug)]
pub(crate) enum Verdict {
    Same,
    Different(Failure),
    /// The oracle does not mount this stack, so there is nothing to compare with.
    NoOracle(String),
}

/// Where the steps come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The case's own steps.
    Replay,
    /// A generator, for so many steps; they are written into the case.
    Generate(Generator, usize),
}

/// Runs cases one after the other in one scratch directory.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) scratch: PathBuf,
    /// Use a fresh tmpfs per case instead of the file system of `scratch`.
    pub(crate) tmpfs: bool,
    pub(crate) subject: Implementation,
    /// Mount options that only the subject gets.
    pub(crate) subject_options: String,
    /// Facts that do not count.
    pub(crate) ignored: Vec<String>,
    /// No threads.
    pub(crate) one_thread: bool,
    /// After how many steps the sides change places; 0 for now and then.
    pub(crate) alternate: usize,
    pub(crate) watch: Arc<Watch>,
    /// How often each operation ended how on the oracle.
    pub(crate) coverage: RefCell<BTreeMap<String, u64>>,
    pub(crate) trace: Trace,
}

impl Runner {
    /// Runs a case in a place of its own and removes it again.
    pub(crate) fn run(&self, case: &mut Case, source: Source) -> Result<Verdict> {
        self.trace.case(case)?;
        let place = self.scratch.join("case");
        std::fs::create_dir(&place).with_context(|| format!("mkdir {}", place.display()))?;
        if self.tmpfs {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("judge", &place, "tmpfs", flags, c"mode=755")?;
        }
        let verdict = self.run_in(&place, case, source);
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        if self.tmpfs {
            rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH)?;
        }
        remove(&place)?;
        verdict
    }

    fn run_in(&self, place: &Path, case: &mut Case, mut source: Source) -> Result<Verdict> {
        let mut pair = Pair {
            sides: [
                self.prepare(&place.join("a"), case)?,
                self.prepare(&place.join("b"), case)?,
            ],
            swapped: false,
            rules: Rules {
                numbers: self.tmpfs && !case.split,
                ignored: self.ignored.clone(),
            },
            split: case.split,
            options: case.options.clone(),
            parted: false,
            xwhiteouts: case
                .layers
                .iter()
                .flatten()
                .any(|e| e.kind == Kind::Xwhiteout),
            runner: self,
        };
        let before = [pair.sides[0].lowers()?, pair.sides[1].lowers()?];
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(case.umask));
        match pair.mount()? {
            Mounting::Both => {}
            Mounting::OracleRefuses(why) => return Ok(Verdict::NoOracle(why)),
            Mounting::SubjectRefuses(failure) => return Ok(Verdict::Different(failure)),
        }
        if let Some(failure) = pair.all_steps(case, &mut source)? {
            return Ok(Verdict::Different(failure));
        }
        if pair.parted {
            return Ok(Verdict::Same);
        }
        let at_end = |mut failure: Failure| {
            failure.step = case.steps.len();
            Ok(Verdict::Different(failure))
        };
        for op in [Op::Check, Op::Remount, Op::Swap] {
            if let Some(mut failure) = pair.whole(&op)? {
                failure.key = format!("end {}", failure.key);
                return at_end(failure);
            }
        }
        if let Some(failure) = pair.unmount() {
            return at_end(failure);
        }
        for (side, before) in pair.sides.iter().zip(&before) {
            for (old, new) in before.iter().zip(&side.lowers()?) {
                if let Some(found) = View::difference(old, new, &Rules::default()) {
                    return at_end(Failure::tree("a lower layer changed", found));
                }
            }
        }
        Ok(Verdict::Same)
    }

    /// Builds the layers of one side, with the kernel's help where the case asks for it.
    fn prepare(&self, root: &Path, case: &Case) -> Result<Side> {
        let dir = |name: String| -> Result<PathBuf> {
            let path = root.join(name);
            std::fs::create_dir(&path).with_context(|| format!("mkdir {}", path.display()))?;
            Ok(path)
        };
        std::fs::create_dir(root)?;
        let mut lowers = Vec::new();
        if case.split && self.tmpfs {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("judge", &dir("low".into())?, "tmpfs", flags, c"mode=755")?;
        } else {
            dir("low".into())?;
        }
        for (index, layer) in case.layers.iter().enumerate() {
            lowers.push(dir(format!("low/{index}"))?);
            build(&lowers[index], layer)?;
        }
        let data = (!case.data.is_empty()).then(|| dir("low/data".into()));
        let data = data.transpose()?;
        if let Some(data) = &data {
            build(data, &case.data)?;
        }
        let (upper, work) = (dir("pre".into())?, dir("prework".into())?);
        let mountpoint = dir("mnt".into())?;
        let mut side = Side::new(
            Layout {
                lowers,
                data,
                upper,
                work,
                mountpoint,
            },
            &self.watch,
        );
        if case.pre.is_empty() {
            side.layout.upper = dir("upper".into())?;
            side.layout.work = dir("work".into())?;
        } else {
            // Without metacopy=on the kernel refuses files that a layer has only the metadata of.
            let wanted = ["metacopy=on", "index=on"];
            let asked = wanted
                .iter()
                .filter(|option| case.options.contains(**option));
            let options = asked.fold("redirect_dir=on".to_owned(), |all, one| all + "," + one);
            side.mount(&Implementation::Kernel, &options)
                .context("the layer-making mount")?;
            for step in &case.pre {
                exec::run(&mut side, &step.op);
            }
            side.unmount()?;
            side.upper_becomes_lower(root.join("upper"), root.join("work"))?;
        }
        build(&side.layout.upper, &case.upper)?;
        Ok(side)
    }
}

/// Removes a scratch tree, immutable files included.
fn remove(place: &Path) -> Result<()> {
    if std::fs::remove_dir_all(place).is_ok() {
        return Ok(());
    }
    let chattr = Command::new("chattr")
        .args(["-R", "-f", "-i", "-a"])
        .arg(place)
        .status();
    chattr.context("chattr, to remove immutable files")?;
    std::fs::remove_dir_all(place).with_context(|| format!("rm -r {}", place.display()))
}

/// Whether a descriptor reads a regular file and cannot write it.
fn is_for_reading(fd: &OwnedFd) -> bool {
    let flags = rustix::fs::fcntl_getfl(fd);
    let reads = flags.is_ok_and(|flags| {
        !flags.contains(OFlags::PATH) && (flags & OFlags::RWMODE) == OFlags::RDONLY
    });
    reads
        && rustix::fs::fstat(fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Whether a descriptor for reading keeps a lower file: opened again it shows something else.
fn keeps_the_lower(fd: &OwnedFd) -> bool {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    is_for_reading(fd)
        && rustix::fs::open(link, flags, Mode::empty())
            .is_ok_and(|again| content(fd) != content(&again))
}

/// All that can be read: `fstat` of the one may tell the size of the other.
fn content(fd: &OwnedFd) -> Option<Vec<u8>> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match rustix::io::pread(fd, &mut piece, bytes.len() as u64).ok()? {
            0 => return Some(bytes),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

enum Mounting {
    Both,
    OracleRefuses(String),
    SubjectRefuses(Failure),
}

/// Both sides of a running case.
struct Pair<'a> {
    sides: [Side; 2],
    /// Whether side 1 is the kernel's at present.
    swapped: bool,
    /// The kernel keeps no inode numbers if layers lie on several file systems. And
    /// disk file systems reuse the numbers of deleted files, so a kept number proves nothing there.
    rules: Rules,
    /// Whether the lowers lie on a file system of their own.
    split: bool,
    options: String,
    /// Whether the sides went different ways that are both right.
    parted: bool,
    /// Whether a layer holds whiteouts in xattr form.
    xwhiteouts: bool,
    runner: &'a Runner,
}

impl Pair<'_> {
    fn oracle(&self) -> usize {
        usize::from(self.swapped)
    }

    /// Whether the judge judges itself.
    fn kernel_twice(&self) -> bool {
        self.runner.subject == Implementation::Kernel
    }

    fn subject(&self) -> usize {
        usize::from(!self.swapped)
    }

    fn mount(&mut self) -> Result<Mounting> {
        let (oracle, subject) = (self.oracle(), self.subject());
        if has_option(&self.options, "volatile") {
            // The kernel leaves it to the operator to say that all was synced.
            for side in &self.sides {
                side.forget_volatile()?;
            }
        }
        if let Err(error) = self.sides[oracle].mount(&Implementation::Kernel, &self.options) {
            return Ok(Mounting::OracleRefuses(format!("{error:#}")));
        }
        let extra = &self.runner.subject_options;
        let options = [self.options.as_str(), extra]
            .into_iter()
            .filter(|text| !text.is_empty());
        let options = options.collect::<Vec<_>>().join(",");
        match self.sides[subject].mount(&self.runner.subject, &options) {
            Ok(()) => Ok(Mounting::Both),
            Err(error) => {
                let text = format!("{error:#}");
                Ok(Mounting::SubjectRefuses(Failure::new(
                    "mount", "mounts", text,
                )))
            }
        }
    }

    fn unmount(&mut self) -> Option<Failure> {
        let (oracle, subject) = (self.oracle(), self.subject());
        if let Err(error) = self.sides[oracle].unmount() {
            return Some(Failure::new("oracle unmount", format!("{error:#}"), ""));
        }
        if let Err(error) = self.sides[subject].unmount() {
            return Some(Failure::new("unmount", "ok", format!("{error:#}")));
        }
        // The kernel itself leaves its shared whiteout in the workdir until the next mount.
        if self.kernel_twice() {
            return None;
        }
        let options = &self.options;
        match fsck(&self.sides[subject].layout, options) {
            Ok(found) => found.map(|what| Failure::new("left behind", "nothing", what)),
            Err(error) => Some(Failure::new("fsck", "ok", format!("{error:#}"))),
        }
    }

    fn all_steps(&mut self, case: &mut Case, source: &mut Source) -> Result<Option<Failure>> {
        let mut index = 0;
        loop {
            let step = match source {
                Source::Replay => match case.steps.get(index) {
                    Some(step) => step.clone(),
                    None => return Ok(None),
                },
                Source::Generate(generator, count) if index < *count => {
                    let due = (index + 1).checked_rem(self.runner.alternate) == Some(0);
                    let step = if due {
                        Step::whole(Op::Swap)
                    } else {
                        generator.next()
                    };
                    case.steps.push(step.clone());
                    step
                }
                Source::Generate(..) => return Ok(None),
            };
            self.runner.trace.step(&step)?;
            let (worked, failure) = self.step(&step)?;
            if self.parted {
                return Ok(None);
            }
            if let Some(mut failure) = failure {
                failure.step = index;
                return Ok(Some(failure));
            }
            if let Source::Generate(generator, _) = source {
                generator.learn(&step, worked);
            }
            index += 1;
        }
    }

    /// Runs a step on both sides; whether it worked, and the difference if there is one.
    fn step(&mut self, step: &Step) -> Result<(bool, Option<Failure>)> {
        if matches!(step.op, Op::Check | Op::Remount | Op::Swap) {
            return Ok((true, self.whole(&step.op)?));
        }
        if let Op::Together { lanes } = &step.op {
            return self.together(&step.op, lanes);
        }
        if self.nameless(&step.op) || self.left_behind(&step.op) || self.left_open(&step.op) {
            return Ok((false, None));
        }
        if self.takes_suid_off(step) {
            return Ok((false, None));
        }
        let touched = step.op.touched();
        let mut outcomes = Vec::new();
        // The oracle goes first, so that a subject that hangs is compared with something.
        for at in [self.oracle(), self.subject()] {
            self.runner.watch.beat();
            self.sides[at].touch(&touched);
            let acting = Acting::begin(step.who)?;
            self.sides[at].is_kernel = at == self.oracle() || self.kernel_twice();
            let outcome = exec::run(&mut self.sides[at], &step.op);
            acting.end()?;
            outcomes.push(outcome);
        }
        if let Op::Open { h, .. } = step.op
            && outcomes.iter().all(Outcome::is_ok)
        {
            self.settle_links(h, step.who)?;
            if has_option(&self.options, "metacopy=on") && outcomes[0] != outcomes[1] {
                self.settle_time(h, &mut outcomes)?;
            }
        }
        if let Op::Setflags { h, .. } = step.op {
            self.close_writers(h);
        }
        let (oracle, subject) = (&outcomes[0], &outcomes[1]);
        let verb = step.op.verb();
        self.count(&verb, oracle);
        if self.runner.watch.take_fired() {
            return Ok((
                false,
                Some(Failure::new(
                    format!("{verb}: hang"),
                    oracle.show(),
                    "hangs",
                )),
            ));
        }
        if self.kernel_gives_up(&step.op, oracle, subject) {
            self.parted = true;
            return Ok((false, None));
        }
        if let Op::Rename { from, .. } = &step.op
            && oracle.says("result", "ENOTEMPTY")
        {
            self.settle_failed_rename(from.parent())?;
        }
        let worked = oracle.is_ok();
        let differs = Outcome::differs(oracle, subject, &self.rules);
        let failure = differs.map(|key| {
            let mut failure = Failure::new(format!("{verb}: {key}"), oracle.show(), subject.show());
            if let Err(why) = self.sides[self.subject()].alive() {
                failure.key = format!("{verb}: subject died");
                failure.subject = why;
            }
            failure
        });
        Ok((worked, failure))
    }

    /// Runs what commutes of several lists of steps: at once on the subject, in turn on the oracle.
    fn together(&mut self, op: &Op, lanes: &[Vec<Step>]) -> Result<(bool, Option<Failure>)> {
        let (oracle, subject) = (self.oracle(), self.subject());
        let mut lanes = lanes.to_vec();
        for lane in &mut lanes {
            lane.retain(|step| !matches!(step.op, Op::Setflags { .. }));
            lane.retain(|step| {
                let kept = !self.nameless(&step.op) && !self.left_open(&step.op);
                kept && !self.may_be_left_behind(&step.op) && !self.takes_suid_off(step)
            });
        }
        let lanes = commuting(&self.sides[oracle], &lanes);
        let mut outcomes = Vec::new();
        for at in [oracle, subject] {
            self.runner.watch.beat();
            self.sides[at].touch(&op.touched());
            self.sides[at].is_kernel = at == oracle || self.kernel_twice();
            let at_once = at == subject && !self.runner.one_thread;
            outcomes.push(together::run(&self.sides[at], &lanes, at_once)?);
        }
        let steps = lanes.iter().flatten();
        let pairs = outcomes[0]
            .iter()
            .flatten()
            .zip(outcomes[1].iter().flatten());
        for (step, (oracle, subject)) in steps.zip(pairs) {
            let verb = format!("together {}", step.op.verb());
            self.count(&verb, oracle);
            if self.kernel_gives_up(&step.op, oracle, subject) {
                self.parted = true;
                return Ok((false, None));
            }
            if let Some(key) = Outcome::differs(oracle, subject, &self.rules) {
                let key = match self.runner.watch.take_fired() {
                    true => "hang".to_owned(),
                    false => key,
                };
                let failure = Failure::new(format!("{verb}: {key}"), oracle.show(), subject.show());
                return Ok((true, Some(failure)));
            }
        }
        Ok((true, None))
    }

    fn count(&self, verb: &str, oracle: &Outcome) {
        let ending = format!("{verb} {}", oracle.ending());
        *self.runner.coverage.borrow_mut().entry(ending).or_default() += 1;
    }

    /// The kernel copies a file up when it is opened for writing, which cuts it off from its other
    /// names; a subject may wait for the first write. Where that shows, both get a first write.
    fn settle_links(&mut self, h: u8, who: Who) -> Result<()> {
        let links = self.links(h);
        if links[0] == links[1] || links.contains(&Some(0)) {
            return Ok(());
        }
        let op = Op::Utimens {
            path: Bytes::from(format!("@{h}").as_str()),
            atime: Stamp::Now,
            mtime: Stamp::Now,
            nofollow: false,
        };
        let acting = Acting::begin(who)?;
        for side in &mut self.sides {
            exec::run(side, &op);
            if let Some(handle) = side.handle(h) {
                handle.ino = rustix::fs::fstat(&handle.fd).map_or(0, |stat| stat.st_ino);
            }
        }
        acting.end()
    }

    /// On ext4 a rename that fails because the target is not empty has made its whiteout and taken it back,
    /// which sets the time of the directory; a subject may ask first. Both get the time.
    fn settle_failed_rename(&mut self, path: Bytes) -> Result<()> {
        let op = Op::Utimens {
            path,
            atime: Stamp::Omit,
            mtime: Stamp::Now,
            nofollow: false,
        };
        let acting = Acting::begin(Who::default())?;
        for side in &mut self.sides {
            exec::run(side, &op);
        }
        acting.end()
    }

    /// The kernel brings the data of a metacopy when it is opened for writing, which sets its time; a
    /// subject may wait for the first write. Where that is all that differs, both get the time.
    fn settle_time(&mut self, h: u8, outcomes: &mut [Outcome]) -> Result<()> {
        let without = [0, 1].map(|at: usize| outcomes[at].clone().without("mtime"));
        if without[0] != without[1] || !outcomes[0].says("mtime", "now") {
            return Ok(());
        }
        outcomes.clone_from_slice(&without);
        let op = Op::Utimens {
            path: Bytes::from(format!("@{h}").as_str()),
            atime: Stamp::Omit,
            mtime: Stamp::Now,
            nofollow: false,
        };
        for side in &mut self.sides {
            exec::run(side, &op);
        }
        Ok(())
    }

    /// Who had a file open for writing before it became immutable or append-only goes on writing on
    /// the kernel; a subject may not know that it is open. Nobody goes on here.
    fn close_writers(&mut self, h: u8) {
        let side = &self.sides[self.oracle()];
        let number = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).ok().map(|s| s.st_ino);
        let handle = |h: usize| number(&side.handles.get(h)?.as_ref()?.fd);
        let map = |m: usize| number(&side.maps.get(m)?.as_ref()?.fd);
        let Some(file) = handle(usize::from(h)) else {
            return;
        };
        let closes = (0..side.handles.len()).filter(|other| handle(*other) == Some(file));
        let unmaps = (0..side.maps.len()).filter(|other| map(*other) == Some(file));
        let closes = closes.map(|other| Op::Close { h: other as u8 });
        let unmaps = unmaps.map(|other| Op::Unmap { m: other as u8 });
        for op in closes.chain(unmaps).collect::<Vec<_>>() {
            for side in &mut self.sides {
                exec::run(side, &op);
            }
        }
    }

    /// The link count of an open handle on either side.
    fn links(&mut self, h: u8) -> [Option<u64>; 2] {
        self.sides.each_mut().map(|side| {
            let stat = side.handle(h).map(|handle| rustix::fs::fstat(&handle.fd));
            Some(stat?.ok()?.st_nlink)
        })
    }

    /// Differences that docs/semantics.md settles: the kernel's FUSE client does not move the time
    /// of a file that is truncated to the size it has, and copies between what the kernel keeps apart.
    fn left_open(&self, op: &Op) -> bool {
        let oracle = &self.sides[self.oracle()];
        match op {
            // A flush of the page cache looks the same, and must not copy up.
            Op::Utimens { .. } => exec::keeps_time(oracle, op),
            // Whose names show one number depends on xattrs that these cannot have.
            Op::Link { from, .. } if has_option(&self.options, "userxattr") => {
                !exec::is_file_at(oracle, from)
            }
            // The kernel's FUSE client refuses others than the owner before it looks at the type.
            Op::Setflags { h, .. } => {
                let path = Bytes::from(format!("@{h}").as_str());
                !exec::is_file_at(oracle, &path) && !exec::is_dir_at(oracle, &path)
            }
            Op::CopyRange { .. } => self.split,
            Op::Truncate { path, len } => {
                exec::size_at(oracle, path).map(i64::cast_unsigned) == Some(*len)
            }
            _ => false,
        }
    }

    /// The kernel's redirect of a metacopy to its data can become too long, and then it answers EXDEV; a
    /// subject may bring the data. From there on the sides cannot be compared.
    fn kernel_gives_up(&self, op: &Op, oracle: &Outcome, subject: &Outcome) -> bool {
        // A directory with xattr whiteouts is never empty to the kernel.
        let removes = matches!(op, Op::Rmdir { .. } | Op::Rename { .. });
        if self.xwhiteouts && removes && oracle.says("result", "ENOTEMPTY") {
            return subject.is_ok();
        }
        // An append-only file: the subject cannot tell the step from what the kernel says after an append.
        if let Op::Utimens {
            atime: Stamp::Omit,
            mtime: Stamp::At(..),
            ..
        } = op
        {
            return oracle.says("result", "EPERM") && subject.is_ok();
        }
        let ends = match op {
            Op::Rename {
                from,
                to,
                how: How::Exchange,
            } => vec![from, to],
            Op::Rename { from, .. } | Op::Link { from, .. } => vec![from],
            _ => return false,
        };
        let file = |path: &&Bytes| !exec::is_dir_at(&self.sides[self.oracle()], path);
        has_option(&self.options, "metacopy=on")
            && oracle.says("result", "EXDEV")
            && subject.is_ok()
            && ends.iter().any(file)
    }

    /// A file of a lower whose name was deleted while it is open: the kernel counts its links wrong, fails
    /// to copy it up in many ways, and may even bring its name back. Nobody is asked to do likewise:
    /// if the subject knows that the file is gone and the kernel does not, both handles are closed.
    fn nameless(&mut self, op: &Op) -> bool {
        let Some(h) = op.handle() else { return false };
        let links = self.links(h);
        let (oracle, subject) = (self.oracle(), self.subject());
        let removed = self.sides[oracle]
            .handle(h)
            .is_some_and(|handle| is_removed_dir(&handle.fd));
        let nameless = removed || links[subject] < links[oracle];
        if nameless {
            for side in &mut self.sides {
                exec::run(side, &Op::Close { h });
            }
        }
        nameless
    }

    /// Whether the subject passes data through: a descriptor for reading then keeps the lower file
    /// once that is copied up, where the kernel turns to the upper, and a lock on it is apart from
    /// those on the upper file (docs/semantics.md).
    fn passes_through(&self) -> bool {
        has_option(&self.runner.subject_options, "data=passthrough")
    }

    /// If a step acts on a descriptor that the subject's copy-up has left behind, both handles are
    /// closed. A lock would show that also where the data is the same, so readers take none.
    fn left_behind(&mut self, op: &Op) -> bool {
        if !self.passes_through() {
            return false;
        }
        if let Op::Flock { .. } = op {
            return self.may_be_left_behind(op);
        }
        let subject = self.subject();
        let behind = |side: &mut Side, h| {
            side.handle(h)
                .is_some_and(|handle| keeps_the_lower(&handle.fd))
        };
        let slots = op.slots().into_iter();
        let behind: Vec<u8> = slots
            .filter(|h| behind(&mut self.sides[subject], *h))
            .collect();
        for h in &behind {
            for side in &mut self.sides {
                exec::run(side, &Op::Close { h: *h });
            }
        }
        !behind.is_empty()
    }

    /// Whether root writes to a file with suid or sgid where the subject passes data through: if the
    /// file got them after it was opened, any write takes them off (docs/semantics.md).
    fn takes_suid_off(&mut self, step: &Step) -> bool {
        let subject = self.subject();
        if !self.passes_through() || step.who != Who::default() {
            return false;
        }
        let side = &mut self.sides[subject];
        let fd = match step.op {
            Op::Write { h, .. } | Op::Pwrite { h, .. } => side.handle(h).map(|handle| &handle.fd),
            Op::MapPut { m, .. } => side
                .maps
                .get(usize::from(m))
                .and_then(|map| Some(&map.as_ref()?.fd)),
            _ => None,
        };
        fd.and_then(|fd| rustix::fs::fstat(fd).ok())
            .is_some_and(|stat| stat.st_mode & 0o6000 != 0)
    }

    /// Whether a step acts on a descriptor that a step of another thread may leave behind.
    fn may_be_left_behind(&mut self, op: &Op) -> bool {
        let subject = self.subject();
        self.passes_through()
            && op.slots().into_iter().any(|h| {
                let handle = self.sides[subject].handle(h);
                handle.is_some_and(|handle| is_for_reading(&handle.fd))
            })
    }

    /// The tree-wide steps: each ends with a comparison of the whole trees.
    fn whole(&mut self, op: &Op) -> Result<Option<Failure>> {
        let when = op.verb();
        if matches!(op, Op::Remount | Op::Swap) {
            if let Some(failure) = self.unmount() {
                return Ok(Some(failure));
            }
            self.swapped ^= matches!(op, Op::Swap);
            match self.mount()? {
                Mounting::Both => {}
                Mounting::OracleRefuses(why) => {
                    let key = format!("{when}: the kernel refuses the upper");
                    return Ok(Some(Failure::new(key, why, "mounts")));
                }
                Mounting::SubjectRefuses(failure) => return Ok(Some(failure)),
            }
        }
        self.compare(&when)
    }

    fn compare(&mut self, when: &str) -> Result<Option<Failure>> {
        let (oracle, subject) = (self.oracle(), self.subject());
        let mut oracle_view = self.sides[oracle].view()?;
        oracle_view.drop_ghosts();
        let mut subject_view = self.sides[subject].view();
        if let (true, Ok(view)) = (self.kernel_twice(), &mut subject_view) {
            view.drop_ghosts();
        }
        if self.runner.watch.take_fired() {
            return Ok(Some(Failure::new(
                format!("{when}: hang"),
                "a tree",
                "hangs",
            )));
        }
        let subject_view = match subject_view {
            Ok(view) => view,
            Err(error) => {
                let key = format!("{when}: no tree");
                return Ok(Some(Failure::new(key, "a tree", format!("{error:#}"))));
            }
        };
        if let Some(found) = View::difference(&oracle_view, &subject_view, &self.rules) {
            return Ok(Some(Failure::tree(when, found)));
        }
        let lost = match (
            &self.sides[oracle].last_view,
            &self.sides[subject].last_view,
        ) {
            (Some(before), Some(before_subject))
                if self.rules.numbers && self.rules.counts("ino_kept") =>
            {
                let views = ((before, &oracle_view), (before_subject, &subject_view));
                // When both sides have changed hands, neither shows alone what the kernel keeps.
                let back = || View::lost_ino(views.1, views.0).filter(|_| when == "swap");
                View::lost_ino(views.0, views.1).or_else(back)
            }
            _ => None,
        };
        self.sides[oracle].last_view = Some(oracle_view);
        self.sides[subject].last_view = Some(subject_view);
        Ok(lost.map(|found| Failure::tree(when, found)))
    }
}
