//! What a daemon leaves for the next one, and how that one begins.
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plyfs_fuse::{Session, SessionConfig};
use plyfs_layer::LayerRoot;
use plyfs_sys::mount::{self, MountEntry};
use plyfs_sys::shared::Shared;
use plyfs_sys::takeover::{Left, number};
use plyfs_sys::{Errno, SysError};
use plyfs_union::{Journal, Keep, Union, UnionConfig, UpperRoots};

use crate::assemble::Target;
use crate::error::MountError;
use crate::session::{Mounted, Serving, describe};
use crate::spec::MountSpec;
use crate::state::Published;

/// How long the holder is waited for, which has two system calls to make.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Notes the descriptors of a new mount. Answers one of the connection, which keeps its number.
pub(crate) fn keep(
    journal: &Journal,
    locks: &[OwnedFd],
    dev_fuse: &OwnedFd,
    mounted: &Mounted,
    published: Option<&Published>,
) -> Result<OwnedFd, MountError> {
    let own = plyfs_sys::open::dup(dev_fuse)?;
    journal.keep(Keep::Connection, [number(&own)]);
    journal.keep(Keep::Lock, locks.iter().map(number));
    if let Some(published) = published {
        journal.keep(Keep::State, [number(published)]);
        journal.keep(Keep::Socket, published.socket_number());
    }
    if let Some(entry) = &mounted.entry {
        journal.is_mount(entry.id);
    }
    Ok(own)
}

/// From now on another daemon takes over when this one dies.
pub(crate) fn replaceable(journal: &Journal, union: &Arc<Union>) {
    if !journal.has_served() {
        // Whoever waits for the mount finds the holder detached as well.
        let until = Instant::now() + PATIENCE;
        while !journal.is_held() && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
        journal.serves(now());
        return;
    }
    // The kernel may wait for pages that only the serving threads give back.
    let union = Arc::clone(union);
    let told = std::thread::Builder::new().name("tell".into());
    if let Err(e) = told.spawn(move || union.tell_changes()) {
        tracing::error!("the kernel may show old attributes: {e}");
    }
}

/// Takes over the mount of a daemon that died.
pub(crate) fn take_over(
    spec: &MountSpec,
    memory: Shared,
    mine: &BTreeSet<i32>,
) -> Result<Serving, MountError> {
    let begun = Instant::now();
    let journal = Journal::take_over(memory)?;
    if !journal.is_on_trial() {
        journal.restarted();
    }
    let mut left = Left::since(mine)?;
    let mut kept = Inherited::take(&journal, &mut left)?;
    let config = kept.config(spec)?;
    let (union, restored) = Union::take_over(config, &journal, &mut left)?;
    let entry = journal.mount_id().and_then(mount_of);
    let path = entry.as_ref().map(|entry| entry.target.clone());
    let dev_fuse = kept.one(Keep::Connection)?;
    let dev = plyfs_sys::open::dup(&dev_fuse)?;
    let restarts = journal.restarts();
    let state_file = kept.one(Keep::State).ok();
    let socket = kept.one(Keep::Socket).ok();
    let closed = left.close_rest();
    let (published, state) = match (state_file, &entry) {
        (Some(file), Some(entry)) => Published::take_over(entry.dev, file, socket, restarts)
            .inspect_err(|e| tracing::warn!("the state file is not right any more: {e}"))
            .ok()
            .unzip(),
        _ => (None, None),
    };
    let state = state.unwrap_or_else(|| {
        let path = path.clone().unwrap_or_else(|| spec.mountpoint.clone());
        describe(spec, &Target::Directory { path, dev: None })
    });
    let config = SessionConfig {
        stack_depth: journal.stack_depth(),
        ..spec.session.clone()
    };
    let session =
        Session::take_over(Arc::clone(&union), dev, config).map_err(MountError::Session)?;
    let mut held = kept.all(Keep::Lock);
    held.push(dev_fuse);
    tracing::warn!(
        version = env!("CARGO_PKG_VERSION"),
        restarts,
        inodes = restored.inodes,
        lost = restored.lost,
        closed,
        "took over after {:.1} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    let age = Duration::from_millis(now().saturating_sub(journal.since()));
    Ok(Serving {
        union,
        session,
        mounted: Arc::new(Mounted { path, entry }),
        published,
        state,
        since: begun.checked_sub(age).unwrap_or(begun),
        held,
    })
}

fn mount_of(id: u64) -> Option<MountEntry> {
    mount::mounts().ok()?.into_iter().find(|m| m.id == id)
}

/// The descriptors of the dead daemon, by what they are for.
struct Inherited(Vec<(Keep, OwnedFd)>);

impl Inherited {
    fn take(journal: &Journal, left: &mut Left) -> Result<Self, SysError> {
        let kept = journal.kept().into_iter();
        let taken = kept.map(|kept| Ok((kept.keep, left.take(kept.number)?)));
        taken.collect::<Result<_, SysError>>().map(Self)
    }

    fn all(&mut self, keep: Keep) -> Vec<OwnedFd> {
        let wanted = self.0.extract_if(.., |(k, _)| *k == keep);
        wanted.map(|(_, fd)| fd).collect()
    }

    fn one(&mut self, keep: Keep) -> Result<OwnedFd, SysError> {
        let found = self.all(keep).pop();
        found.ok_or(SysError::new("inherited descriptor", Errno::EBADF))
    }

    /// The layers; their paths are for messages.
    fn config(&mut self, spec: &MountSpec) -> Result<UnionConfig, SysError> {
        let upper = match (self.one(Keep::Upper), self.one(Keep::Work)) {
            (Ok(upper), Ok(work)) => Some(UpperRoots {
                upper: root(spec.upper.as_deref(), upper)?,
                work: root(spec.work.as_deref(), work)?,
            }),
            _ => None,
        };
        Ok(UnionConfig {
            lowers: roots(&spec.lowers, self.all(Keep::Lower))?,
            data_only: roots(&spec.data_only, self.all(Keep::DataOnly))?,
            upper,
            options: spec.union.clone(),
        })
    }
}

fn root(path: Option<&Path>, fd: OwnedFd) -> Result<LayerRoot, SysError> {
    LayerRoot::inherited(path.unwrap_or(Path::new("?")), fd)
}

fn roots(paths: &[PathBuf], fds: Vec<OwnedFd>) -> Result<Vec<LayerRoot>, SysError> {
    let fds = fds.into_iter().enumerate();
    fds.map(|(i, fd)| root(paths.get(i).map(PathBuf::as_path), fd))
        .collect()
}
