//! A whole tree as it looks from outside: the facts both sides must share, path by path.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::outcome::{Rules, digest, stat_facts};
use super::stream::read_all;
use super::text::Bytes;

/// One file: facts that must be equal, and its inode number.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    facts: Vec<(&'static str, String)>,
    /// Device and inode number.
    id: (u64, u64),
    listed_right: bool,
}

/// The identity of what could not be looked up.
const NO_ID: (u64, u64) = (0, 0);

/// A tree, by path from its root.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct View(BTreeMap<Bytes, Seen>);

/// Where two trees differ first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TreeDifference {
    /// What kind of difference, for telling failures apart.
    pub(crate) key: String,
    /// The path and the two values.
    pub(crate) text: String,
}

impl View {
    /// Walks the tree below `root` as the calling user. `beat` is called for every entry.
    pub(crate) fn of(root: &Path, beat: &dyn Fn()) -> Result<Self> {
        let mut view = View::default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, root, flags, Mode::empty())
            .with_context(|| format!("opening {}", root.display()))?;
        view.add_dir(root, &top, Bytes::default(), beat);
        view.group_links();
        Ok(view)
    }

    /// Failures become facts: an entry that is listed but cannot be looked at is a difference.
    fn add_dir(&mut self, root: &Path, dir: &OwnedFd, path: Bytes, beat: &dyn Fn()) {
        let listed = read_all(dir);
        let mut facts = Vec::new();
        let mut id = (0, 0);
        match rustix::fs::fstat(dir) {
            Ok(stat) => {
                id = (stat.st_dev, stat.st_ino);
                facts.extend(stat_facts(&stat));
            }
            Err(errno) => facts.push(("stat", errno.to_string())),
        }
        facts.push(("xattrs", xattrs(root, &path)));
        let entries = match listed {
            Ok(entries) => entries,
            Err(errno) => {
                facts.push(("listing", errno.to_string()));
                Vec::new()
            }
        };
        let listed_right = entries
            .iter()
            .all(|entry| entry.name.0 != b"." || entry.ino == id.1);
        self.0.insert(
            path.clone(),
            Seen {
                facts,
                id,
                listed_right,
            },
        );
        for entry in entries {
            if entry.name.0 == b"." || entry.name.0 == b".." {
                continue;
            }
            beat();
            self.add_child(
                root,
                dir,
                path.join(&entry.name.0),
                (entry.letter, entry.ino),
                beat,
            );
        }
    }

    fn add_child(
        &mut self,
        root: &Path,
        dir: &OwnedFd,
        path: Bytes,
        listed: (char, u64),
        beat: &dyn Fn(),
    ) {
        let name = path.last_name().to_vec();
        let mut facts = Vec::new();
        if self.0.contains_key(&path) {
            facts.push(("listing", "listed twice".to_owned()));
        }
        let stat = match rustix::fs::statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => {
                let ghost = listed.0 == 'c' && errno == rustix::io::Errno::NOENT;
                let value = if ghost {
                    "ghost".to_owned()
                } else {
                    errno.to_string()
                };
                facts.push(("stat", value));
                self.0.insert(
                    path,
                    Seen {
                        facts,
                        id: NO_ID,
                        listed_right: true,
                    },
                );
                return;
            }
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(dir, name.as_slice(), flags, Mode::empty()) {
                Ok(child) => {
                    self.add_dir(root, &child, path.clone(), beat);
                    if let Some(seen) = self.0.get_mut(&path) {
                        seen.listed_right &= listed.1 == stat.st_ino;
                    }
                }
                Err(errno) => {
                    facts.push(("open", errno.to_string()));
                    self.0.insert(
                        path,
                        Seen {
                            facts,
                            id: (stat.st_dev, stat.st_ino),
                            listed_right: true,
                        },
                    );
                }
            }
            return;
        }
        facts.extend(stat_facts(&stat));
        facts.push(("d_type", listed.0.to_string()));
        facts.push(("xattrs", xattrs(root, &path)));
        match kind {
            FileType::RegularFile => facts.push(("content", content(dir, &name))),
            FileType::Symlink => facts.push((
                "target",
                match rustix::fs::readlinkat(dir, name.as_slice(), Vec::new()) {
                    Ok(target) => Bytes::from(target.to_bytes()).to_string(),
                    Err(errno) => errno.to_string(),
                },
            )),
            _ => {}
        }
        let listed_right = listed.1 == stat.st_ino;
        self.0.insert(
            path,
            Seen {
                facts,
                id: (stat.st_dev, stat.st_ino),
                listed_right,
            },
        );
    }

    /// Removes what is listed but is not there: whiteouts in a directory that nothing merges with,
    /// which kernel overlayfs lists.
    pub(crate) fn drop_ghosts(&mut self) {
        self.0
            .retain(|_, seen| seen.facts.first() != Some(&("stat", "ghost".to_owned())));
    }

    /// Names of one file each say which name is the first of them.
    fn group_links(&mut self) {
        let mut first: BTreeMap<(u64, u64), Bytes> = BTreeMap::new();
        for (path, seen) in &mut self.0 {
            let dir = ("type", "d".to_owned());
            // What could not be looked up has no number, and is no file that others could be.
            if seen.id == NO_ID || seen.facts.contains(&dir) {
                continue;
            }
            let leader = first.entry(seen.id).or_insert_with(|| path.clone());
            seen.facts.push(("same_file_as", leader.to_string()));
        }
    }

    /// Compares with the oracle's tree.
    pub(crate) fn difference(
        oracle: &View,
        subject: &View,
        rules: &Rules,
    ) -> Option<TreeDifference> {
        let differ = |key: &str, text: String| {
            Some(TreeDifference {
                key: key.to_owned(),
                text,
            })
        };
        for (path, seen) in &oracle.0 {
            let Some(other) = subject.0.get(path) else {
                return differ(
                    "name missing",
                    format!("/{path}: only on the oracle: {seen:?}"),
                );
            };
            if let Some((mine, theirs)) = seen
                .facts
                .iter()
                .zip(&other.facts)
                .find(|(mine, theirs)| mine != theirs && rules.counts(mine.0))
            {
                let text = format!("/{path}: {mine:?} on the oracle, {theirs:?} on the subject");
                return differ(mine.0, text);
            }
            if seen.facts.len() != other.facts.len() {
                return differ("facts", format!("/{path}: {seen:?} / {other:?}"));
            }
            if rules.numbers && rules.counts("d_ino") && seen.listed_right && !other.listed_right {
                let text = format!("/{path}: d_ino is not st_ino {} on the subject", other.id.1);
                return differ("d_ino", text);
            }
        }
        let extra = subject
            .0
            .iter()
            .find(|(path, _)| !oracle.0.contains_key(*path))?;
        differ(
            "name too many",
            format!("/{}: only on the subject: {:?}", extra.0, extra.1),
        )
    }

    /// A path whose inode number the oracle kept between two views, and the subject did not.
    pub(crate) fn lost_ino(
        oracle: (&View, &View),
        subject: (&View, &View),
    ) -> Option<TreeDifference> {
        let kept = |(before, after): (&View, &View), path| {
            Some(before.0.get(path)?.id.1 == after.0.get(path)?.id.1)
        };
        let lost =
            oracle.0.0.keys().find(|path| {
                kept(oracle, path) == Some(true) && kept(subject, path) == Some(false)
            })?;
        let numbers = (subject.0.0.get(lost)?.id.1, subject.1.0.get(lost)?.id.1);
        let text = format!("/{lost}: st_ino went from {} to {}", numbers.0, numbers.1);
        Some(TreeDifference {
            key: "ino not kept".to_owned(),
            text,
        })
    }
}

