//! Says in words how two trees differ.
use crate::tree::{Kind, Node, Tree};

/// What a comparison looks at beyond what always counts (names, types, modes, owners, devices,
/// xattrs, link targets, contents and which names are hard links of each other).
#[derive(Clone, Debug)]
pub struct Rules {
    /// Compare the size and link count of directories.
    pub dir_size: bool,
    /// Compare mtimes.
    pub mtime: bool,
    /// Two mtimes that both lie at or after this time (ns since the epoch) count as equal: both
    /// were written by the run that is compared.
    pub written_since: Option<i128>,
    /// Compare inode numbers and ctimes: nothing at all may have happened to the tree.
    pub untouched: bool,
    /// Paths that are left out, with everything below them.
    pub skip: Vec<String>,
    /// Names of xattrs that are left out; a trailing `*` matches any rest.
    pub skip_xattrs: Vec<String>,
}

impl Default for Rules {
    /// What two file systems must agree on when they show the same tree.
    fn default() -> Self {
        Self {
            dir_size: false,
            mtime: true,
            written_since: None,
            untouched: false,
            skip: Vec::new(),
            skip_xattrs: Vec::new(),
        }
    }
}

impl Rules {
    /// What one tree must keep when nothing may have happened to it.
    #[must_use]
    pub fn exact() -> Self {
        Self {
            dir_size: true,
            untouched: true,
            ..Self::default()
        }
    }

    /// Everything but times: for trees that were written at different moments.
    #[must_use]
    pub fn timeless() -> Self {
        Self {
            mtime: false,
            ..Self::default()
        }
    }

    fn skips(&self, path: &str) -> bool {
        self.skip.iter().any(|skip| {
            path.strip_prefix(skip.as_str())
                .is_some_and(|r| r.is_empty() || r.starts_with('/'))
        })
    }

    fn skips_xattr(&self, name: &str) -> bool {
        self.skip_xattrs
            .iter()
            .any(|skip| match skip.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == skip,
            })
    }
}

/// How `b` differs from `a` by the default [`Rules`], one line a difference.
#[must_use]
pub fn diff(a: &Tree, b: &Tree) -> Vec<String> {
    diff_with(a, b, &Rules::default())
}

/// How `b` differs from `a`, one line a difference; empty when they are equal.
#[must_use]
pub fn diff_with(a: &Tree, b: &Tree, rules: &Rules) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, node) in a.nodes.iter().filter(|(path, _)| !rules.skips(path)) {
        match b.nodes.get(path) {
            Some(other) => diff_node(path, node, other, rules, &mut lines),
            None => only_in(a, "the first", path, b, &mut lines),
        }
    }
    for path in b.nodes.keys().filter(|path| !rules.skips(path)) {
        if !a.nodes.contains_key(path) {
            only_in(b, "the second", path, a, &mut lines);
        }
    }
    lines
}

/// One line for a path that only `tree` has; what lies below such a directory is only counted.
fn only_in(tree: &Tree, which: &str, path: &str, other: &Tree, lines: &mut Vec<String>) {
    let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
    if !other.nodes.contains_key(parent) {
        return;
    }
    let inside = format!("{path}/");
    let below = tree
        .nodes
        .range(inside.clone()..)
        .take_while(|(p, _)| p.starts_with(&inside));
    let below = match below.count() {
        0 => String::new(),
        n => format!(", {n} paths below"),
    };
    lines.push(format!(
        "{path}: only in {which} ({}{below})",
        brief(&tree.nodes[path])
    ));
}

fn brief(node: &Node) -> String {
    let error = node
        .error
        .as_ref()
        .map_or_else(String::new, |e| format!(", {e}"));
    format!(
        "{:?} {:04o} {}:{}{error}",
        node.kind, node.mode, node.uid, node.gid
    )
}

