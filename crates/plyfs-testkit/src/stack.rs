//! Lays out the directories of one stack: lower layers, an upper, a workdir, a mountpoint.
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::compare::{Rules, diff_with};
use crate::plant::settle;
use crate::tree::{Tree, snapshot};
use crate::watch::LowersWatch;

/// The directories of one stack in a temporary directory that goes with the value.
///
/// `l0` is the topmost lower layer, as in `lowerdir=l0:l1:…`.
#[derive(Debug)]
pub struct Stack {
    /// From the first time a test asked for the options to mount by itself; goes before `dir`.
    watch: OnceLock<LowersWatch>,
    dir: tempfile::TempDir,
    lowers: Vec<PathBuf>,
    writable: bool,
    before: Vec<Tree>,
}

impl Stack {
    /// A stack of `lowers` empty lower layers with an empty upper and workdir.
    ///
    /// As root the calling thread moves to its own mount namespace first, so that no mount
    /// outlives the test, however it ends.
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn new(lowers: usize) -> Self {
        if crate::is_root() {
            private_mounts();
        }
        let dir = tempfile::Builder::new()
            .prefix("plyfs-")
            .tempdir_in(scratch_base())
            .unwrap();
        // Other users work in the mount too.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let lowers: Vec<_> = (0..lowers)
            .map(|i| dir.path().join(format!("l{i}")))
            .collect();
        let others = ["upper", "work", "mnt"].map(|name| dir.path().join(name));
        for path in lowers.iter().chain(&others) {
            std::fs::create_dir(path).unwrap();
        }
        Self {
            watch: OnceLock::new(),
            dir,
            lowers,
            writable: true,
            before: Vec::new(),
        }
    }

    /// A stack whose lower layers, topmost first, are planted from `specs` (see
    /// [`plant`](crate::plant())). Whatever the specs give no mtime is from 2017, so that
    /// two stacks from the same specs are equal in everything.
    #[must_use]
    pub fn planted(specs: &[&str]) -> Self {
        let stack = Self::new(specs.len());
        for (layer, spec) in stack.lowers.iter().zip(specs) {
            crate::plant(layer, spec);
            settle(layer, spec);
        }
        stack.sealed()
    }

    /// The same stack without an upper: a read-only mount.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Remembers the lower layers as they are now, for [`Stack::assert_lowers_unchanged`].
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.before = self.lowers.iter().map(|layer| snapshot(layer)).collect();
        self
    }

    /// Panics if a lower layer differs in anything from when it was sealed.
    ///
    /// # Panics
    /// When it does, or when the stack was never sealed.
    pub fn assert_lowers_unchanged(&self) {
        assert_eq!(
            self.before.len(),
            self.lowers.len(),
            "the stack was not sealed"
        );
        for (layer, before) in self.lowers.iter().zip(&self.before) {
            let changes = diff_with(before, &snapshot(layer), &Rules::exact());
            assert!(
                changes.is_empty(),
                "the lower layer {} changed:\n{}",
                layer.display(),
                changes.join("\n")
            );
        }
    }

    /// The temporary directory that holds everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The lower layer `index`; 0 is the topmost.
    #[must_use]
    pub fn lower(&self, index: usize) -> &Path {
        &self.lowers[index]
    }

    /// All lower layers, topmost first.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }

    /// The upper directory.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    /// The work directory.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The mountpoint.
    #[must_use]
    pub fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// `lowerdir=…,upperdir=…,workdir=…` and `extra`, as mount programs and the kernel take it.
    ///
    /// Whoever asks is about to mount by a command of its own: from now on the lower layers are
    /// watched until the stack goes.
    #[must_use]
    pub fn options(&self, extra: &str) -> OsString {
        self.watch.get_or_init(|| self.watch_lowers());
        self.mount_options(extra)
    }

    pub(crate) fn mount_options(&self, extra: &str) -> OsString {
        let mut text = OsString::from("lowerdir=");
        for (i, layer) in self.lowers.iter().enumerate() {
            if i > 0 {
                text.push(":");
            }
            text.push(layer);
        }
        if self.writable {
            text.push(",upperdir=");
            text.push(self.upper());
            text.push(",workdir=");
            text.push(self.work());
        }
        if !extra.is_empty() {
            text.push(",");
            text.push(extra);
        }
        text
    }
}

/// Moves the calling thread to a mount namespace of its own, once.
///
/// The mounts of a test vanish with its last thread and process, and tests do not see each
/// other's. Threads that were started before keep the old namespace.
///
/// # Panics
/// When the kernel refuses.
pub fn private_mounts() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("mount --make-rprivate /");
}

/// Where scratch directories go: `$PLYFS_TEST_DIR`, else the first of /tmp and /var/tmp that can
/// carry an upper (trusted xattrs as root, user xattrs otherwise, and no overlay itself).
///
/// # Panics
/// When none of them can.
#[must_use]
pub fn scratch_base() -> PathBuf {
    if let Some(dir) = std::env::var_os("PLYFS_TEST_DIR") {
        std::fs::create_dir_all(&dir).unwrap();
        return PathBuf::from(dir);
    }
    let candidates = [std::env::temp_dir(), "/var/tmp".into()];
    let Some(dir) = candidates.iter().find(|dir| can_carry_upper(dir)) else {
        panic!("neither {candidates:?} can carry an upper; set PLYFS_TEST_DIR");
    };
    dir.clone()
}

fn can_carry_upper(dir: &Path) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    let Ok(probe) = tempfile::tempdir_in(dir) else {
        return false;
    };
    let name = if crate::is_root() {
        "trusted.overlay.probe"
    } else {
        "user.overlay.probe"
    };
    let overlay = nix::sys::statfs::statfs(dir)
        .is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::FsType(OVERLAYFS_SUPER_MAGIC));
    !overlay && xattr::set(probe.path(), name, b"y").is_ok()
}
