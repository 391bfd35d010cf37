//! The layers in their order, and what they can do together.
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use plyfs_format::ino::Xino;
use plyfs_format::names::XattrNamespace;
use plyfs_format::opaque::Opaque;
use plyfs_format::origin::Origin;
use plyfs_layer::{LayerIdx, LayerRoot, Obj, Upper, dir_marks};
use plyfs_sys::handle::{self, Handle};
use plyfs_sys::stat::{LayerIno, Stat};
use plyfs_sys::{At, Result, open, process, stat};

use crate::config::{OpenError, UnionConfig};

/// A file system that holds at least one layer.
#[derive(Debug)]
struct Fs {
    /// Number in the stack; 0 is the upper's.
    fsid: u32,
    uuid: [u8; 16],
    /// An open directory of it, from which file handles are opened.
    mount: Option<OwnedFd>,
}

/// The writable layer with the object of its root.
#[derive(Debug)]
pub(crate) struct UpperLayer {
    pub(crate) root: Arc<Obj>,
    pub(crate) upper: Upper,
}

/// The layers of a merged view; immutable while it lives.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) upper: Option<UpperLayer>,
    /// Roots of the lowers, topmost first; layer `i + 1` is at `i`.
    pub(crate) lowers: Vec<Arc<Obj>>,
    /// Lowers whose root announces xattr whiteouts (kernel `has_xwhiteouts`).
    xwhiteouts: Vec<bool>,
    /// Where the overlay's own xattrs are.
    pub(crate) ns: XattrNamespace,
    fs: HashMap<u64, Fs>,
    xino: Option<Xino>,
}

fn layer_error(path: &std::path::Path) -> impl FnOnce(plyfs_sys::SysError) -> OpenError {
    let layer = path.display().to_string();
    move |source| OpenError::Layer { layer, source }
}

impl Stack {
    /// Opens the stack of a configuration.
    pub(crate) fn open(config: UnionConfig) -> std::result::Result<Self, OpenError> {
        let mut fs = HashMap::new();
        let wanted = config.options.xattr_namespace;
        let (upper, ns) = match config.upper {
            None => (None, wanted.unwrap_or_else(readable_namespace)),
            Some(roots) => {
                let opened = Upper::open(roots.work.as_fd(), wanted)
                    .map_err(layer_error(roots.work.path()))?;
                if config.options.volatile {
                    opened
                        .work
                        .mark_volatile()
                        .map_err(layer_error(roots.work.path()))?;
                }
                let ns = opened.caps.xattr.or(wanted).unwrap_or(XattrNamespace::User);
                let root = root_obj(LayerIdx::UPPER, roots.upper, &mut fs)?;
                (
                    Some(UpperLayer {
                        root,
                        upper: opened,
                    }),
                    ns,
                )
            }
        };
        let mut lowers = Vec::with_capacity(config.lowers.len());
        let mut xwhiteouts = Vec::with_capacity(config.lowers.len());
        for (i, root) in config.lowers.into_iter().enumerate() {
            let idx = LayerIdx(u16::try_from(i + 1).unwrap_or(u16::MAX));
            let marks = dir_marks(At::object(&root), ns).map_err(layer_error(root.path()))?;
            xwhiteouts.push(marks.opaque == Opaque::XWhiteouts);
            lowers.push(root_obj(idx, root, &mut fs)?);
        }
        let count = u32::try_from(fs.len()).unwrap_or(u32::MAX);
        let xino = (count > 1).then(|| Xino::for_filesystems(count));
        Ok(Self {
            upper,
            lowers,
            xwhiteouts,
            ns,
            fs,
            xino,
        })
    }

    /// Whether a directory of `layer` may hold xattr whiteouts.
    pub(crate) fn may_have_xwhiteouts(&self, layer: LayerIdx) -> bool {
        let i = usize::from(layer.0);
        i > 0 && self.xwhiteouts.get(i - 1).copied().unwrap_or(false)
    }

    /// The one function that makes an st_ino from an object of a layer: its own number where all
    /// layers share a file system, else with the number of the file system in the high bits
    /// (kernel `xino`). A number too large for that stays as it is, as in the kernel.
    pub(crate) fn st_ino(&self, id: LayerIno) -> u64 {
        let Some(xino) = self.xino else { return id.ino };
        let fsid = self.fs.get(&id.dev).map_or(0, |f| f.fsid);
        xino.encode(fsid, id.ino).unwrap_or(id.ino)
    }

    /// The origin mark for a copy of the lower object at `at`; None where its file system has no
    /// handles (`ovl_encode_real_fh()`).
    pub(crate) fn make_origin(&self, at: At<'_>, dev: u64) -> Result<Option<Origin>> {
        let Some(fs) = self.fs.get(&dev) else {
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
            is_upper: false,
        }))
    }

    /// Attributes of the lower object an origin mark means; None when it is not in this stack or
    /// the process may not open handles.
    pub(crate) fn resolve_origin(&self, origin: &Origin) -> Result<Option<Stat>> {
        let handle = Handle {
            kind: i32::from(origin.handle_type),
            bytes: origin.fid.clone(),
        };
        for fs in self.fs.values().filter(|fs| fs.uuid == origin.uuid) {
            let Some(mount) = &fs.mount else { continue };
            if let Some(fd) = handle::open(mount.as_fd(), &handle)? {
                return stat::stat_fd(fd.as_fd()).map(Some);
            }
        }
        Ok(None)
    }
}

/// Without an upper nothing is probed: root reads `trusted.`, others can see only `user.`.
fn readable_namespace() -> XattrNamespace {
    if process::in_initial_user_ns() && process::has_sys_admin() {
        XattrNamespace::Trusted
    } else {
        XattrNamespace::User
    }
}

fn root_obj(
    idx: LayerIdx,
    root: LayerRoot,
    fs: &mut HashMap<u64, Fs>,
) -> std::result::Result<Arc<Obj>, OpenError> {
    let id = root.id();
    let fsid = u32::try_from(fs.len()).unwrap_or(u32::MAX);
    fs.entry(id.dev).or_insert_with(|| {
        let mount = open::open_dir_for_list(root.as_fd()).ok();
        let uuid = mount
            .as_ref()
            .map_or([0; 16], |fd| handle::fs_uuid(fd.as_fd()));
        Fs { fsid, uuid, mount }
    });
    Ok(Obj::pinned(idx, id, Arc::new(root.into_fd())))
}
