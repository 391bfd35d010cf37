//! What one step gave on one side, stripped of what may legitimately differ, and its comparison.

use std::hash::{DefaultHasher, Hasher};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::text::Bytes;

/// What counts as a difference.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Whether the kernel's inode numbers mean something here.
    pub(crate) numbers: bool,
    /// Names of facts that do not count.
    pub(crate) ignored: Vec<String>,
}

impl Rules {
    /// Whether a fact of this name counts.
    pub(crate) fn counts(&self, name: &str) -> bool {
        !self.ignored.iter().any(|ignored| ignored == name)
    }
}

/// The comparable result of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Facts that must be equal, in order.
    facts: Vec<(&'static str, String)>,
    /// Facts that the subject must have where the oracle has them (inode numbers that stay).
    kept: Vec<(&'static str, bool)>,
}

impl Outcome {
    /// The step made no sense here (an empty handle slot).
    pub(crate) fn skipped() -> Self {
        Self::default().fact("skipped", "")
    }

    /// Success without further facts.
    pub(crate) fn done() -> Self {
        Self::default().fact("result", "ok")
    }

    /// A failed system call.
    pub(crate) fn error(errno: Errno) -> Self {
        Self::default().fact("result", errno_name(errno))
    }

    /// Adds a fact that must be equal.
    pub(crate) fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }

    /// Adds a fact that must hold on the subject if it holds on the oracle.
    pub(crate) fn kept(mut self, name: &'static str, holds: bool) -> Self {
        self.kept.push((name, holds));
        self
    }

    /// Adds everything about a file that stat shows and that both sides must agree on.
    pub(crate) fn stat(self, stat: &Stat) -> Self {
        stat_facts(stat)
            .into_iter()
            .fold(self, |outcome, (name, value)| outcome.fact(name, value))
    }

    /// Leaves a fact out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.facts.retain(|(fact, _)| *fact != name);
        self
    }

    /// Whether a fact has this value.
    pub(crate) fn says(&self, name: &str, value: &str) -> bool {
        let mut facts = self.facts.iter();
        facts.any(|(fact, said)| *fact == name && said == value)
    }

    /// `ok`, the name of the error, or `skipped`.
    pub(crate) fn ending(&self) -> &str {
        match self.facts.first() {
            Some(("result", value)) => value,
            _ => "skipped",
        }
    }

    /// Whether the call succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.ending() == "ok"
    }

    /// The first fact in which the subject is worse than the oracle.
    pub(crate) fn differs(oracle: &Self, subject: &Self, rules: &Rules) -> Option<String> {
        for (mine, theirs) in oracle.facts.iter().zip(&subject.facts) {
            if mine != theirs && rules.counts(mine.0) {
                return Some(match mine.0 {
                    "result" => format!("result {} / {}", mine.1, theirs.1),
                    name => name.to_owned(),
                });
            }
        }
        if oracle.facts.len() != subject.facts.len() {
            return Some("facts".to_owned());
        }
        if !rules.numbers {
            return None;
        }
        let lost = oracle
            .kept
            .iter()
            .zip(&subject.kept)
            .find(|(mine, theirs)| mine.1 && !theirs.1 && rules.counts(mine.0));
        lost.map(|(mine, _)| mine.0.to_owned())
    }

    /// One line for people.
    pub(crate) fn show(&self) -> String {
        let facts = self
            .facts
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let kept = self
            .kept
            .iter()
            .map(|(name, holds)| format!("{name}={holds}"));
        facts.chain(kept).collect::<Vec<_>>().join(" ")
    }
}

impl From<rustix::io::Result<()>> for Outcome {
    fn from(result: rustix::io::Result<()>) -> Self {
        match result {
            Ok(()) => Outcome::done(),
            Err(errno) => Outcome::error(errno),
        }
    }
}

/// The facts of a stat that must agree. Directories have no comparable size and link count.
pub(crate) fn stat_facts(stat: &Stat) -> Vec<(&'static str, String)> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut facts = vec![
        ("type", type_letter(kind).to_string()),
        ("mode", format!("{:04o}", stat.st_mode & 0o7777)),
        ("uid", stat.st_uid.to_string()),
        ("gid", stat.st_gid.to_string()),
        (
            "mtime",
            time_class(stat.st_mtime, stat.st_mtime_nsec as i64),
        ),
    ];
    if kind != FileType::Directory {
        facts.push(("nlink", stat.st_nlink.to_string()));
        facts.push(("size", stat.st_size.to_string()));
    }
    if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        facts.push(("rdev", format!("{major}:{minor}")));
    }
    facts
}

/// The letter `find -printf %y` uses.
pub(crate) fn type_letter(kind: FileType) -> char {
    match kind {
        FileType::RegularFile => 'f',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '?',
    }
}

/// A time that this run gave is `now`: the sides take turns, so its value cannot agree.
fn time_class(sec: i64, nsec: i64) -> String {
    static START: OnceLock<i64> = OnceLock::new();
    let start = *START.get_or_init(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |passed| passed.as_secs() as i64)
    });
    if (start - 60..start + 86_400).contains(&sec) {
        "now".to_owned()
    } else {
        format!("{sec}.{nsec:09}")
    }
}

/// Fixes the moment from which times count as `now`; call it before the first file is made.
pub(crate) fn start_clock() {
    time_class(0, 0);
}

/// A short stand-in for file contents: length, first bytes, hash.
pub(crate) fn digest(data: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    let head = Bytes::from(&data[..data.len().min(8)]);
    format!("{}:{head}:{:016x}", data.len(), hasher.finish())
}

/// `ENOENT` for 2 and so on; the number for rare ones.
pub(crate) fn errno_name(errno: Errno) -> String {
    let text = format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()));
    if text == "UnknownErrno" {
        format!("E{}", errno.raw_os_error())
    } else {
        text
    }
}
