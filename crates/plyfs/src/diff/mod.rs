//! What an upper layer changes: the views of a stack with and without it, compared.
use std::path::{Path, PathBuf};

use plyfs_format::names::{XattrNamespace, is_foreign_private};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Name, Result, xattr};

use plyfs_image::view::{Dir, Layers, Node};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// The lowers have nothing there.
    Added,
    /// The lowers have something else there, or the directory holds changes.
    Changed,
    /// The lowers have something there that is not shown any more.
    Deleted,
}

impl ChangeKind {
    /// As `docker diff` writes it.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The path in the merged view, from its root.
    pub path: Vec<u8>,
    /// Type of what is there, or was; None where it is not known what was deleted.
    pub file_type: Option<&'static str>,
}

/// All changes, sorted by path.
pub(crate) fn changes(upper: &Path, lowers: &[PathBuf]) -> anyhow::Result<Vec<Change>> {
    let below = Layers::open(lowers.iter().map(PathBuf::as_path))?;
    let all = Layers::open(std::iter::once(upper).chain(lowers.iter().map(PathBuf::as_path)))?;
    let mut walk = Walk {
        below: &below,
        all: &all,
        lowers_known: !lowers.is_empty(),
        out: vec![],
    };
    if let Some(new) = all.root()? {
        let old = below.root()?;
        let cut = new.is_cut();
        walk.dir(b"", old.as_ref(), &new, cut)?;
    }
    let mut out = walk.out;
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

struct Walk<'a> {
    below: &'a Layers,
    all: &'a Layers,
    /// Without lowers nobody knows what a whiteout deletes.
    lowers_known: bool,
    out: Vec<Change>,
}

impl Walk<'_> {
    /// Compares a directory that both views or only the new one have. `cut`: the upper shows here
    /// something else than the lowers have at the same path, so all names count, not only those
    /// the upper has.
    fn dir(&mut self, path: &[u8], old: Option<&Dir>, new: &Dir, cut: bool) -> Result<()> {
        let mut names = if cut {
            new.all_names()?
        } else {
            new.top_names()?
        };
        if let Some(old) = old.filter(|_| cut) {
            names.extend(old.all_names()?);
        }
        for name in &names {
            let was = old.map_or(Ok(None), |o| o.child(self.below, name))?;
            let is = new.child(self.all, name)?;
            let path = [path, b"/", name.as_bytes()].concat();
            match (was, is) {
                (None, None) => self.maybe_deleted(path, new, name)?,
                (Some(was), None) => self.push(ChangeKind::Deleted, path, Some(kind_of(&was))),
                (None, Some(is)) => self.added(path, is, cut)?,
                (Some(was), Some(is)) => self.both(path, was, is, cut)?,
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: ChangeKind, path: Vec<u8>, file: Option<Kind>) {
        self.out.push(Change {
            kind,
            path,
            file_type: file.map(type_name),
        });
    }

    fn maybe_deleted(&mut self, path: Vec<u8>, new: &Dir, name: &Name) -> Result<()> {
        if !self.lowers_known && new.top_deletes(name)? {
            self.push(ChangeKind::Deleted, path, None);
        }
        Ok(())
    }

    fn added(&mut self, path: Vec<u8>, is: Node, cut: bool) -> Result<()> {
        let kind = kind_of(&is);
        if let Node::Dir(dir) = &is {
            self.dir(&path, None, dir, cut || dir.is_cut())?;
        }
        self.push(ChangeKind::Added, path, Some(kind));
        Ok(())
    }

    fn both(&mut self, path: Vec<u8>, was: Node, is: Node, cut: bool) -> Result<()> {
        let before = self.out.len();
        let changed = match (&was, &is) {
            (Node::Leaf(a), Node::Leaf(b)) => b.layer == 0 || a.stat.id() != b.stat.id(),
            (Node::Dir(a), Node::Dir(b)) => {
                let cut = cut || (b.layer() == 0 && b.is_cut());
                self.dir(&path, Some(a), b, cut)?;
                self.out.len() != before || attributes_differ(a, b)?
            }
            (Node::Leaf(_), Node::Dir(b)) => {
                self.dir(&path, None, b, true)?;
                true
            }
            (Node::Dir(_), Node::Leaf(_)) => true,
        };
        if changed {
            self.push(ChangeKind::Changed, path, Some(kind_of(&is)));
        }
        Ok(())
    }
}

fn kind_of(node: &Node) -> Kind {
    match node {
        Node::Leaf(leaf) => leaf.stat.kind(),
        Node::Dir(_) => Kind::Dir,
    }
}

fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "symlink",
        Kind::Char => "char",
        Kind::Block => "block",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// Whether two directories differ in what an image layer records of them.
fn attributes_differ(a: &Dir, b: &Dir) -> Result<bool> {
    let facts = |s: &Stat| (s.mode, s.uid, s.gid, s.mtime);
    if a.stat.id() == b.stat.id() {
        return Ok(false);
    }
    Ok(facts(&a.stat) != facts(&b.stat) || xattrs(a.top())? != xattrs(b.top())?)
}

/// Names and values of extended attributes.
type Xattrs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Extended attributes except the overlay's own marks.
fn xattrs(at: Option<At<'_>>) -> Result<Xattrs> {
    let Some(at) = at else { return Ok(Vec::new()) };
    let mut names = xattr::list(at)?;
    names.retain(|n| {
        let spaces = [XattrNamespace::Trusted, XattrNamespace::User];
        !spaces.iter().any(|s| s.is_private(n)) && !is_foreign_private(n)
    });
    names.sort();
    names
        .into_iter()
        .map(|n| xattr::get(at, &n).map(|v| (n, v)))
        .collect()
}

#[cfg(test)]
mod tests;
