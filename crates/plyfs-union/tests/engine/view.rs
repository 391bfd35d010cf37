//! Everything there is to see of a tree: through the engine, or on a disk.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use plyfs_sys::stat::Kind;
use plyfs_union::{Attr, Caller, Cookie, Error, Flow, NodeId, Union};

/// How many bytes of a file are compared from its beginning; sparse giants stay cheap.
const READ_MOST: usize = 1 << 20;

/// One object as it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    pub(crate) ino: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) rdev: (u32, u32),
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) content: Vec<u8>,
}

/// Objects by path; the root is `/`.
pub(crate) type View = BTreeMap<String, Seen>;

/// The merged view, taken down as a program would: listed, looked up, read. Panics where the
/// engine contradicts itself.
pub(crate) fn of_union(union: &Union) -> View {
    let mut view = View::new();
    let attr = union.getattr(NodeId::ROOT).unwrap();
    view.insert("/".to_owned(), seen(union, NodeId::ROOT, &attr, "/"));
    add_children(union, NodeId::ROOT, "", &mut view);
    view
}

fn add_children(union: &Union, dir: NodeId, path: &str, view: &mut View) {
    let mut listed = Vec::new();
    union
        .readdir(dir, Cookie(2), |e| {
            listed.push((e.name.to_vec(), e.ino, e.kind));
            Flow::Continue(())
        })
        .unwrap_or_else(|e| panic!("readdir {path}/: {e}"));
    let mut found = Vec::new();
    union
        .readdir_plus(dir, Cookie(2), |e, entry| {
            let entry = entry.expect("only . and .. come without an inode");
            found.push((e.name.to_vec(), e.ino, e.kind, entry));
            Flow::Continue(())
        })
        .unwrap_or_else(|e| panic!("readdir_plus {path}/: {e}"));
    assert_eq!(
        listed.iter().map(|(n, ..)| n).collect::<Vec<_>>(),
        found.iter().map(|(n, ..)| n).collect::<Vec<_>>(),
        "readdir and readdir_plus of {path}/ list different names"
    );
    for ((_, ino, kind), (name, ino_plus, kind_plus, entry)) in
        listed.iter().map(|(n, i, k)| (n, i, k)).zip(found)
    {
        let child = format!("{path}/{}", name.escape_ascii());
        let inos = (*ino, ino_plus, union.getattr(entry.node.id).unwrap().ino);
        assert_eq!(
            inos,
            (entry.attr.ino, entry.attr.ino, entry.attr.ino),
            "st_ino of {child}"
        );
        assert_eq!(
            (*kind, kind_plus),
            (entry.node.kind, entry.node.kind),
            "type of {child}"
        );
        let again = union.lookup(dir, &name).unwrap();
        let again = again.unwrap_or_else(|| panic!("{child} is listed and not found"));
        assert_eq!(again.node.id, entry.node.id, "two inodes for {child}");
        let before = view.insert(
            child.clone(),
            seen(union, entry.node.id, &entry.attr, &child),
        );
        assert!(before.is_none(), "{child} is listed twice");
        if entry.node.kind == Kind::Dir {
            add_children(union, entry.node.id, &child, view);
        }
    }
}

fn seen(union: &Union, node: NodeId, attr: &Attr, path: &str) -> Seen {
    let names = match union.listxattr(&Caller::ROOT, node) {
        Err(Error::NoXattrs) => Vec::new(),
        names => names.unwrap(),
    };
    let names = names.split(|b| *b == 0).filter(|n| !n.is_empty());
    let xattrs = names.map(|n| {
        let value = union.getxattr(node, n);
        let value = value.unwrap_or_else(|e| panic!("{path}: xattr is listed, but: {e}"));
        (n.escape_ascii().to_string(), value)
    });
    let kind = Kind::from_mode(attr.mode);
    let content = match kind {
        Kind::File => {
            let mut buf = vec![0; READ_MOST.min(attr.size as usize)];
            let n = union.read(node, 0, &mut buf);
            let n = n.unwrap_or_else(|e| panic!("read {path}: {e}"));
            assert_eq!(n, buf.len(), "{path} is shorter than its size");
            buf
        }
        Kind::Symlink => union.readlink(node).unwrap(),
        _ => Vec::new(),
    };
    Seen {
        kind,
        mode: attr.mode & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: attr.size,
        ino: attr.ino,
        mtime: (attr.mtime.sec, attr.mtime.nsec),
        rdev: attr.rdev,
        xattrs: xattrs.collect(),
        content,
    }
}