fn diff_node(path: &str, a: &Node, b: &Node, rules: &Rules, lines: &mut Vec<String>) {
    let mut say = |what: &str, a: String, b: String| {
        if a != b {
            lines.push(format!("{path}: {what}: {a} | {b}"));
        }
    };
    if a.kind != b.kind {
        say("type", format!("{:?}", a.kind), format!("{:?}", b.kind));
        return;
    }
    let dir = a.kind == Kind::Dir;
    say("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    say(
        "owner",
        format!("{}:{}", a.uid, a.gid),
        format!("{}:{}", b.uid, b.gid),
    );
    say("device", format!("{:x}", a.rdev), format!("{:x}", b.rdev));
    if !dir || rules.dir_size {
        say("size", a.size.to_string(), b.size.to_string());
        say("link count", a.nlink.to_string(), b.nlink.to_string());
    }
    say("link target", or_none(&a.target), or_none(&b.target));
    say("content", or_none(&a.content), or_none(&b.content));
    say(
        "same file as",
        or_none(&a.same_file_as),
        or_none(&b.same_file_as),
    );
    say("error", or_none(&a.error), or_none(&b.error));
    if rules.untouched {
        say("inode", a.ino.to_string(), b.ino.to_string());
        say("ctime", seconds(a.ctime), seconds(b.ctime));
    }
    let both_written = rules
        .written_since
        .is_some_and(|t| a.mtime >= t && b.mtime >= t);
    if rules.mtime && !both_written {
        say("mtime", seconds(a.mtime), seconds(b.mtime));
    }
    for name in a
        .xattrs
        .keys()
        .chain(b.xattrs.keys().filter(|n| !a.xattrs.contains_key(*n)))
    {
        if !rules.skips_xattr(name) {
            let value = |node: &Node| or_none(&node.xattrs.get(name).cloned());
            say(&format!("xattr {name}"), value(a), value(b));
        }
    }
}

fn or_none(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "(none)".to_owned())
}

fn seconds(ns: i128) -> String {
    format!(
        "{}.{:09}",
        ns.div_euclid(1_000_000_000),
        ns.rem_euclid(1_000_000_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plant, snapshot};

    fn tree(spec: &str) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), &format!("{spec}\nt 1 ."));
        snapshot(dir.path())
    }

    #[test]
    fn equal_trees_have_no_difference() {
        let spec = "f a = 1\nt 5 a\nl b -> a\nt 5 b";
        assert_eq!(diff(&tree(spec), &tree(spec)), Vec::<String>::new());
    }

    #[test]
    fn every_difference_has_a_line() {
        let a = tree("f a = 1\nm 644 a\nt 5 a\nf gone/a\nf gone/b\nf t\nt 1 t");
        let b = tree("f a = 2\nm 600 a\nt 6 a\nd t\nf new");
        let lines = diff(&a, &b).join("\n");
        for part in [
            "a: mode: 0644 | 0600",
            "a: content: ",
            "a: mtime: 5.000000000 | 6.000000000",
            "gone: only in the first (Dir 0755 0:0, 2 paths below)",
            "new: only in the second (File",
            "t: type: File | Dir",
        ] {
            assert!(lines.contains(part), "{part:?} is missing in:\n{lines}");
        }
        assert!(!lines.contains("gone/a"), "{lines}");
    }

    #[test]
    fn hard_links_count() {
        let linked = tree("f a = 1\nh b -> a\nt 1 a");
        let apart = tree("f a = 1\nf b = 1\nt 1 a\nt 1 b");
        let lines = diff(&linked, &apart).join("\n");
        assert!(lines.contains("b: same file as: a | (none)"), "{lines}");
    }

    #[test]
    fn skipping_leaves_out_what_lies_below_and_nothing_else() {
        let rules = Rules {
            skip: vec!["d".into()],
            ..Rules::timeless()
        };
        let lines = diff_with(
            &tree("f d/a = 1\nf dd = 1"),
            &tree("f d/a = 2\nf dd = 2"),
            &rules,
        );
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("dd: content"), "{lines:?}");
    }

    #[test]
    fn times_written_by_both_runs_are_equal() {
        let rules = Rules {
            written_since: Some(10_000_000_000),
            ..Rules::default()
        };
        let at = |t: u32| tree(&format!("f a\nt {t} a"));
        assert!(diff_with(&at(11), &at(12), &rules).is_empty());
        assert_eq!(diff_with(&at(9), &at(12), &rules).len(), 1);
    }
}
