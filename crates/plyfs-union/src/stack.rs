//! The layers in their order, and what they can do together.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use plyfs_format::ino::Xino;
use plyfs_format::names::XattrNamespace;
use plyfs_format::opaque::Opaque;
use plyfs_format::origin::Origin;
use plyfs_layer::{Caps, Deletions, LayerIdx, LayerRoot, Obj, Upper, dir_marks};
use plyfs_sys::stat::{LayerIno, Stat};
use plyfs_sys::{At, Result, SysError, process};

use crate::by_name;
use crate::config::{OpenError, UnionConfig, UnionOptions, UpperRoots};
use crate::filesystems::Filesystems;
use crate::index::Index;
use crate::owner;

/// The writable layer with the object of its root.
#[derive(Debug)]
pub(crate) struct UpperLayer {
    pub(crate) root: Arc<Obj>,
    pub(crate) upper: Upper,
    /// Open for whoever takes over.
    _work: OwnedFd,
}

/// The layers of a merged view; immutable while it lives.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) upper: Option<UpperLayer>,
    /// Roots of the lowers, topmost first; layer `i + 1` is at `i`.
    pub(crate) lowers: Vec<Arc<Obj>>,
    /// Roots of the layers that hold nothing but data of metacopy files, below all lowers.
    pub(crate) data_only: Vec<Arc<Obj>>,
    /// Lowers whose root announces xattr whiteouts (kernel `has_xwhiteouts`).
    xwhiteouts: Vec<bool>,
    /// The override_stat mark that the objects of each layer have, the upper first.
    stat_marks: Vec<Option<&'static str>>,
    /// Where the overlay's own xattrs are.
    pub(crate) ns: XattrNamespace,
    pub(crate) index: Option<Index>,
    /// What is deleted in the upper is told by names.
    pub(crate) deletes_by_name: bool,
    /// Upper and workdir, which may lie in a lower.
    pub(crate) written: Vec<LayerIno>,
    filesystems: Filesystems,
    xino: Option<Xino>,
}

type OpenResult<T> = std::result::Result<T, OpenError>;

fn layer_error(path: &std::path::Path) -> impl FnOnce(SysError) -> OpenError + use<> {
    let layer = path.display().to_string();
    move |source| OpenError::Layer { layer, source }
}

impl Stack {
    /// Opens the stack of a configuration; that of a dead daemon where its `caps` are known.
    pub(crate) fn open(config: UnionConfig, caps: Option<Caps>) -> OpenResult<Self> {
        let UnionConfig {
            lowers,
            data_only,
            upper,
            options,
        } = config;
        let mut filesystems = Filesystems::default();
        upper.iter().for_each(|roots| filesystems.add(&roots.upper));
        lowers
            .iter()
            .chain(&data_only)
            .for_each(|root| filesystems.add(root));
        let opened = upper
            .as_ref()
            .map(|roots| open_upper(roots, &options, caps))
            .transpose()?;
        let deletions = upper.iter().zip(&opened).map(|(r, u)| deletions(r, u));
        let deletes_by_name = deletions.last().transpose()? == Some(Deletions::Names);
        let known = opened.as_ref().and_then(|u| u.caps.xattr);
        let ns = known
            .or(options.xattr_namespace)
            .unwrap_or_else(readable_namespace);
        let index = match &upper {
            Some(roots) if options.index && !deletes_by_name => {
                open_index(roots, lowers.first(), &filesystems, ns)?
            }
            _ => None,
        };
        let mut xwhiteouts = Vec::with_capacity(lowers.len());
        for root in &lowers {
            let marks = dir_marks(At::object(root), ns).map_err(layer_error(root.path()))?;
            xwhiteouts.push(marks.opaque == Opaque::XWhiteouts);
        }
        let written = upper.iter().flat_map(|u| [u.upper.id(), u.work.id()]);
        let written = written.collect();
        let stat_marks = stat_marks(upper.as_ref(), &lowers, &options)?;
        let count = filesystems.count();
        let below = lowers.len();
        Ok(Self {
            upper: upper.zip(opened).map(|(roots, upper)| UpperLayer {
                root: root_obj(LayerIdx::UPPER, roots.upper),
                upper,
                _work: roots.work.into_fd(),
            }),
            lowers: root_objs(0, lowers),
            data_only: root_objs(below, data_only),
            xwhiteouts,
            stat_marks,
            ns,
            index,
            deletes_by_name,
            written,
            filesystems,
            xino: (count > 1).then(|| Xino::for_filesystems(count)),
        })
    }

