//! Takes down everything a user can see of a directory tree, so that two can be compared.
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is there by name: one [`Node`] for each path below the root, and the root itself as `.`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The nodes by path relative to the root, bytes that are not printable ASCII escaped.
    pub nodes: BTreeMap<String, Node>,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// Everything that is compared of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its type.
    pub kind: Kind,
    /// Its mode without the type.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// How many names it has.
    pub nlink: u64,
    /// Its size.
    pub size: u64,
    /// When its content changed, in nanoseconds since the epoch.
    pub mtime: i128,
    /// When anything of it changed, in nanoseconds since the epoch.
    pub ctime: i128,
    /// Its inode number.
    pub ino: u64,
    /// The device a device file stands for.
    pub rdev: u64,
    /// All extended attributes, ACLs and capabilities among them, by name, values escaped.
    pub xattrs: BTreeMap<String, String>,
    /// Where a symbolic link points.
    pub target: Option<String>,
    /// The SHA-256 of a regular file's content.
    pub content: Option<String>,
    /// The first path, in order, of the same file, where the file has several names.
    pub same_file_as: Option<String>,
    /// What could not be read of it, where something could not.
    pub error: Option<String>,
}

impl Tree {
    /// The node at `path`, relative to the root.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All paths in order.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        self.nodes.keys().map(String::as_str).collect()
    }

    /// Writes the tree to a file that [`Tree::load`] reads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = io::BufWriter::new(File::create(path)?);
        serde_json::to_writer(file, self).map_err(io::Error::from)
    }

    /// Reads a tree that [`Tree::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or holds no tree.
    pub fn load(path: &Path) -> io::Result<Self> {
        serde_json::from_reader(io::BufReader::new(File::open(path)?)).map_err(io::Error::from)
    }
}

/// Takes down the tree under `root` without crossing into other mounts.
///
/// What cannot be read becomes part of the picture (`Node::error`), so it shows in a diff.
///
/// # Panics
/// When `root` itself cannot be read.
#[must_use]
pub fn snapshot(root: &Path) -> Tree {
    let meta = std::fs::symlink_metadata(root)
        .unwrap_or_else(|e| panic!("snapshot of {}: {e}", root.display()));
    let mut walk = Walk {
        dev: meta.dev(),
        tree: Tree::default(),
        names: HashMap::new(),
    };
    walk.enter(root, ".", &meta);
    walk.tree
}

struct Walk {
    dev: u64,
    tree: Tree,
    names: HashMap<u64, String>,
}

impl Walk {
    fn enter(&mut self, path: &Path, key: &str, meta: &Metadata) {
        let mut node = describe(path, meta);
        if node.kind != Kind::Dir && node.nlink > 1 {
            let first = self
                .names
                .entry(meta.ino())
                .or_insert_with(|| key.to_owned());
            node.same_file_as = Some(first.clone());
        }
        if node.kind == Kind::Dir
            && meta.dev() == self.dev
            && let Err(e) = self.children(path, key)
        {
            node.error = Some(format!("readdir: {e}"));
        }
        self.tree.nodes.insert(key.to_owned(), node);
    }

    fn children(&mut self, path: &Path, key: &str) -> io::Result<()> {
        let entries = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        let mut names: Vec<_> = entries.iter().map(std::fs::DirEntry::file_name).collect();
        names.sort();
        for name in names {
            let below = escape(name.as_bytes());
            let below = if key == "." {
                below
            } else {
                format!("{key}/{below}")
            };
            if self.tree.nodes.contains_key(&below) {
                // A name that is listed twice is a fault of the file system: keep both visible.
                self.tree
                    .nodes
                    .insert(format!("{below} (again)"), self.tree.nodes[&below].clone());
                continue;
            }
            let child = path.join(&name);
            match std::fs::symlink_metadata(&child) {
                Ok(meta) => self.enter(&child, &below, &meta),
                Err(e) => {
                    self.tree.nodes.insert(below, unreadable(&e));
                }
            }
        }
        Ok(())
    }
}

fn describe(path: &Path, meta: &Metadata) -> Node {
    let kind = kind_of(meta);
    let mut node = Node {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        nlink: meta.nlink(),
        size: meta.size(),
        mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
        ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        ino: meta.ino(),
        rdev: if matches!(kind, Kind::Char | Kind::Block) {
            meta.rdev()
        } else {
            0
        },
        xattrs: BTreeMap::new(),
        target: None,
        content: None,
        same_file_as: None,
        error: None,
    };
    if let Err(e) = read_details(path, &mut node) {
        node.error = Some(e.to_string());
    }
    node
}

fn read_details(path: &Path, node: &mut Node) -> io::Result<()> {
    for name in xattr::list(path)? {
        let value = xattr::get(path, &name)?;
        let value = value.map_or_else(|| "(listed, not there)".to_owned(), |v| escape(&v));
        node.xattrs.insert(escape(name.as_bytes()), value);
    }
    match node.kind {
        Kind::File => node.content = Some(hash(path, node.size)?),
        Kind::Symlink => {
            node.target = Some(escape(std::fs::read_link(path)?.as_os_str().as_bytes()));
        }
        _ => {}
    }
    Ok(())
}

fn hash(path: &Path, size: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        total += n as u64;
        hasher.update(&buffer[..n]);
    }
    if total != size {
        return Err(io::Error::other(format!(
            "st_size is {size}, but {total} bytes can be read"
        )));
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn unreadable(why: &io::Error) -> Node {
    Node {
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
        size: 0,
        mtime: 0,
        ctime: 0,
        ino: 0,
        rdev: 0,
        xattrs: BTreeMap::new(),
        target: None,
        content: None,
        same_file_as: None,
        error: Some(format!("listed, but lstat: {why}")),
    }
}

fn kind_of(meta: &Metadata) -> Kind {
    let kind = meta.file_type();
    if kind.is_dir() {
        Kind::Dir
    } else if kind.is_symlink() {
        Kind::Symlink
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() {
        Kind::Char
    } else if kind.is_block_device() {
        Kind::Block
    } else {
        Kind::File
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// Printable ASCII as it is, everything else (and the backslash) escaped: lossless and readable.
fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
