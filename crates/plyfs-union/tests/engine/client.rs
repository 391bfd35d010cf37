//! What stands in for the kernel: resolves paths by lookups, counts them and gives them back.
use std::collections::HashMap;
use std::sync::Arc;

use plyfs_sys::Errno;
use plyfs_sys::stat::Kind;
use plyfs_union::{Caller, Error, NodeId, Union};

/// A looked-up inode whose count goes back by `forget`, as the kernel's does.
#[derive(Debug)]
pub(crate) struct Held {
    union: Arc<Union>,
    pub(crate) id: NodeId,
    kind: Kind,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.union.forget(self.id, 1);
    }
}

/// One who uses a view by paths.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) union: Arc<Union>,
    pub(crate) caller: Caller,
    /// Inodes kept by name, like open files and working directories.
    pub(crate) held: HashMap<String, Arc<Held>>,
    /// Inode numbers kept by name.
    pub(crate) inos: HashMap<String, u64>,
    /// Nobody else changes anything, so an answer can be held against the next one.
    pub(crate) alone: bool,
}

/// Errors as programs see them.
pub(crate) type Res<T> = Result<T, Errno>;

pub(crate) fn errno(e: Error) -> Errno {
    if !e.is_ordinary() {
        eprintln!("{:?}: {e}", e.errno());
    }
    e.errno()
}

impl Client {
    pub(crate) fn new(union: Arc<Union>) -> Self {
        Self {
            union,
            caller: Caller::ROOT,
            held: HashMap::new(),
            inos: HashMap::new(),
            alone: true,
        }
    }

    /// Takes over the count of an entry.
    pub(crate) fn hold(&self, entry: plyfs_union::Entry) -> Arc<Held> {
        let (id, kind) = (self.union.node_of(&entry.node), entry.node.kind);
        entry.node.leak();
        Arc::new(Held {
            union: Arc::clone(&self.union),
            id,
            kind,
        })
    }

    fn root(&self) -> Arc<Held> {
        // Forgetting the root changes nothing.
        Arc::new(Held {
            union: Arc::clone(&self.union),
            id: NodeId::ROOT,
            kind: Kind::Dir,
        })
    }

    /// The inode at `path`: `/…`, or `@NAME/…` from a kept one.
    pub(crate) fn node(&self, path: &str) -> Res<Arc<Held>> {
        let mut parts = path.split('/');
        let start = parts.next().unwrap_or_default();
        let mut at = match start.strip_prefix('@') {
            Some(name) => Arc::clone(&self.held[name]),
            None => self.root(),
        };
        for part in parts.filter(|p| !p.is_empty()) {
            let found = self.union.lookup(at.id, part.as_bytes()).map_err(errno)?;
            // The parent stays counted until the child is, as with dentries.
            at = self.hold(found.ok_or(Errno::ENOENT)?);
        }
        Ok(at)
    }

    /// The parent of `path` and the last name in it.
    pub(crate) fn parent<'p>(&self, path: &'p str) -> Res<(Arc<Held>, &'p [u8])> {
        let (dir, name) = path
            .rsplit_once('/')
            .unwrap_or_else(|| panic!("no path: {path:?}"));
        let dir = self.node(dir)?;
        // The VFS looks at both ends of an operation before it asks.
        if dir.kind != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        Ok((dir, name.as_bytes()))
    }
}