    /// The xattr that says owner, mode and type of the objects of a layer instead of themselves.
    pub(crate) fn stat_mark(&self, layer: LayerIdx) -> Option<&'static str> {
        self.stat_marks.get(usize::from(layer.0)).copied().flatten()
    }

    /// Whether a lower directory may hold xattr whiteouts: it says so itself, or the root of its
    /// layer does for all.
    pub(crate) fn may_have_xwhiteouts(&self, dir: &Obj) -> bool {
        let i = usize::from(dir.layer().0);
        dir.has_xwhiteouts() || (i > 0 && self.xwhiteouts.get(i - 1).copied().unwrap_or(false))
    }

    /// The one function that makes an st_ino from an object of a layer: its own number where all
    /// layers share a file system, else with the number of the file system in the high bits
    /// (kernel `xino`). A number too large for that stays as it is, as in the kernel.
    pub(crate) fn st_ino(&self, id: LayerIno) -> u64 {
        let Some(xino) = self.xino else { return id.ino };
        xino.encode(self.filesystems.fsid(id.dev), id.ino)
            .unwrap_or(id.ino)
    }

    /// The origin mark for a copy of the lower object at `at`.
    pub(crate) fn make_origin(&self, at: At<'_>, dev: u64) -> Result<Option<Origin>> {
        self.filesystems.origin(at, dev, false)
    }

    /// Attributes of the lower object an origin mark means.
    pub(crate) fn resolve_origin(&self, origin: &Origin) -> Result<Option<Stat>> {
        self.filesystems.resolve(origin)
    }
}

/// Which mark each layer has: its root says so.
fn stat_marks(
    upper: Option<&UpperRoots>,
    lowers: &[LayerRoot],
    options: &UnionOptions,
) -> OpenResult<Vec<Option<&'static str>>> {
    let found =
        |root: &LayerRoot| owner::announced(At::object(root)).map_err(layer_error(root.path()));
    let own = match upper {
        Some(roots) => owner::upper_mark(options.ownership.store, found(&roots.upper)?),
        None => None,
    };
    let below = lowers.iter().map(found);
    std::iter::once(Ok(own)).chain(below).collect()
}

/// How the upper tells what is deleted; see [`by_name`].
fn deletions(roots: &UpperRoots, upper: &Upper) -> OpenResult<Deletions> {
    by_name::choose(roots.upper.as_fd(), upper.caps).map_err(layer_error(roots.upper.path()))
}

fn open_upper(roots: &UpperRoots, options: &UnionOptions, caps: Option<Caps>) -> OpenResult<Upper> {
    let path = roots.work.path();
    if let Some(caps) = caps {
        return Upper::take_over(roots.work.as_fd(), caps).map_err(layer_error(path));
    }
    let upper =
        Upper::open(roots.work.as_fd(), options.xattr_namespace).map_err(layer_error(path))?;
    if options.volatile {
        upper.work.mark_volatile().map_err(layer_error(path))?;
    }
    Ok(upper)
}

/// The index ties the upper to the topmost lower; where the file systems have no handles there is
/// none, as in the kernel ("falling back to index=off").
fn open_index(
    roots: &UpperRoots,
    lower: Option<&LayerRoot>,
    filesystems: &Filesystems,
    ns: XattrNamespace,
) -> OpenResult<Option<Index>> {
    let Some(lower) = lower else { return Ok(None) };
    let origin = |root: &LayerRoot, is_upper| {
        let found = filesystems.origin(At::object(root), root.id().dev, is_upper);
        found.map_err(layer_error(root.path()))
    };
    let (of_lower, of_upper) = (origin(lower, false)?, origin(&roots.upper, true)?);
    Index::open(roots.work.as_fd(), &roots.upper, of_lower, of_upper, ns).map_err(|e| {
        let source = SysError::new("open index", e.errno());
        layer_error(roots.work.path())(source)
    })
}

/// Without an upper nothing is probed: root reads `trusted.`, others can see only `user.`.
fn readable_namespace() -> XattrNamespace {
    if process::in_initial_user_ns() && process::has_sys_admin() {
        XattrNamespace::Trusted
    } else {
        XattrNamespace::User
    }
}

/// The roots of layers whose numbers follow `above`.
fn root_objs(above: usize, roots: Vec<LayerRoot>) -> Vec<Arc<Obj>> {
    let number = |i: usize| LayerIdx(u16::try_from(above + i + 1).unwrap_or(u16::MAX));
    roots
        .into_iter()
        .enumerate()
        .map(|(i, root)| root_obj(number(i), root))
        .collect()
}

fn root_obj(idx: LayerIdx, root: LayerRoot) -> Arc<Obj> {
    let id = root.id();
    Obj::pinned(idx, id, Arc::new(root.into_fd()))
}
