//! Small file systems for an upper: a tmpfs, or an image on a loop device.
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use plyfs_testkit::Stack;

use crate::support::run;

/// A file system mounted in the directory of a stack; it goes with the value, the stack after it.
#[derive(Debug)]
pub(crate) struct Backing(PathBuf);

impl Backing {
    /// A tmpfs that takes `bytes`.
    pub(crate) fn tmpfs(stack: &Stack, bytes: usize) -> Self {
        let dir = stack.dir().join("backing");
        fs::create_dir(&dir).unwrap();
        let options = format!("size={bytes},mode=755");
        let kind = Some("tmpfs");
        mount(kind, &dir, kind, MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(dir)
    }

    /// A ramfs, which takes no extended attribute at all.
    pub(crate) fn ramfs(stack: &Stack) -> Self {
        let dir = stack.dir().join("backing");
        fs::create_dir(&dir).unwrap();
        let kind = Some("ramfs");
        mount(kind, &dir, kind, MsFlags::empty(), Some("mode=755")).unwrap();
        Self(dir)
    }

    /// A file system in a sparse image; `words` go to mkfs, `options` to mount.
    pub(crate) fn image(
        stack: &Stack,
        kind: &str,
        size: &str,
        words: &[&str],
        options: &str,
    ) -> Self {
        let (dir, image) = (stack.dir().join("backing"), stack.dir().join("image"));
        fs::create_dir(&dir).unwrap();
        let (dir_text, image_text) = (dir.to_str().unwrap(), image.to_str().unwrap());
        run(stack.dir(), "truncate", &["-s", size, image_text]);
        let quiet = if kind == "ext4" { "-qF" } else { "-qf" };
        run(
            stack.dir(),
            &format!("mkfs.{kind}"),
            &[&[quiet], words, &[image_text]].concat(),
        );
        let options = format!("loop,{options}");
        run(
            stack.dir(),
            "mount",
            &["-t", kind, "-o", &options, image_text, dir_text],
        );
        Self(dir)
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    /// Moves the empty upper and workdir of a stack here.
    pub(crate) fn take_upper(self, stack: &Stack) -> Self {
        self.take("upper", &stack.upper())
            .take("work", &stack.work())
    }

    /// Moves an empty directory of a stack here.
    pub(crate) fn take(self, name: &str, place: &Path) -> Self {
        let target = self.0.join(name);
        fs::create_dir(&target).unwrap();
        fs::remove_dir(place).unwrap();
        symlink(target, place).unwrap();
        self
    }

    /// How many bytes can still be written, when everything is on disk and given back.
    pub(crate) fn free(&self) -> u64 {
        nix::unistd::syncfs(File::open(&self.0).unwrap()).unwrap();
        let found = statvfs(&self.0).unwrap();
        found.blocks_available() * found.fragment_size()
    }

    /// Leaves no more than about `bytes` free; the file that takes the rest can be removed.
    pub(crate) fn fill(&self, bytes: u64) -> PathBuf {
        let path = self.0.join("filler");
        let file = File::create(&path).unwrap();
        let mut len = 0;
        while self.free() > bytes {
            // Space for the file system's own records makes what is free less than it says.
            let step = ((self.free() - bytes) / 2).max(65536).cast_signed();
            if fallocate(&file, FallocateFlags::empty(), len, step).is_err() {
                break;
            }
            len += step;
        }
        file.sync_all().unwrap();
        path
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let gone = umount2(&self.0, MntFlags::MNT_DETACH);
        assert!(
            gone.is_ok() || std::thread::panicking(),
            "{}: {gone:?}",
            self.0.display()
        );
    }
}
