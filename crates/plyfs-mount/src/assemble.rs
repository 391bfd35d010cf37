//! From a specification to opened and checked layers; nothing on disk changes here.
//!
//! Every path is opened once, before mounting: a mountpoint may be one of the layers, and a
//! daemon works in another directory than the operator.
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfs_format::idmap::IdMap;
use plyfs_fuse::Data;
use plyfs_layer::LayerRoot;
use plyfs_sys::mount::{self, ancestry, mounts};
use plyfs_sys::stat::{Kind, LayerIno, Stat, stat_fd, stat_opt, statfs};
use plyfs_sys::{At, Errno, Name, SysError, io, open, process};
use plyfs_union::{Ownership, UnionConfig, UpperRoots};

use crate::error::{MountError, Place, Role};
use crate::spec::MountSpec;

/// As many as kernel overlayfs takes (OVL_MAX_STACK).
pub const MAX_LOWERS: usize = 500;
/// How long a directory that another mount uses is waited for: container runtimes mount again
/// within milliseconds of an unmount.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A directory of the stack, opened.
struct Opened {
    place: Place,
    root: LayerRoot,
    stat: Stat,
    /// Identities of all directories above it, itself excluded.
    above: Vec<LayerIno>,
}

impl Opened {
    fn is_inside(&self, outer: &Self) -> bool {
        self.above.contains(&outer.root.id())
    }
}

/// Everything a mount needs, checked.
#[derive(Debug)]
pub struct Assembled {
    /// The stack for the engine.
    pub config: UnionConfig,
    /// Exclusive locks on upper and workdir (in this order), held as long as this lives.
    pub locks: Vec<OwnedFd>,
    /// Where to mount.
    pub target: Target,
    /// How deep the mount stands on file systems that stand on others, if it is to pass data
    /// through: the kernel allows two, and takes no data from a layer that stands as deep.
    pub stack_depth: u32,
}

/// How the connection to the kernel comes about.
#[derive(Debug)]
pub enum Target {
    /// Mount on this directory (an absolute path without symbolic links) a new connection.
    Directory {
        /// Where.
        path: PathBuf,
        /// The connection; None where the helper has to open it.
        dev: Option<OwnedFd>,
    },
    /// Somebody has mounted already and hands over the connection.
    Inherited(OwnedFd),
}

/// Opens the layers and checks that they can be stacked and mounted.
///
/// # Errors
/// See [`MountError`]. Nothing has been changed then.
pub fn assemble(spec: &MountSpec) -> Result<Assembled, MountError> {
    check_counts(spec)?;
    let mut lowers = open_all(Role::Lower, &[&*spec.lowers, &*spec.data_only].concat())?;
    let upper = open_all(Role::Upper, spec.upper.as_slice())?;
    let work = open_all(Role::Work, spec.work.as_slice())?;
    check_same_mount(&upper, &work)?;
    check_apart(&lowers, &upper, &work)?;
    let (target, above) = open_target(&spec.mountpoint)?;
    check_outside(&spec.mountpoint, &above, upper.iter().chain(&work))?;
    match spec.session.data {
        Data::Passthrough => only_read(&mut lowers)?,
        Data::Cached => {
            detach_lowers_around(&mut lowers, &upper, &work, (&spec.mountpoint, &above))?;
        }
    }
    let stack_depth = stack_depth(lowers.iter().chain(&upper));
    let locks = lock(upper.iter().chain(&work))?;
    work.iter().try_for_each(check_volatile)?;
    let mut options = spec.union.clone();
    map_once(&mut options.ownership, &lowers);
    let data_only = lowers.split_off(spec.lowers.len());
    let pair = upper.into_iter().zip(work).next();
    Ok(Assembled {
        config: UnionConfig {
            lowers: lowers.into_iter().map(|o| o.root).collect(),
            data_only: data_only.into_iter().map(|o| o.root).collect(),
            upper: pair.map(|(upper, work)| UpperRoots {
                upper: upper.root,
                work: work.root,
            }),
            options,
        },
        locks,
        target,
        stack_depth,
    })
}

