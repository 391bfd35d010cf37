//! Layers of the model, and the one rule by which they merge.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Body, Dir, Id, Node};

/// One thing in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A directory; an opaque one hides what is deeper.
    Dir {
        /// Whether it is opaque.
        opaque: bool,
    },
    /// A file with this text.
    File(String),
    /// A symbolic link with this target.
    Symlink(String),
    /// A whiteout.
    Whiteout,
}

/// A layer: things by path, each path beginning with a slash. What has something below it is a
/// directory, whatever else it was planted as.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    root: Part,
}

/// A directory of one layer.
#[derive(Clone, Debug, Default)]
struct Part {
    opaque: bool,
    names: BTreeMap<String, Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Dir(Part),
    Other(Planted),
}

impl Layer {
    /// A layer of `things`; a later one takes the place of an earlier one.
    #[must_use]
    pub fn new(things: &[(String, Planted)]) -> Self {
        let mut layer = Self::default();
        for (path, thing) in things {
            let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
            if let Some(name) = parts.pop() {
                layer.root.descend(&parts).plant(name, thing);
            }
        }
        layer
    }
}

impl Part {
    fn descend(&mut self, path: &[&str]) -> &mut Self {
        let Some((first, rest)) = path.split_first() else {
            return self;
        };
        let slot = self.names.entry((*first).to_owned());
        let child = slot.or_insert_with(|| Child::Dir(Self::default()));
        if let Child::Other(_) = child {
            *child = Child::Dir(Self::default());
        }
        match child {
            Child::Dir(part) => part.descend(rest),
            Child::Other(_) => unreachable!("it has just been made a directory"),
        }
    }

    fn plant(&mut self, name: &str, thing: &Planted) {
        match thing {
            Planted::Dir { opaque } => self.descend(&[name]).opaque |= *opaque,
            other => {
                self.names
                    .insert(name.to_owned(), Child::Other(other.clone()));
            }
        }
    }

    fn write(&self, path: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, child) in &self.names {
            let path = format!("{path}/{name}");
            match child {
                Child::Dir(part) => {
                    write!(f, " {path}{}", if part.opaque { " opaque" } else { "" })?;
                    part.write(&path, f)?;
                }
                Child::Other(Planted::File(text)) => write!(f, " {path}={text}")?,
                Child::Other(Planted::Symlink(target)) => write!(f, " {path}->{target}")?,
                Child::Other(_) => write!(f, " wh {path}")?,
            }
        }
        Ok(())
    }
}

/// The layer in the language of the engine's tests: ` /d opaque /d/f=text wh /g`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.write("", f)
    }
}

/// The merged view of `layers`, the root first.
pub(super) fn merge(layers: &[Layer], has_upper: bool) -> Vec<Node> {
    let mut nodes = Vec::new();
    let parts: Vec<_> = layers.iter().map(|l| &l.root).collect();
    merge_dir(&parts, has_upper, &mut nodes);
    nodes
}

/// What a name means in a stack of directories.
enum Meaning<'a> {
    Nothing,
    /// All that merge; whether the first is of the topmost directory.
    Dirs(Vec<&'a Part>, bool),
    Leaf(&'a Planted),
}

fn meaning<'a>(parts: &[&'a Part], name: &str) -> Meaning<'a> {
    let mut dirs = Vec::new();
    let mut from_top = false;
    for (i, part) in parts.iter().enumerate() {
        match part.names.get(name) {
            None => {}
            Some(Child::Dir(dir)) => {
                from_top |= i == 0;
                dirs.push(dir);
                if dir.opaque {
                    break;
                }
            }
            Some(Child::Other(Planted::Whiteout)) => break,
            Some(Child::Other(leaf)) if dirs.is_empty() => return Meaning::Leaf(leaf),
            Some(Child::Other(_)) => break,
        }
    }
    if dirs.is_empty() {
        Meaning::Nothing
    } else {
        Meaning::Dirs(dirs, from_top)
    }
}

fn merge_dir(parts: &[&Part], upper_first: bool, nodes: &mut Vec<Node>) -> Id {
    let id = nodes.len();
    nodes.push(Node {
        mode: 0o755,
        body: Body::Dir(Dir::default()),
    });
    let names: BTreeSet<&String> = parts.iter().flat_map(|p| p.names.keys()).collect();
    let mut dir = Dir::default();
    for name in &names {
        let child = match meaning(parts, name) {
            Meaning::Nothing => continue,
            Meaning::Dirs(dirs, from_top) => merge_dir(&dirs, upper_first && from_top, nodes),
            Meaning::Leaf(leaf) => {
                nodes.push(node_of(leaf));
                nodes.len() - 1
            }
        };
        dir.names.insert((*name).clone(), child);
    }
    let lowers = &parts[usize::from(upper_first)..];
    let shows = |name: &&&String| !matches!(meaning(lowers, name), Meaning::Nothing);
    if !lowers.is_empty() {
        let shown = names.iter().filter(shows).map(|n| (*n).clone());
        dir.lower = Some(shown.collect());
    }
    nodes[id].body = Body::Dir(dir);
    id
}

fn node_of(leaf: &Planted) -> Node {
    match leaf {
        Planted::File(text) => Node {
            mode: 0o644,
            body: Body::File(text.clone().into_bytes()),
        },
        Planted::Symlink(target) => Node {
            mode: 0o777,
            body: Body::Symlink(target.clone()),
        },
        Planted::Dir { .. } | Planted::Whiteout => unreachable!("no leaf of a view"),
    }
}