/// A tree on the disk, the overlay's own xattrs included.
pub(crate) fn of_dir(root: &Path) -> View {
    let mut view = View::new();
    add_disk(root, "/", &mut view);
    view
}

fn add_disk(path: &Path, shown: &str, view: &mut View) {
    let meta = match fs::symlink_metadata(path) {
        // Kernel overlayfs lists whiteouts of a directory that one layer alone has, and then does
        // not find them.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
        other => other.unwrap_or_else(|e| panic!("{shown}: {e}")),
    };
    let kind = Kind::from_mode(meta.mode());
    let mut content = Vec::new();
    match kind {
        Kind::File => {
            let file = fs::File::open(path).unwrap_or_else(|e| panic!("open {shown}: {e}"));
            let read = file.take(READ_MOST as u64).read_to_end(&mut content);
            read.unwrap_or_else(|e| panic!("read {shown}: {e}"));
        }
        Kind::Symlink => content = fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
        _ => {}
    }
    let xattrs = xattr::list(path).unwrap().map(|name| {
        let value = xattr::get(path, &name).unwrap().unwrap_or_default();
        (name.as_bytes().escape_ascii().to_string(), value)
    });
    let rdev = match kind {
        Kind::Char | Kind::Block => (
            rustix::fs::major(meta.rdev()),
            rustix::fs::minor(meta.rdev()),
        ),
        _ => (0, 0),
    };
    let seen = Seen {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        nlink: meta.nlink() as u32,
        size: meta.size(),
        ino: meta.ino(),
        mtime: (meta.mtime(), meta.mtime_nsec() as u32),
        rdev,
        xattrs: xattrs.collect(),
        content,
    };
    view.insert(shown.to_owned(), seen);
    if kind == Kind::Dir {
        let base = shown.trim_end_matches('/');
        for entry in fs::read_dir(path).unwrap_or_else(|e| panic!("list {shown}: {e}")) {
            let entry = entry.unwrap_or_else(|e| panic!("list {shown}: {e}"));
            let name = entry.file_name();
            let name = name.as_bytes().escape_ascii();
            add_disk(&entry.path(), &format!("{base}/{name}"), view);
        }
    }
}

/// What two views of one tree may differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strict {
    /// Nothing but the link count and size of directories is left out.
    Inodes,
    /// Inode numbers are left out as well.
    NoInodes,
}

/// How `b` differs from `a`, one line a difference.
pub(crate) fn differences(a: &View, b: &View, strict: Strict) -> String {
    let mut out = String::new();
    for (path, left) in a {
        match b.get(path) {
            None => writeln!(out, "{path}: only in the first").unwrap(),
            Some(right) => {
                let (left, right) = (comparable(left, strict), comparable(right, strict));
                if left != right {
                    writeln!(
                        out,
                        "{path}: {left:?}\n{:>1$} {right:?}",
                        "|",
                        path.len() + 1
                    )
                    .unwrap();
                }
            }
        }
    }
    for path in b.keys().filter(|p| !a.contains_key(*p)) {
        writeln!(out, "{path}: only in the second").unwrap();
    }
    out
}

fn comparable(seen: &Seen, strict: Strict) -> Seen {
    let mut seen = seen.clone();
    if seen.kind == Kind::Dir {
        seen.size = 0;
        seen.nlink = 0;
    }
    if strict == Strict::NoInodes {
        seen.ino = 0;
    }
    seen
}