/// Leaves the ids alone where id-mapped mounts have mapped them already: Podman hands over such
/// lower layers and asks for the same map besides. Files of the upper then keep the container's
/// ids as the host sees them, as under kernel overlayfs over such layers.
fn map_once(ownership: &mut Ownership, lowers: &[Opened]) {
    if ownership.uids.is_identity() && ownership.gids.is_identity() {
        return;
    }
    let mounts = mounts().unwrap_or_else(|e| {
        tracing::warn!("cannot see whether lower layers are id-mapped mounts: {e}");
        Vec::new()
    });
    let is_mapped = |lower: &&Opened| {
        mounts
            .iter()
            .any(|m| m.is_idmapped && m.id == lower.stat.mnt_id)
    };
    if let Some(lower) = lowers.iter().find(is_mapped) {
        tracing::warn!(
            "uidmapping and gidmapping are left out: {} is an id-mapped mount, which maps already",
            lower.place
        );
        ownership.uids = IdMap::default();
        ownership.gids = IdMap::default();
    }
}

fn check_counts(spec: &MountSpec) -> Result<(), MountError> {
    let count = spec.lowers.len() + spec.data_only.len();
    match (&spec.upper, &spec.work) {
        (Some(upper), None) => Err(MountError::UpperWithoutWork {
            upper: upper.clone(),
        }),
        (None, Some(work)) => Err(MountError::WorkWithoutUpper { work: work.clone() }),
        _ if spec.lowers.is_empty() => Err(MountError::NoLower),
        _ if count > MAX_LOWERS => Err(MountError::TooManyLowers {
            count,
            max: MAX_LOWERS,
        }),
        _ => Ok(()),
    }
}

fn open_all(role: Role, paths: &[PathBuf]) -> Result<Vec<Opened>, MountError> {
    paths
        .iter()
        .map(|path| {
            open_one(Place {
                role,
                path: path.clone(),
            })
        })
        .collect()
}

fn open_one(place: Place) -> Result<Opened, MountError> {
    let root = match LayerRoot::open(&place.path) {
        Ok(root) => root,
        Err(e) if e.errno() == Errno::ENOENT => return Err(MountError::Missing(place)),
        Err(e) if e.errno() == Errno::ENOTDIR && is_no_directory(&place.path) => {
            return Err(MountError::NotDirectory(place));
        }
        Err(source) => return Err(MountError::Unreadable { place, source }),
    };
    let looked = || {
        // An O_PATH descriptor says nothing about the right to read.
        drop(open::open_dir_for_list(root.as_fd())?);
        let stat = stat_fd(root.as_fd())?;
        let mut above = ancestry(root.as_fd())?;
        above.remove(0);
        Ok((stat, above))
    };
    match looked() {
        Ok((stat, above)) => Ok(Opened {
            place,
            root,
            stat,
            above,
        }),
        Err(source) => Err(MountError::Unreadable { place, source }),
    }
}

/// Tells a layer that is a file from one whose parent is a file; the latter does not exist.
fn is_no_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_dir())
}

/// Staged changes are renamed from the workdir to the upper, which only works within one mount.
fn check_same_mount(upper: &[Opened], work: &[Opened]) -> Result<(), MountError> {
    for (upper, work) in upper.iter().zip(work) {
        let one_device = upper.stat.dev == work.stat.dev;
        if !one_device || upper.stat.mnt_id != work.stat.mnt_id {
            return Err(MountError::WorkElsewhere {
                work: work.place.path.clone(),
                upper: upper.place.path.clone(),
            });
        }
    }
    Ok(())
}

