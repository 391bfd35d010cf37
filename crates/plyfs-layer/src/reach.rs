//! How an object is reached again: cached directory descriptors with a budget.
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use plyfs_sys::stat::LayerIno;
use plyfs_sys::{At, Errno, NameBuf, Result, SysError, open, stat};

use crate::counted_lru::{CountedLru, Served};
use crate::obj::Obj;

/// Independent parts of the cache, so that threads rarely meet at one lock.
const SHARDS: usize = 8;

/// How often a way is climbed again that renames have changed meanwhile.
const MAX_TRIES: usize = 8;

/// A directory to open on the way back down.
struct Step {
    serial: u64,
    id: LayerIno,
    name: NameBuf,
}

fn is_moved(e: &SysError) -> bool {
    matches!(e.errno(), Errno::ENOENT | Errno::ESTALE | Errno::ENOTDIR)
}

type Shard = CountedLru<u64, Arc<OwnedFd>>;

/// An LRU of O_PATH directory descriptors; an evicted one is opened again by name and checked.
#[derive(Debug)]
pub struct Reach {
    shards: [Mutex<Shard>; SHARDS],
}

impl Reach {
    /// A cache that holds at most about `budget` descriptors.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        let cap = NonZeroUsize::new(budget / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: std::array::from_fn(|_| Mutex::new(CountedLru::new(cap))),
        }
    }

    /// How the cache has served so far.
    #[must_use]
    pub fn served(&self) -> Served {
        self.shards.iter().map(|shard| shard.lock().served()).sum()
    }

    fn shard(&self, serial: u64) -> &Mutex<Shard> {
        &self.shards[usize::try_from(serial).unwrap_or(0) % SHARDS]
    }

    /// An O_PATH descriptor of the directory `dir`.
    ///
    /// # Errors
    /// ESTALE when another object has taken the name; ENOENT, EMFILE, EIO and the like.
    pub fn dir_fd(&self, dir: &Obj) -> Result<Arc<OwnedFd>> {
        let mut tries = 0;
        loop {
            match self.climb(dir) {
                // A directory on the way was renamed between reading its place and opening it.
                Err(e) if is_moved(&e) && tries < MAX_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// Climbs to the nearest directory with a descriptor and opens the way back down. A loop and
    /// not a recursion: users can make trees deeper than a stack.
    fn climb(&self, dir: &Obj) -> Result<Arc<OwnedFd>> {
        let mut steps: Vec<Step> = Vec::new();
        let mut held: Option<Arc<Obj>> = None;
        let mut fd = loop {
            let here: &Obj = held.as_deref().unwrap_or(dir);
            if let Some(fd) = self.shard(here.serial()).lock().get(&here.serial()) {
                break fd;
            }
            let place = here.place();
            if let Some(fd) = &place.pinned {
                break Arc::clone(fd);
            }
            let Some((parent, name)) = place.names.first() else {
                return Err(SysError::new("open directory", Errno::ESTALE));
            };
            steps.push(Step {
                serial: here.serial(),
                id: here.id(),
                name: name.clone(),
            });
            let parent = Arc::clone(parent);
            drop(place);
            held = Some(parent);
        };
        while let Some(step) = steps.pop() {
            fd = Arc::new(open::open_dir(fd.as_fd(), &step.name)?);
            if stat::stat_fd(fd.as_fd())?.id() != step.id {
                return Err(SysError::on(
                    "open directory",
                    step.name.as_bytes(),
                    Errno::ESTALE,
                ));
            }
            self.shard(step.serial)
                .lock()
                .put(step.serial, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Remembers a descriptor that was opened anyway.
    pub fn remember(&self, dir: &Obj, fd: Arc<OwnedFd>) {
        self.shard(dir.serial()).lock().put(dir.serial(), fd);
    }

    /// Drops the descriptor of a directory that has been removed.
    pub fn forget(&self, obj: &Obj) {
        self.shard(obj.serial()).lock().pop(&obj.serial());
    }

    /// Calls `f` with the object as a target of `*at` calls, its name held meanwhile.
    ///
    /// # Errors
    /// ESTALE when the object cannot be reached any more, or what `f` answers.
    pub fn with<T, E: From<SysError>>(
        &self,
        obj: &Obj,
        f: impl FnOnce(At<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let place = obj.place();
        match place.names.first() {
            _ if place.pinned.is_some() => self.with_pinned(&place.pinned, f),
            Some((dir, name)) => {
                let dir = self.dir_fd(dir)?;
                f(At::entry(dir.as_fd(), name))
            }
            None => Err(SysError::new("reach object", Errno::ESTALE).into()),
        }
    }

    fn with_pinned<T, E: From<SysError>>(
        &self,
        pinned: &Option<Arc<OwnedFd>>,
        f: impl FnOnce(At<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        match pinned {
            Some(fd) => f(At::object(fd)),
            None => Err(SysError::new("reach object", Errno::ESTALE).into()),
        }
    }

    /// Opens the regular file `obj` for I/O and checks that it is that file.
    ///
    /// # Errors
    /// ESTALE when another object has taken the name; EMFILE, EACCES, EIO and the like.
    pub fn open_file(&self, obj: &Obj, access: open::Access) -> Result<OwnedFd> {
        self.with(obj, |at| {
            let fd = match open::open_file(at, access) {
                // O_NOATIME is for owners only; a reader that is not one goes without.
                Err(e) if e.errno() == Errno::EPERM && access.contains(open::Access::NOATIME) => {
                    open::open_file(at, access - open::Access::NOATIME)?
                }
                other => other?,
            };
            if stat::stat_fd(fd.as_fd())?.id() != obj.id() {
                return Err(SysError::new("open file", Errno::ESTALE));
            }
            Ok(fd)
        })
    }

    /// Makes `obj` reachable without any name, before its last known name goes.
    ///
    /// # Errors
    /// EMFILE, ENOENT and the like; the object must then keep its name.
    pub fn open_pin(&self, obj: &Obj) -> Result<Arc<OwnedFd>> {
        self.with(obj, |at| Ok(Arc::new(open::open_path_at(at)?)))
    }
}

#[cfg(test)]
mod tests;