fn content(dir: impl AsFd, name: &[u8]) -> String {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno) => return errno.to_string(),
    };
    match read_to_end(&file) {
        Ok(data) => digest(&data),
        Err(errno) => errno.to_string(),
    }
}

/// Reads on from where the descriptor stands, at most 16 MiB.
pub(crate) fn read_to_end(fd: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut piece = vec![0; 1 << 16];
    while data.len() < 16 << 20 {
        let got = rustix::io::read(fd, &mut piece)?;
        if got == 0 {
            break;
        }
        data.extend_from_slice(&piece[..got]);
    }
    Ok(data)
}

fn xattrs(root: &Path, path: &Bytes) -> String {
    let full = [root.as_os_str().as_encoded_bytes(), b"/", &path.0].concat();
    let names = match list(|buf| rustix::fs::llistxattr(full.as_slice(), buf)) {
        Ok(names) => names,
        Err(errno) => return errno.to_string(),
    };
    let mut lines = Vec::new();
    for name in names {
        let value =
            match value(|buf| rustix::fs::lgetxattr(full.as_slice(), name.0.as_slice(), buf)) {
                Ok(value) => Bytes(value).to_string(),
                Err(errno) => errno.to_string(),
            };
        lines.push(format!("{name}={value}"));
    }
    lines.join(" ")
}

/// Runs a list call and splits its answer into sorted names.
pub(crate) fn list(
    call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Bytes>> {
    let raw = value(call)?;
    let names = raw.split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(Bytes::from).collect();
    names.sort();
    Ok(names)
}

/// Runs a call that fills a buffer of the largest size an attribute can have.
pub(crate) fn value(
    call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let len = call(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}
