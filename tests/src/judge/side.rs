//! One of the two sides: its directories, who implements its mount now, and what is open on it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use vm_memory::mmap::MmapRegion;

use super::mounts::{self, Implementation, Layout, Mounted};
use super::stream::Stream;
use super::text::Bytes;
use super::view::View;
use super::watch::Watch;

/// How many handle slots and map slots a side has.
pub(crate) const HANDLES: usize = 6;
pub(crate) const MAPS: usize = 2;

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) fd: OwnedFd,
    /// Inode number when it was opened.
    pub(crate) ino: u64,
    pub(crate) stream: Stream,
}

/// A shared writable mapping and the descriptor it came from.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) fd: OwnedFd,
    pub(crate) region: MmapRegion<()>,
}

/// One side of the comparison.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) layout: Layout,
    mounted: Option<Mounted>,
    pub(crate) handles: [Option<Handle>; HANDLES],
    pub(crate) maps: [Option<Map>; MAPS],
    /// The inode number last seen at a path.
    pub(crate) inos: HashMap<Bytes, u64>,
    /// The tree at the last comparison.
    pub(crate) last_view: Option<View>,
    pub(crate) watch: Arc<Watch>,
    /// Whether the kernel implements this side now. It lists whiteouts that lie in a directory of
    /// one layer only, as names that cannot be looked up; nobody is asked to do the same.
    pub(crate) is_kernel: bool,
}

/// What a path of a step means on a side.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// The open handle itself.
    Open(&'a OwnedFd),
    /// A path, from a directory descriptor.
    Path(BorrowedFd<'a>, Vec<u8>),
    /// A handle slot that is empty.
    Nowhere,
}

impl Side {
    /// A side that is not mounted yet.
    pub(crate) fn new(layout: Layout, watch: &Arc<Watch>) -> Self {
        Self {
            layout,
            mounted: None,
            handles: Default::default(),
            maps: Default::default(),
            inos: HashMap::new(),
            last_view: None,
            watch: Arc::clone(watch),
            is_kernel: false,
        }
    }

    /// Mounts with an implementation.
    pub(crate) fn mount(&mut self, how: &Implementation, options: &str) -> Result<()> {
        self.mounted = Some(mounts::mount(how, &self.layout, options, &self.watch)?);
        Ok(())
    }

    /// Closes everything and unmounts.
    pub(crate) fn unmount(&mut self) -> Result<()> {
        self.maps = Default::default();
        self.handles = Default::default();
        match self.mounted.take() {
            Some(mounted) => mounted.unmount(),
            None => Ok(()),
        }
    }

    /// Whether the program behind the mount still runs.
    pub(crate) fn alive(&mut self) -> std::result::Result<(), String> {
        self.mounted.as_mut().map_or(Ok(()), Mounted::alive)
    }

    /// Where the union is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.layout.mountpoint
    }

    /// The whole tree of the mount.
    pub(crate) fn view(&self) -> Result<View> {
        View::of(self.root(), &|| self.watch.beat())
    }

    /// The raw state of every lower layer.
    pub(crate) fn lowers(&self) -> Result<Vec<View>> {
        let layers = self.layout.lowers.iter().chain(&self.layout.data);
        layers
            .map(|layer| View::of(layer, &|| self.watch.beat()))
            .collect()
    }

    /// Removes the mark of a volatile mount that nobody took away.
    pub(crate) fn forget_volatile(&self) -> Result<()> {
        let mark = self.layout.work.join("work/incompat");
        match std::fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("rm -r {}", mark.display()))
            }
            _ => Ok(()),
        }
    }

    /// Makes `layer` the topmost lower and gives the side a fresh upper and work directory.
    pub(crate) fn upper_becomes_lower(&mut self, upper: PathBuf, work: PathBuf) -> Result<()> {
        for dir in [&upper, &work] {
            std::fs::create_dir(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        let old = std::mem::replace(&mut self.layout.upper, upper);
        self.layout.work = work;
        self.layout.lowers.insert(0, old);
        Ok(())
    }

    /// Resolves a path of a step.
    pub(crate) fn place(&self, path: &Bytes) -> Place<'_> {
        let Some(rest) = path.0.strip_prefix(b"@") else {
            let root = self.root().as_os_str().as_encoded_bytes();
            return Place::Path(CWD, [root, b"/", &path.0].concat());
        };
        let slot = rest
            .first()
            .map_or(usize::MAX, |digit| usize::from(digit.wrapping_sub(b'0')));
        let Some(Some(handle)) = self.handles.get(slot) else {
            return Place::Nowhere;
        };
        match rest.get(1..) {
            None | Some([]) => Place::Open(&handle.fd),
            Some(name) => {
                let name = name.strip_prefix(b"/").unwrap_or(name);
                Place::Path(handle.fd.as_fd(), name.to_vec())
            }
        }
    }

    /// The handle in a slot.
    pub(crate) fn handle(&mut self, slot: u8) -> Option<&mut Handle> {
        self.handles.get_mut(usize::from(slot))?.as_mut()
    }

    /// Tells every directory stream that a step may have changed these names.
    pub(crate) fn touch(&mut self, names: &[&Bytes]) {
        for handle in self.handles.iter_mut().flatten() {
            for name in names {
                handle.stream.touch(name.last_name());
            }
        }
    }
}
