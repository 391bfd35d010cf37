//! What other commands may know about a live mount: a small file beside the daemon.
//!
//! The file lies in `/run/plyfs` (root) or `$XDG_RUNTIME_DIR/plyfs`, named by the minor device
//! number of the mount, which is unique on the machine while the mount lives. The daemon holds an
//! exclusive lock on it for its whole life, so a lock that can be had means a dead daemon. Beside
//! it lies the control socket (see [`crate::control`]).
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfs_sys::open::{self, Access};
use plyfs_sys::{At, Name, io, mount, process, takeover};
use serde::{Deserialize, Serialize};

use crate::control::server::{Socket, Teller};

/// Longest state file that is read: 500 layers with the longest paths.
const MAX_STATE: u64 = 4 << 20;

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
    /// How many daemons of the mount have died and been replaced.
    #[serde(default)]
    pub restarts: u64,
}

/// A path in a JSON string: bytes that are no UTF-8, and `%`, are written `%XX`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredPath(String);

impl StoredPath {
    /// Encodes a path.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::from_bytes(path.as_os_str().as_bytes())
    }

    /// Encodes the bytes of a path.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
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

/// Where the state of a mount that `owner` made may be read.
fn readable_directories(owner: Option<u32>) -> Vec<PathBuf> {
    let of_owner = owner.filter(|uid| *uid != 0);
    let of_owner = of_owner.map(|uid| PathBuf::from(format!("/run/user/{uid}/plyfs")));
    let mut all = directories();
    all.extend([PathBuf::from("/run/plyfs")].into_iter().chain(of_owner));
    all
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
    socket: Option<Socket>,
}

impl Published {
    /// Writes the state of the mount with device number `dev` and binds its control socket; None
    /// where no directory can be written, which costs other commands their knowledge and nothing
    /// else.
    #[must_use]
    pub fn publish(dev: (u32, u32), state: &MountState) -> Option<Self> {
        let text = serde_json::to_vec_pretty(state).ok()?;
        directories().into_iter().find_map(|dir| {
            let path = dir.join(file_name(dev));
            match publish_in(&dir, &path, &text) {
                Ok(published) => Some(published),
                Err(e) => {
                    tracing::debug!(path = %path.display(), "state not published: {e}");
                    None
                }
            }
        })
    }

    /// Goes on with the file and the socket of a daemon that died: the file, and with it the lock,
    /// stays the same, and says who serves now.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn take_over(
        dev: (u32, u32),
        file: OwnedFd,
        socket: Option<OwnedFd>,
        restarts: u64,
    ) -> std::io::Result<(Self, MountState)> {
        let file = File::from(file);
        let mut text = Vec::new();
        (&file).seek(SeekFrom::Start(0))?;
        (&file).take(MAX_STATE).read_to_end(&mut text)?;
        let state = MountState {
            pid: std::process::id(),
            restarts,
            ..serde_json::from_slice(&text)?
        };
        let mut now = serde_json::to_vec_pretty(&state)?;
        // Never shorter: blanks behind are as good as nothing, half a text is not.
        now.resize(now.len().max(text.len()), b' ');
        file.write_all_at(&now, 0)?;
        let ino = file.metadata()?.ino();
        let names = directories()
            .into_iter()
            .map(|dir| dir.join(file_name(dev)));
        let path = names
            .into_iter()
            .find(|path| fs::metadata(path).is_ok_and(|m| m.ino() == ino))
            .ok_or(std::io::ErrorKind::NotFound)?;
        let published = Self {
            path,
            file,
            socket: socket.map(Socket::take_over),
        };
        Ok((published, state))
    }

    /// The number of the control socket's descriptor.
    pub(crate) fn socket_number(&self) -> Option<i32> {
        self.socket.as_ref().map(takeover::number)
    }

    /// Answers at the control socket from now on. Who asked before waits in its queue.
    pub fn answer(&mut self, teller: Arc<Teller>) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        if let Err(e) = socket.serve(teller) {
            tracing::warn!("nobody answers at the control socket: {e}");
        }
    }

    /// Removes the file and the socket. The lock stays until the process ends, so that whoever
    /// waits for it waits for the end of the process.
    pub fn withdraw(self) {
        match self.withdrawal() {
            Ok(withdrawal) => withdrawal.carry_out(),
            Err(e) => tracing::debug!(path = %self.path.display(), "state not removed: {e}"),
        }
        self.keep_lock();
    }

    /// What another process needs to remove the file and the socket.
    pub(crate) fn withdrawal(&self) -> std::io::Result<Withdrawal> {
        Ok(Withdrawal {
            path: self.path.clone(),
            ino: self.file.metadata()?.ino(),
        })
    }

    /// The lock stays until the process ends.
    pub(crate) fn keep_lock(self) {
        std::mem::forget(self.file);
    }
}

/// Removing a state file and its socket.
#[derive(Debug)]
pub(crate) struct Withdrawal {
    path: PathBuf,
    ino: u64,
}

impl Withdrawal {
    pub(crate) fn carry_out(&self) {
        if let Err(e) = self.remove() {
            tracing::debug!(path = %self.path.display(), "state not removed: {e}");
        }
    }

