//! What other commands may know about a live mount: a small file beside the daemon.
//!
//! The file lies in `/run/plyfs` (root) or `$XDG_RUNTIME_DIR/plyfs`, named by the minor device
//! number of the mount, which is unique on the machine while the mount lives. The daemon holds an
//! exclusive lock on it for its whole life, so a lock that can be had means a dead daemon.
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plyfs_sys::{io, process};
use serde::{Deserialize, Serialize};

/// Facts about a live mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// Process id of the daemon, in its own namespace.
    pub pid: u32,
    /// Where it is mounted.
    pub mountpoint: StoredPath,
    /// Lower layers, topmost first, absolute.
    pub lowers: Vec<StoredPath>,
    /// The writable layer, absolute.
    pub upper: Option<StoredPath>,
    /// The staging area, absolute.
    pub work: Option<StoredPath>,
}

/// A path in a JSON string: bytes that are no UTF-8, and `%`, are written `%XX`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredPath(String);

impl StoredPath {
    /// Encodes a path.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let mut text = String::new();
        for chunk in path.as_os_str().as_bytes().utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            for byte in chunk.invalid() {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        Self(text)
    }

    /// The path again.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        let bytes = self.0.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((first, tail)) = rest.split_first() {
            let code = tail
                .get(..2)
                .filter(|_| *first == b'%')
                .and_then(|hex| std::str::from_utf8(hex).ok())
                .and_then(|hex| u8::from_str_radix(hex, 16).ok());
            match code {
                Some(byte) => {
                    out.push(byte);
                    rest = tail.get(2..).unwrap_or_default();
                }
                None => {
                    out.push(*first);
                    rest = tail;
                }
            }
        }
        OsString::from_vec(out).into()
    }
}

/// The directories that may hold state files, the one to write first.
fn directories() -> Vec<PathBuf> {
    let system = (process::euid() == 0).then(|| PathBuf::from("/run/plyfs"));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|dir| dir.is_absolute()).or_else(|| {
        // su and cron set no XDG_RUNTIME_DIR.
        let usual = PathBuf::from(format!("/run/user/{}", process::euid()));
        usual.is_dir().then_some(usual)
    });
    system
        .into_iter()
        .chain(runtime.map(|dir| dir.join("plyfs")))
        .collect()
}

fn file_name(dev: (u32, u32)) -> String {
    format!("{}.json", dev.1)
}

/// A published state file; the daemon's end makes it stale, [`Published::withdraw`] removes it.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
    /// Holds the lock; never closed before the process ends.
    file: File,
}

impl Published {
    /// Writes the state of the mount with device number `dev`; None where no directory can be
    /// written, which costs other commands their knowledge and nothing else.
    #[must_use]
    pub fn publish(dev: (u32, u32), state: &MountState) -> Option<Self> {
        let text = serde_json::to_vec_pretty(state).ok()?;
        directories().into_iter().find_map(|dir| {
            let path = dir.join(file_name(dev));
            match write_locked(&dir, &path, &text) {
                Ok(file) => Some(Self { path, file }),
                Err(e) => {
                    tracing::debug!(path = %path.display(), "state not published: {e}");
                    None
                }
            }
        })
    }

    /// Removes the file. The lock stays until the process ends, so that whoever waits for it
    /// waits for the end of the process.
    pub fn withdraw(self) {
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), "state not removed: {e}");
        }
        std::mem::forget(self.file);
    }
}

fn write_locked(dir: &Path, path: &Path, text: &[u8]) -> std::io::Result<File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)?;
    // A stale file of a dead daemon may still be watched through its lock: a new one is a new
    // inode.
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    if !io::try_lock(file.as_fd())? {
        return Err(std::io::ErrorKind::WouldBlock.into());
    }
    file.write_all(text)?;
    Ok(file)
}

/// The state file of a mount, opened by another process.
#[derive(Debug)]
pub struct Watched {
    /// What it says.
    pub state: MountState,
    file: File,
}

impl Watched {
    /// Opens the state of the mount with device number `dev`, if it has a live daemon that has
    /// told about it.
    #[must_use]
    pub fn open(dev: (u32, u32)) -> Option<Self> {
        let dirs = directories()
            .into_iter()
            .chain([PathBuf::from("/run/plyfs")]);
        dirs.into_iter().find_map(|dir| {
            let mut file = File::open(dir.join(file_name(dev))).ok()?;
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            let state = serde_json::from_str(&text).ok()?;
            let watched = Self { state, file };
            (!watched.daemon_is_gone()).then_some(watched)
        })
    }

    /// Whether the daemon has ended.
    #[must_use]
    pub fn daemon_is_gone(&self) -> bool {
        // A lock got by asking is let go of when this file is closed; nobody else wants it.
        io::try_lock(self.file.as_fd()).unwrap_or(true)
    }
}

/// Absolute form of a path an operator gave, without resolving anything.
#[must_use]
pub fn absolute(path: &Path) -> StoredPath {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    StoredPath::new(&full)
}

/// Whether a mount's type is one of ours.
#[must_use]
pub fn is_our_type(fstype: &str) -> bool {
    let ours = ["plyfs", crate::compat::RIVAL_NAME];
    fstype
        .strip_prefix("fuse.")
        .is_some_and(|sub| ours.contains(&sub))
        || OsStr::new(fstype) == "fuse"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_survives_json() {
        for bytes in [
            &b"/a b"[..],
            b"/%41%",
            b"/\xff\xfe%zz",
            "/\u{e4}\n\"".as_bytes(),
            b"%",
        ] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let json = serde_json::to_string(&StoredPath::new(&path)).unwrap();
            let back: StoredPath = serde_json::from_str(&json).unwrap();
            assert_eq!(back.to_path(), path, "{json}");
        }
    }
}
