//! The file systems that hold layers: their numbers in the view, and file handles on them.
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use plyfs_format::origin::Origin;
use plyfs_layer::LayerRoot;
use plyfs_sys::handle::{self, Handle};
use plyfs_sys::stat::Stat;
use plyfs_sys::{At, Result, open, stat};

/// A file system that holds at least one layer.
#[derive(Debug)]
struct Fs {
    /// Number in the stack; 0 is the upper's.
    fsid: u32,
    uuid: [u8; 16],
    /// An open directory of it, from which file handles are opened.
    mount: Option<OwnedFd>,
}

/// The file systems of a stack, by device number.
#[derive(Debug, Default)]
pub(crate) struct Filesystems {
    by_dev: HashMap<u64, Fs>,
}

impl Filesystems {
    /// Takes in the file system of a layer; the upper comes first and gets number 0.
    pub(crate) fn add(&mut self, root: &LayerRoot) {
        let fsid = self.count();
        self.by_dev.entry(root.id().dev).or_insert_with(|| {
            // Without an open directory handles cannot be opened, which costs inode numbers only.
            let mount = open::open_dir_for_list(root.as_fd()).ok();
            let uuid = mount
                .as_ref()
                .map_or([0; 16], |fd| handle::fs_uuid(fd.as_fd()));
            Fs { fsid, uuid, mount }
        });
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.by_dev.len()).unwrap_or(u32::MAX)
    }

    /// Number of a file system.
    pub(crate) fn fsid(&self, dev: u64) -> u32 {
        self.by_dev.get(&dev).map_or(0, |f| f.fsid)
    }

    /// What identifies the object at `at` on the file system `dev`; None where that has no
    /// handles (`ovl_encode_real_fh()`).
    pub(crate) fn origin(&self, at: At<'_>, dev: u64, is_upper: bool) -> Result<Option<Origin>> {
        let Some(fs) = self.by_dev.get(&dev) else {
            return Ok(None);
        };
        let Some(h) = handle::handle(at)? else {
            return Ok(None);
        };
        let Ok(handle_type) = u8::try_from(h.kind) else {
            return Ok(None);
        };
        Ok(Some(Origin {
            handle_type,
            uuid: fs.uuid,
            fid: h.bytes,
            is_upper,
        }))
    }

    /// Attributes of the object that `origin` means; None when it is not in this stack or the
    /// process may not open handles.
    pub(crate) fn resolve(&self, origin: &Origin) -> Result<Option<Stat>> {
        let handle = Handle {
            kind: i32::from(origin.handle_type),
            bytes: origin.fid.clone(),
        };
        for fs in self.by_dev.values().filter(|fs| fs.uuid == origin.uuid) {
            let Some(mount) = &fs.mount else { continue };
            if let Some(fd) = handle::open(mount.as_fd(), &handle)? {
                return stat::stat_fd(fd.as_fd()).map(Some);
            }
        }
        Ok(None)
    }
}
