//! What each file has been, when that began, and since which flush it may not be taken back.
use std::collections::BTreeMap;

use plyfs_tests::disk::Disk;

/// The content of a file or a directory's mark; nothing where there is no such name.
pub(super) type Content = Option<Vec<u8>>;

/// What a directory is shown as.
pub(super) const DIRECTORY: &[u8] = b"a directory";

#[derive(Debug)]
struct Version {
    /// Events recorded before the change began.
    from: usize,
    content: Content,
    /// The change was made in the file, so the disk may have a part of it.
    in_place: bool,
}

#[derive(Debug)]
struct History {
    versions: Vec<Version>,
    /// Flush, and the version that was promised when it returned.
    promises: Vec<(usize, usize)>,
}

/// Which events a state of the disk has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    /// All before this.
    pub(super) surely: usize,
    /// None from here on.
    pub(super) at_most: usize,
}

/// Two names and what can be seen of them.
#[derive(Debug)]
struct Pair(String, String, Seen);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// One of the two: a rename is one step.
    ExactlyOne,
    /// Not both: one replaces what the other is part of.
    NotBoth,
}

/// Histories of all files.
#[derive(Debug, Default)]
pub(super) struct Histories {
    files: BTreeMap<String, History>,
    pairs: Vec<Pair>,
}

impl Histories {
    /// What is there before anything is recorded.
    pub(super) fn begin(&mut self, path: &str, content: Content) {
        let version = Version {
            from: 0,
            content,
            in_place: false,
        };
        let history = History {
            versions: vec![version],
            promises: Vec::new(),
        };
        self.files.insert(path.to_owned(), history);
    }

    /// The file is about to become this in one step.
    pub(super) fn next(&mut self, disk: &Disk, path: &str, content: Content) {
        self.add(disk, path, content, false);
    }

    /// The file is about to be written: the disk may have any part of the change.
    pub(super) fn write(&mut self, disk: &Disk, path: &str, content: Vec<u8>) {
        self.add(disk, path, Some(content), true);
    }

    fn add(&mut self, disk: &Disk, path: &str, content: Content, in_place: bool) {
        if !self.files.contains_key(path) {
            self.begin(path, None);
        }
        let version = Version {
            from: disk.recorded(),
            content,
            in_place,
        };
        let history = self.files.get_mut(path).unwrap();
        history.versions.push(version);
    }

    /// A call that promises what the file is now has returned.
    pub(super) fn promise(&mut self, disk: &Disk, path: &str) {
        let flush = disk.last_flush().expect("something was flushed");
        let history = self.files.get_mut(path).unwrap();
        history.promises.push((flush, history.versions.len() - 1));
    }

    pub(super) fn pair(&mut self, a: &str, b: &str, seen: Seen) {
        self.pairs.push(Pair(a.to_owned(), b.to_owned(), seen));
    }

    /// What the file is now.
    pub(super) fn now(&self, path: &str) -> Content {
        self.files[path].versions.last().unwrap().content.clone()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// What is wrong with what `look` sees.
    pub(super) fn judge(&self, reached: Reached, look: impl Fn(&str) -> Content) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, history) in &self.files {
            let seen = look(path);
            if let Some(why) = history.judge(reached, &seen) {
                wrong.push(format!("{path}: {why}"));
            }
        }
        for Pair(a, b, rule) in &self.pairs {
            let count = usize::from(look(a).is_some()) + usize::from(look(b).is_some());
            if count > 1 || count == 0 && *rule == Seen::ExactlyOne {
                wrong.push(format!("{a}, {b}: {count} of them are there"));
            }
        }
        wrong
    }
}

impl History {
    fn judge(&self, reached: Reached, seen: &Content) -> Option<String> {
        let kept = self.promises.iter().filter(|(f, _)| *f < reached.surely);
        let first = kept.map(|(_, version)| *version).max().unwrap_or(0);
        let begun = |v: &&Version| v.from == 0 || v.from < reached.at_most;
        let possible: Vec<_> = self.versions[first..].iter().take_while(begun).collect();
        if possible.iter().any(|v| v.content == *seen) {
            return None;
        }
        let Some(seen) = seen else {
            return Some("is not there".to_owned());
        };
        // Those that were written in place one after the other can mix.
        let mixes = possible
            .chunk_by(|_, next| next.in_place)
            .any(|run| is_mix(run, seen));
        (!mixes).then(|| {
            let lens: Vec<_> = possible
                .iter()
                .map(|v| v.content.as_ref().map(Vec::len))
                .collect();
            let head = seen[..seen.len().min(40)].escape_ascii();
            format!(
                "is none of the {} it can be, of {lens:?} bytes, but of {}: {head}",
                possible.len(),
                seen.len()
            )
        })
    }
}

/// Whether each byte is one that some version has there, or a hole before an end that moved.
fn is_mix(run: &[&Version], seen: &[u8]) -> bool {
    let contents: Vec<&[u8]> = run.iter().filter_map(|v| v.content.as_deref()).collect();
    let lens = || contents.iter().map(|c| c.len());
    let (Some(least), Some(most)) = (lens().min(), lens().max()) else {
        return false;
    };
    (least..=most).contains(&seen.len())
        && seen.iter().enumerate().all(|(i, byte)| {
            contents
                .iter()
                .any(|c| c.get(i).map_or(*byte == 0, |b| b == byte))
        })
}

#[test]
fn histories_tell_old_new_and_mixed_from_wrong() {
    let version = |from, content: &str, in_place| Version {
        from,
        content: Some(content.into()),
        in_place,
    };
    let history = History {
        versions: vec![
            version(0, "aaaa", false),
            version(5, "bbbb", false),
            version(9, "bccbdd", true),
        ],
        promises: vec![(7, 1)],
    };
    let judge = |surely, at_most, seen: &str| {
        let reached = Reached { surely, at_most };
        history.judge(reached, &Some(seen.into())).is_none()
    };
    assert!(judge(5, 6, "aaaa") && judge(5, 6, "bbbb"));
    assert!(!judge(5, 5, "bbbb"), "not begun");
    assert!(!judge(5, 6, "aabb"), "replaced in one step");
    assert!(judge(7, 8, "aaaa") && !judge(8, 8, "aaaa"), "promised");
    assert!(judge(10, 12, "bccb") && judge(10, 12, "bbcb\0d"));
    assert!(!judge(10, 12, "bbxb") && !judge(10, 12, "bbb"));
    let gone = history.judge(
        Reached {
            surely: 0,
            at_most: 9,
        },
        &None,
    );
    assert!(gone.is_some());
}