/// Nothing is in the stack twice, and nothing lies in or around what is written. An upper inside a
/// lower is another matter, see [`detach_lowers_around`].
fn check_apart(lowers: &[Opened], upper: &[Opened], work: &[Opened]) -> Result<(), MountError> {
    let all: Vec<&Opened> = upper.iter().chain(work).chain(lowers).collect();
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            if a.root.id() == b.root.id() {
                return Err(MountError::SameTwice {
                    first: a.place.clone(),
                    second: b.place.clone(),
                });
            }
            for (inner, outer) in [(a, b), (b, a)] {
                if outer.place.role != Role::Lower && inner.is_inside(outer) {
                    return Err(MountError::Nested {
                        inner: inner.place.clone(),
                        outer: outer.place.clone(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Mounting on a layer itself hides it from others and not from the daemon, which holds it open; a
/// mount below it would be found by the daemon, which would wait for itself.
fn check_outside<'a>(
    path: &Path,
    above: &[LayerIno],
    written: impl Iterator<Item = &'a Opened>,
) -> Result<(), MountError> {
    for layer in written {
        if above.contains(&layer.root.id()) {
            return Err(MountError::MountpointInside {
                path: path.to_owned(),
                layer: layer.place.clone(),
            });
        }
    }
    Ok(())
}

/// A lower that has the upper, the workdir or the mountpoint below it is read through a clone of
/// its mount, in which our own mount never shows up. Container tools do this where a volume is a
/// home directory that holds their storage, too. What is written there is not seen through the
/// lower: the union shows both directories as empty.
fn detach_lowers_around(
    lowers: &mut [Opened],
    upper: &[Opened],
    work: &[Opened],
    (mountpoint, above): (&Path, &[LayerIno]),
) -> Result<(), MountError> {
    for lower in lowers {
        let inner = upper.iter().chain(work).find(|dir| dir.is_inside(lower));
        if inner.is_none() && !above.contains(&lower.root.id()) {
            continue;
        }
        lower.root = lower.root.detached().map_err(|source| match inner {
            Some(inner) => MountError::NestedWithoutClone {
                inner: inner.place.clone(),
                outer: lower.place.clone(),
                source,
            },
            None => MountError::MountpointWithoutClone {
                path: mountpoint.to_owned(),
                layer: lower.place.clone(),
                source,
            },
        })?;
    }
    Ok(())
}

/// The kernel opens lower files with the flags of the program that opens them. Through clones of
/// their mounts that let nobody write it can change neither data nor access times (P1), as in
/// kernel overlayfs. They are out of reach of our own mount, too.
fn only_read(lowers: &mut [Opened]) -> Result<(), MountError> {
    for lower in lowers {
        let cloned = lower.root.only_read();
        lower.root = cloned.map_err(|e| {
            let layer = &lower.place;
            let why = format!("a read-only clone of {layer}: {e}");
            MountError::Passthrough(std::io::Error::other(why))
        })?;
    }
    Ok(())
}

/// Magic numbers of file systems that may stand on others (linux/magic.h): overlayfs, FUSE with
/// passthrough, eCryptfs.
const STACKED: [i64; 3] = [0x794c_7630, 0x6573_5546, 0xf15f];

/// One more than the layers', as far as can be seen.
fn stack_depth<'a>(mut layers: impl Iterator<Item = &'a Opened>) -> u32 {
    let is_stacked = |layer: &Opened| {
        statfs(layer.root.as_fd()).is_ok_and(|found| STACKED.contains(&found.magic))
    };
    if layers.any(is_stacked) { 2 } else { 1 }
}

/// Opens the mountpoint; also answers the identities of all directories above it.
fn open_target(path: &Path) -> Result<(Target, Vec<LayerIno>), MountError> {
    if let Some(dev) = mount::inherited_connection(path) {
        return Ok((Target::Inherited(dev), Vec::new()));
    }
    let fd = open::open_dir_path(path).map_err(|e| mountpoint_error(path, e))?;
    let mut above = ancestry(fd.as_fd()).map_err(|e| mountpoint_error(path, e))?;
    above.remove(0);
    // What the kernel remembers of a dead mount's root may still answer; figures never do.
    statfs(fd.as_fd()).map_err(|e| mountpoint_error(path, e))?;
    let full = std::fs::canonicalize(path).map_err(|e| {
        let errno = Errno::from_raw(e.raw_os_error().unwrap_or(0));
        mountpoint_error(path, SysError::new("realpath", errno))
    })?;
    let dev = open_dev_fuse()?;
    Ok((Target::Directory { path: full, dev }, above))
}

fn mountpoint_error(path: &Path, source: SysError) -> MountError {
    let path = path.to_owned();
    match source.errno() {
        Errno::ENOENT => MountError::MountpointMissing { path },
        Errno::ENOTDIR => MountError::MountpointNotDirectory { path },
        Errno::ENOTCONN => MountError::MountpointDead { path },
        _ => MountError::Mountpoint { path, source },
    }
}

/// Opens a connection for who can mount; others need the helper, which opens its own.
fn open_dev_fuse() -> Result<Option<OwnedFd>, MountError> {
    match mount::open_dev_fuse() {
        Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            Err(MountError::NoDevFuse)
        }
        Err(e) if matches!(e.errno(), Errno::EACCES | Errno::EPERM) => {
            Err(MountError::DevFuseDenied(e))
        }
        Err(e) => Err(MountError::DevFuse(e)),
        Ok(dev) if process::has_sys_admin() => Ok(Some(dev)),
        Ok(_) if mount::helper().is_some() => Ok(None),
        Ok(_) => Err(MountError::NoPrivilege),
    }
}

/// Takes upper and workdir for this process alone.
fn lock<'a>(dirs: impl Iterator<Item = &'a Opened>) -> Result<Vec<OwnedFd>, MountError> {
    let until = Instant::now() + LOCK_PATIENCE;
    dirs.map(|dir| {
        let fd = open::open_dir_for_list(dir.root.as_fd())?;
        while !try_lock(&fd)? || kernel_uses(dir) {
            if Instant::now() >= until {
                return Err(MountError::InUse(dir.place.clone()));
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(fd)
    })
    .collect()
}

/// Locks a directory; where the file system has no locks (some network ones) nobody can be kept
/// out, which is no reason not to mount.
fn try_lock(fd: &OwnedFd) -> Result<bool, SysError> {
    match io::try_lock(fd.as_fd()) {
        Err(e) if matches!(e.errno(), Errno::ENOLCK | Errno::EBADF | Errno::EOPNOTSUPP) => {
            tracing::warn!("other mounts of this upper cannot be kept out: {e}");
            Ok(true)
        }
        other => other,
    }
}

/// Whether a kernel overlayfs mount that this process can see writes to the directory.
fn kernel_uses(dir: &Opened) -> bool {
    let overlays = mounts()
        .unwrap_or_default()
        .into_iter()
        .filter(|m| m.fstype == "overlay");
    overlays.into_iter().any(|m| {
        let mut parsed = crate::options::Parsed::default();
        let options = std::os::unix::ffi::OsStrExt::as_bytes(m.super_options.as_os_str());
        let mode = crate::options::Mode::Compat;
        if crate::options::parse(options, mode, &mut parsed).is_err() {
            return false;
        }
        let mut spec = MountSpec::new(m.target, "overlay", crate::spec::Invoker::User);
        spec.apply(&parsed.given).is_ok()
            && spec.upper.iter().chain(&spec.work).any(|path| {
                open::open_dir_path(path)
                    .and_then(|fd| stat_fd(fd.as_fd()))
                    .is_ok_and(|s| s.id() == dir.root.id())
            })
    })
}

/// What a volatile mount that was not closed in order leaves in the workdir; kernel overlayfs too
/// refuses it until somebody has looked at the upper and removed it (`ovl_workdir_cleanup_recurse()`, "incompat").
const VOLATILE_MARKER: [&str; 3] = ["work", "incompat", "volatile"];

fn check_volatile(work: &Opened) -> Result<(), MountError> {
    let mut at = open::open_path_at(At::object(&work.root))?;
    for step in VOLATILE_MARKER {
        let name = Name::new(step.as_bytes())?;
        match stat_opt(At::entry(at.as_fd(), name))? {
            Some(found) if found.kind() == Kind::Dir => at = open::open_dir(at.as_fd(), name)?,
            _ => return Ok(()),
        }
    }
    let marker = work.place.path.join(VOLATILE_MARKER.join("/"));
    Err(MountError::VolatileLeft {
        work: work.place.path.clone(),
        marker,
    })
}
