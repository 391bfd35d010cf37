//! What a union filesystem must show, by the rules alone: names, types, contents and whiteouts.
//!
//! The model knows neither inodes of layers nor copy-up nor redirects. It merges the layers once;
//! from then on the view is a plain tree in memory, and each directory remembers which names its
//! lower part shows: those, and only those, need a whiteout once the tree lacks them.
mod apply;
mod layer;
mod op;

use std::collections::{BTreeMap, BTreeSet};

pub use layer::{Layer, Planted};
pub use op::{Move, Op};

/// A file, directory or symbolic link of the model.
#[derive(Clone, Debug)]
struct Node {
    mode: u32,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Dir(Dir),
    File(Vec<u8>),
    Symlink(String),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    names: BTreeMap<String, Id>,
    /// The names its lower part shows; None for a directory without one.
    lower: Option<BTreeSet<String>>,
    removed: bool,
}

/// Number of a node.
type Id = usize;
const ROOT: Id = 0;

/// What is shown under one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// A letter as `ls -l` has it: `d`, `-` or `l`.
    pub kind: char,
    /// The permission bits.
    pub mode: u32,
    /// The content of a file, the target of a symbolic link.
    pub content: Vec<u8>,
    /// How many names it has; 0 for a directory, whose count is not modelled.
    pub nlink: usize,
}

/// The state of a view.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: Vec<Node>,
    held: BTreeMap<u8, Id>,
    redirects: bool,
}

impl Model {
    /// The view of `layers`, topmost first. With `has_upper` the first of them is the upper; its
    /// whiteouts are taken to hide something. `redirects` says that directories with a lower part
    /// can be renamed.
    #[must_use]
    pub fn new(layers: &[Layer], has_upper: bool, redirects: bool) -> Self {
        Self {
            nodes: layer::merge(layers, has_upper),
            held: BTreeMap::new(),
            redirects,
        }
    }

    fn dir(&self, id: Id) -> Option<&Dir> {
        match &self.nodes[id].body {
            Body::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// All paths but the root's, each beginning with a slash.
    #[must_use]
    pub fn tree(&self) -> BTreeMap<String, Shown> {
        let mut tree = BTreeMap::new();
        self.walk(ROOT, "", &mut |path, id| {
            tree.insert(path.to_owned(), self.shown(id));
        });
        tree
    }

    /// What is kept by [`Op::Hold`].
    #[must_use]
    pub fn held(&self) -> BTreeMap<u8, Shown> {
        let held = self.held.iter();
        held.map(|(slot, id)| (*slot, self.shown(*id))).collect()
    }

    /// Where the upper must have a whiteout, and nowhere else.
    #[must_use]
    pub fn whiteouts(&self) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        let mut visit = |path: &str, id: Id| {
            let Some(dir) = self.dir(id) else { return };
            for name in dir.lower.iter().flatten() {
                if !dir.names.contains_key(name) {
                    out.insert(format!("{path}/{name}"));
                }
            }
        };
        visit("", ROOT);
        self.walk(ROOT, "", &mut visit);
        out
    }

    fn walk(&self, dir: Id, path: &str, visit: &mut impl FnMut(&str, Id)) {
        for (name, id) in self.dir(dir).into_iter().flat_map(|d| &d.names) {
            let child = format!("{path}/{name}");
            visit(&child, *id);
            self.walk(*id, &child, visit);
        }
    }

    fn shown(&self, id: Id) -> Shown {
        let node = &self.nodes[id];
        let (kind, content) = match &node.body {
            Body::Dir(_) => ('d', Vec::new()),
            Body::File(data) => ('-', data.clone()),
            Body::Symlink(target) => ('l', target.clone().into_bytes()),
        };
        Shown {
            kind,
            mode: node.mode,
            content,
            nlink: if kind == 'd' { 0 } else { self.links(id) },
        }
    }

    /// How many names a node has.
    fn links(&self, id: Id) -> usize {
        let mut count = 0;
        self.walk(ROOT, "", &mut |_, other| count += usize::from(other == id));
        count
    }
}

#[cfg(test)]
mod tests;
