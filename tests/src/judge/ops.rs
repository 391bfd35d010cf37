//! The operations that the judge runs, each a value that can be written down and read back.

use serde::{Deserialize, Serialize};

use super::text::{Bytes, Mode};

/// Who runs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    /// uid 0 with all capabilities.
    #[default]
    Root,
    /// uid and gid 1000, no capability.
    Alice,
    /// uid and gid 1001, no capability.
    Bob,
}

fn is_root(who: &Who) -> bool {
    *who == Who::Root
}

/// One operation by somebody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    #[serde(rename = "as", default, skip_serializing_if = "is_root")]
    pub(crate) who: Who,
    #[serde(flatten)]
    pub(crate) op: Op,
}

impl Step {
    /// A step that concerns the whole tree.
    pub(crate) fn whole(op: Op) -> Self {
        Self { who: Who::Root, op }
    }
}

/// A time as utimensat takes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stamp {
    Now,
    Omit,
    At(i64, u32),
}

/// How rename treats an existing target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    Plain,
    Noreplace,
    Exchange,
    Whiteout,
}

/// What mknod makes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Node {
    File,
    Fifo,
    Socket,
    Char(u32, u32),
    Block(u32, u32),
}

fn no(flag: &bool) -> bool {
    !*flag
}

/// An operation. A path is relative to the mount root; `@3` is the open handle 3 itself and
/// `@3/name` a name beneath it. `nofollow` acts on a symlink itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    Open {
        h: u8,
        path: Bytes,
        flags: String,
        mode: Mode,
    },
    Close {
        h: u8,
    },
    Read {
        h: u8,
        len: u32,
    },
    Write {
        h: u8,
        len: u32,
        seed: u32,
    },
    Pread {
        h: u8,
        off: u64,
        len: u32,
    },
    Pwrite {
        h: u8,
        off: u64,
        len: u32,
        seed: u32,
    },
    Truncate {
        path: Bytes,
        len: u64,
    },
    Mkdir {
        path: Bytes,
        mode: Mode,
    },
    Rmdir {
        path: Bytes,
    },
    Unlink {
        path: Bytes,
    },
    Rename {
        from: Bytes,
        to: Bytes,
        how: How,
    },
    Link {
        from: Bytes,
        to: Bytes,
        #[serde(default, skip_serializing_if = "no")]
        follow: bool,
    },
    Symlink {
        target: Bytes,
        path: Bytes,
    },
    Mknod {
        path: Bytes,
        node: Node,
        mode: Mode,
    },
    Chmod {
        path: Bytes,
        mode: Mode,
    },
    Chown {
        path: Bytes,
        uid: Option<u32>,
        gid: Option<u32>,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Utimens {
        path: Bytes,
        atime: Stamp,
        mtime: Stamp,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Setxattr {
        path: Bytes,
        name: Bytes,
        value: Bytes,
        /// 0, 1 (create) or 2 (replace).
        flags: u32,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Getxattr {
        path: Bytes,
        name: Bytes,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Listxattr {
        path: Bytes,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Removexattr {
        path: Bytes,
        name: Bytes,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Stat {
        path: Bytes,
        #[serde(default, skip_serializing_if = "no")]
        nofollow: bool,
    },
    Readlink {
        path: Bytes,
    },
    Access {
        path: Bytes,
        mode: u32,
    },
    /// A whole listing in one go.
    Readdir {
        path: Bytes,
    },
    /// Opens, reads to the end, closes.
    Cat {
        path: Bytes,
    },
    /// Reads on in a directory handle until at least `n` more entries came or the end.
    DirRead {
        h: u8,
        n: u8,
        buf: u32,
    },
    /// Seeks a directory handle back to where it stood after its `n`th entry (modulo what it has).
    DirSeek {
        h: u8,
        n: u8,
    },
    DirRewind {
        h: u8,
    },
    /// Reads to the end and compares what the stream gave since its start.
    DirEnd {
        h: u8,
    },
    Fsync {
        h: u8,
        data: bool,
    },
    Fallocate {
        h: u8,
        mode: u32,
        off: u64,
        len: u64,
    },
    /// whence: `set`, `cur`, `end`, `data` or `hole`.
    Lseek {
        h: u8,
        whence: String,
        off: i64,
    },
    CopyRange {
        from: u8,
        to: u8,
        off_in: u64,
        off_out: u64,
        len: u64,
    },
    /// The flags that `lsattr` shows.
    Getflags {
        h: u8,
    },
    /// Sets exactly these flags.
    Setflags {
        h: u8,
        flags: u32,
    },
    /// flock without waiting: `sh`, `ex` or `un`.
    Flock {
        h: u8,
        how: String,
    },
    /// Maps, reads and unmaps at once.
    MapRead {
        h: u8,
        off: u64,
        len: u32,
    },
    /// Maps a handle shared and writable into map slot `m`.
    Map {
        h: u8,
        m: u8,
    },
    MapPut {
        m: u8,
        off: u64,
        len: u32,
        seed: u32,
    },
    MapGet {
        m: u8,
        off: u64,
        len: u32,
    },
    Unmap {
        m: u8,
    },
    Umask {
        mask: u32,
    },
    /// On the subject each lane is run by a thread of its own and all at once, on the oracle one
    /// after the other. Steps that do not commute with another lane's are left out.
    Together {
        lanes: Vec<Vec<Step>>,
    },
    /// Compares the two whole trees.
    Check,
    /// Unmounts both and mounts them again.
    Remount,
    /// Unmounts both and mounts each side's directories with the other implementation.
    Swap,
}

impl Op {
    /// The operation's word in the text form.
    pub(crate) fn verb(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value
            .get("op")
            .and_then(|op| op.as_str())
            .unwrap_or("?")
            .to_owned()
    }

    /// The names that this operation may add to or remove from a directory.
    pub(crate) fn touched(&self) -> Vec<&Bytes> {
        match self {
            Op::Open { path, .. }
            | Op::Mkdir { path, .. }
            | Op::Rmdir { path }
            | Op::Unlink { path }
            | Op::Symlink { path, .. }
            | Op::Mknod { path, .. } => vec![path],
            Op::Rename { from, to, .. } => vec![from, to],
            Op::Link { to, .. } => vec![to],
            Op::Together { lanes } => {
                let steps = lanes.iter().flatten();
                steps.flat_map(|step| step.op.touched()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The handles that this operation names, as slots or as paths `@N`.
    pub(crate) fn slots(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).unwrap_or_default();
        let fields = value.as_object().into_iter().flatten();
        let slot = |(name, field): (&String, &serde_json::Value)| match field.as_str() {
            Some(path) => path.strip_prefix('@')?.parse().ok(),
            None if ["h", "from", "to"].contains(&name.as_str()) => {
                field.as_u64().and_then(|h| u8::try_from(h).ok())
            }
            None => None,
        };
        fields.filter_map(slot).collect()
    }

    /// The handle this operation acts on, given as a slot or as the path `@N`.
    pub(crate) fn handle(&self) -> Option<u8> {
        match self {
            Op::Read { h, .. }
            | Op::Write { h, .. }
            | Op::Pread { h, .. }
            | Op::Pwrite { h, .. }
            | Op::Fallocate { h, .. }
            | Op::Setflags { h, .. }
            | Op::CopyRange { to: h, .. } => Some(*h),
            Op::Chmod { path, .. }
            | Op::Chown { path, .. }
            | Op::Utimens { path, .. }
            | Op::Setxattr { path, .. }
            | Op::Removexattr { path, .. }
            | Op::Truncate { path, .. }
            | Op::Stat { path, .. }
            | Op::Link { from: path, .. } => match path.0.as_slice() {
                [b'@', digit] => Some(digit.wrapping_sub(b'0')),
                _ => None,
            },
            _ => None,
        }
    }
}