    /// The device number is free again once the mount has gone: what lies under the name may be
    /// that of a new mount.
    fn remove(&self) -> std::io::Result<()> {
        let turn = self.path.parent().map(File::open).transpose()?;
        turn.as_ref().map_or(Ok(()), |dir| io::lock(dir.as_fd()))?;
        if self.ino == fs::metadata(&self.path)?.ino() {
            // Without a socket there is one file less to remove.
            drop(fs::remove_file(self.path.with_extension("sock")));
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

impl AsFd for Published {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn publish_in(dir: &Path, path: &Path, text: &[u8]) -> std::io::Result<Published> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)?;
    // One at a time, so that what is cleaned away is never what another has just made.
    let turn = File::open(dir)?;
    io::lock(turn.as_fd())?;
    remove_stale(dir);
    let early = path.with_extension(format!("new.{}", std::process::id()));
    match fs::remove_file(&early) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // It gets its name when it is locked and complete: whoever finds it sees a live daemon.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&early)?;
    if !io::try_lock(file.as_fd())? {
        return Err(std::io::ErrorKind::WouldBlock.into());
    }
    let named = file.write_all(text).and_then(|()| fs::rename(&early, path));
    if let Err(e) = named {
        drop(fs::remove_file(&early));
        return Err(e);
    }
    let socket = match Socket::bind(&path.with_extension("sock")) {
        Ok(socket) => Some(socket),
        Err(e) => {
            tracing::debug!(path = %path.display(), "no control socket: {e}");
            None
        }
    };
    Ok(Published {
        path: path.to_owned(),
        file,
        socket,
    })
}

/// Removes what daemons left that died: where nobody holds the lock and nothing is mounted any
/// more. A dead mount that is still there keeps its file, which tells what it was.
fn remove_stale(dir: &Path) {
    let Ok(mounted) = mount::mounts() else { return };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()) {
        let minor = path
            .file_stem()
            .and_then(OsStr::to_str)
            .and_then(|stem| stem.parse::<u32>().ok());
        let Some(minor) = minor.filter(|_| path.extension() == Some(OsStr::new("json"))) else {
            continue;
        };
        let seen = |m: &mount::MountEntry| m.dev.1 == minor && is_fuse(&m.fstype);
        // It may be mounted where this process does not see it: in a container, or outside of one.
        let elsewhere = Path::new(&format!("/sys/class/bdi/0:{minor}")).exists();
        let in_use = elsewhere || mounted.iter().any(seen);
        let dead = || File::open(&path).is_ok_and(|f| io::is_unlocked(f.as_fd()).unwrap_or(false));
        if !in_use && dead() {
            drop(fs::remove_file(&path));
            drop(fs::remove_file(path.with_extension("sock")));
        }
    }
}

/// The state file of a mount, opened by another process.
#[derive(Debug)]
pub struct Watched {
    /// What it says.
    pub state: MountState,
    file: File,
    path: PathBuf,
}

impl Watched {
    /// Opens the state of the mount with device number `dev`, if it has a live daemon that has
    /// told about it.
    #[must_use]
    pub fn open(dev: (u32, u32)) -> Option<Self> {
        let watched = Self::open_any(dev, None)?;
        (!watched.daemon_is_gone()).then_some(watched)
    }

    /// Opens the state of the mount with device number `dev` that user `owner` made, be its daemon
    /// alive or dead; a live one is preferred.
    #[must_use]
    pub fn open_any(dev: (u32, u32), owner: Option<u32>) -> Option<Self> {
        let mut dead = None;
        for dir in readable_directories(owner) {
            match Self::read(&dir, &file_name(dev)) {
                Some(watched) if !watched.daemon_is_gone() => return Some(watched),
                other => dead = dead.or(other),
            }
        }
        dead
    }

    /// Reads a file that another user may have made: never waits, whatever it is.
    fn read(dir: &Path, name: &str) -> Option<Self> {
        let fd = open::open_dir_path(dir).ok()?;
        let at = At::entry(fd.as_fd(), Name::new(name.as_bytes()).ok()?);
        let file = File::from(open::open_file(at, Access::READ).ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = String::new();
        (&file).take(MAX_STATE).read_to_string(&mut text).ok()?;
        let state = serde_json::from_str(&text).ok()?;
        let path = dir.join(name);
        Some(Self { state, file, path })
    }

    /// The control socket of the mount.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.with_extension("sock")
    }

    /// Whether the daemon has ended.
    #[must_use]
    pub fn daemon_is_gone(&self) -> bool {
        // The shared lock got by asking is in nobody's way: no daemon locks an old file.
        io::is_unlocked(self.file.as_fd()).unwrap_or(true)
    }
}

/// Absolute form of a path an operator gave, without resolving anything.
#[must_use]
pub fn absolute(path: &Path) -> StoredPath {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    StoredPath::new(&full)
}

pub(crate) fn is_fuse(fstype: &str) -> bool {
    fstype == "fuse" || fstype.starts_with("fuse.")
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
