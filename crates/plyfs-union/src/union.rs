//! The merged view as a whole: its parts, opening it, and what is told to the kernel.
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use plyfs_layer::{Caps, LayerIdx, Reach, dir_marks};
use plyfs_sys::SysError;
use plyfs_sys::stat::Kind;
use plyfs_sys::takeover::number;

use crate::by_name;
use crate::cache::ByteCache;
use crate::config::{OpenError, UnionConfig, UnionOptions};
use crate::files::OpenFiles;
use crate::inode::{Inode, Key, NodeId, Parts};
use crate::journal::{Journal, Keep, Request, Ticket};
use crate::kept_times::KeptTimes;
use crate::listing::UpperList;
use crate::lower_index::LowerIndex;
use crate::lowers::LowerObjs;
use crate::open_table::Opens;
use crate::stack::Stack;
use crate::stats::Copies;
use crate::table::Table;
use crate::upper_dirs::UpperDirs;
use crate::{Error, Result};

/// Who is told that attributes have changed without a request that says so.
pub trait Invalidate: Send + Sync + std::fmt::Debug {
    /// The attributes of `node` that the kernel caches are old.
    fn attributes(&self, node: NodeId);
    /// The listing of the directory `node` that the kernel caches is old.
    fn listing(&self, node: NodeId);
    /// What programs have stored in pages of `node` from `off` on and what the kernel has not yet
    /// written is to be written before this returns; `len` 0 means to the end.
    fn write_back(&self, node: NodeId, off: u64, len: u64);
}

/// The merged view of a stack of layers.
#[derive(Debug)]
pub struct Union {
    pub(crate) stack: Stack,
    pub(crate) options: UnionOptions,
    pub(crate) table: Arc<Table>,
    pub(crate) reach: Reach,
    pub(crate) files: OpenFiles,
    pub(crate) opens: Opens,
    pub(crate) times: KeptTimes,
    pub(crate) lower_cache: ByteCache<LowerIndex>,
    pub(crate) upper_cache: ByteCache<UpperList>,
    pub(crate) upper_dirs: UpperDirs,
    pub(crate) copies: Copies,
    /// Held while a mark of owner and mode is read and written.
    pub(crate) mark_change: Mutex<()>,
    pub(crate) no_lower: Arc<LowerIndex>,
    listener: OnceLock<Box<dyn Invalidate>>,
}

impl Union {
    /// Opens the merged view: takes over the workdir, clears it and finds out what the file
    /// systems can do. Besides, the root of the upper gets the marks that say how it is written.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: UnionConfig) -> std::result::Result<Arc<Self>, OpenError> {
        Self::open_noted(config, None)
    }

    /// [`Union::open`] with a journal from which another process can take over.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_noted(
        config: UnionConfig,
        journal: Option<Arc<Journal>>,
    ) -> std::result::Result<Arc<Self>, OpenError> {
        if let Some(journal) = &journal {
            note_layers(journal, &config);
        }
        let union = Self::assemble(config, journal, None)?;
        union.announce_marks().map_err(|e| OpenError::Layer {
            layer: "xattr_permissions: the root of the upper".to_owned(),
            source: SysError::new("set override_stat xattr", e.errno()),
        })?;
        if let (Some(journal), Some(upper)) = (union.table.journal(), &union.stack.upper) {
            journal.keep_caps(&upper.upper.caps);
        }
        union.add_root()?;
        Ok(Arc::new(union))
    }

    /// The parts, and nothing known yet. `caps` is what a dead daemon found out of the upper.
    pub(crate) fn assemble(
        config: UnionConfig,
        journal: Option<Arc<Journal>>,
        caps: Option<Caps>,
    ) -> std::result::Result<Self, OpenError> {
        let mut options = config.options.clone();
        let stack = Stack::open(config, caps)?;
        if stack.deletes_by_name {
            by_name::without_marks(&mut options);
        }
        Ok(Self {
            stack,
            times: KeptTimes::new(journal.clone()),
            table: Table::new(journal.clone()),
            reach: Reach::new(options.fd_budget / 2),
            files: OpenFiles::new(options.fd_budget / 2),
            opens: Opens::new(journal),
            lower_cache: ByteCache::new(options.cache_bytes / 2),
            upper_cache: ByteCache::new(options.cache_bytes / 2),
            upper_dirs: UpperDirs::default(),
            copies: Copies::default(),
            mark_change: Mutex::default(),
            no_lower: Arc::default(),
            listener: OnceLock::new(),
            options,
        })
    }

    /// Begins a request of the kernel on this thread: what is known of it. What a dead daemon has
    /// counted for its reply is given back.
    pub fn begin(&self, unique: u64) -> (Ticket<'_>, Request) {
        let Some(journal) = self.table.journal() else {
            return (Ticket::none(), Request::Fresh);
        };
        let (ticket, request, counted) = journal.begin_request(unique);
        for node in counted {
            self.forget(node, 1);
        }
        if request != Request::Fresh {
            self.take_back_open();
        }
        (ticket, request)
    }

    /// The journal of the mount, if it has one.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.table.journal()
    }

    /// The root stays known for the life of the view.
    fn add_root(&self) -> std::result::Result<(), OpenError> {
        let (key, parts) = self.root()?;
        self.table.intern(&key, None, || parts).leak();
        Ok(())
    }

    pub(crate) fn root(&self) -> std::result::Result<(Key, Parts), OpenError> {
        let upper = self.stack.upper.as_ref().map(|u| Arc::clone(&u.root));
        let lowers: LowerObjs = self.stack.lowers.iter().cloned().collect();
        let top = upper
            .as_ref()
            .or_else(|| lowers.first())
            .ok_or(OpenError::NoLayers)?;
        let id = lowers.first().map_or(top.id(), |o| o.id());
        let key = Key::Obj(top.layer(), top.id());
        let impure = match &upper {
            Some(obj) => {
                self.reach
                    .with(obj, |at| dir_marks(at, self.stack.ns))
                    .map_err(|source| OpenError::Layer {
                        layer: "upper".to_owned(),
                        source,
                    })?
                    .impure
            }
            None => false,
        };
        let st_ino = self.stack.st_ino(id);
        let parts = Parts {
            kind: Kind::Dir,
            st_ino,
            upper,
            lowers,
            metacopy: false,
            impure,
            link: None,
            index: None,
        };
        Ok((key, parts))
    }

    /// Who is told about changes of attributes. Only the first one counts.
    pub fn set_listener(&self, listener: Box<dyn Invalidate>) {
        self.listener.get_or_init(|| listener);
    }

    pub(crate) fn invalidate(&self, node: NodeId) {
        if let Some(listener) = self.listener.get() {
            listener.attributes(node);
        }
        if let Some(journal) = self.table.journal() {
            journal.told(node);
        }
    }

    pub(crate) fn invalidate_listing(&self, node: NodeId) {
        if let Some(listener) = self.listener.get() {
            listener.listing(node);
        }
    }

    pub(crate) fn launder(&self, node: NodeId, off: u64, len: u64) {
        if let Some(listener) = self.listener.get() {
            listener.write_back(node, off, len);
        }
    }

    pub(crate) fn inode(&self, node: NodeId) -> Result<Arc<Inode>> {
        self.table.get(node).ok_or(Error::Stale)
    }

    /// The kernel gives back `count` lookups of an inode.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.settle_time(node);
        // What is open is known by the kernel's numbers, all else by the first.
        let both = self
            .passes_through()
            .then(|| self.table.get(node))
            .flatten();
        let both = both.map(|inode| (inode.id, self.table.node_of(&inode)));
        let (first, second) = both.unwrap_or((node, node));
        if node != NodeId::ROOT && self.table.forget(node, count) {
            if self.passes_through() {
                self.opens.forget(first);
                self.opens.forget(second);
            }
            let node = first;
            self.files.remove(node);
            self.times.forget(node);
            self.lower_cache.remove(node);
            self.upper_cache.remove(node);
        }
    }

    /// The kernel caches writes from now on: size and times of regular files are what it says.
    pub fn kernel_caches_writes(&self) {
        self.times.turn_on();
    }

    /// Waits until the kernel has stored the pages of `node` that it holds back, which takes WRITE
    /// requests: not for a thread that serves them.
    pub fn store_pages(&self, node: NodeId) {
        if self.times.is_on() {
            self.launder(node, 0, 0);
        }
    }

    /// Puts the times on disk that files show, where those on disk are of a later store.
    pub fn settle_times(&self) {
        for node in self.times.all() {
            self.settle_time(node);
        }
    }

    /// Ends the view in order: what a `volatile` mount held back becomes durable, and its mark
    /// goes. To be called when no operation is in progress any more.
    ///
    /// # Errors
    /// EIO, ENOSPC and the like; the upper then stays marked as not closed.
    pub fn close(&self) -> Result<()> {
        let Some(upper) = &self.stack.upper else {
            return Ok(());
        };
        self.settle_times();
        upper.upper.work.close()?;
        if self.options.volatile {
            upper.upper.work.close_volatile()?;
        }
        Ok(())
    }

    /// Whether access control lists are shown and kept.
    #[must_use]
    pub fn shows_acls(&self) -> bool {
        self.options.acl && self.options.xattrs
    }

    /// How many inodes are known.
    #[must_use]
    pub fn known_inodes(&self) -> usize {
        self.table.len()
    }

    /// Whether the view has no upper.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.stack.upper.is_none()
    }

    /// The layer of the upper, for messages.
    #[must_use]
    pub fn upper_layer(&self) -> Option<LayerIdx> {
        self.stack.upper.as_ref().map(|u| u.root.layer())
    }
}

/// The layers keep their numbers as long as the view lives, and longer if it is killed.
fn note_layers(journal: &Journal, config: &UnionConfig) {
    journal.keep(Keep::Lower, config.lowers.iter().map(number));
    journal.keep(Keep::DataOnly, config.data_only.iter().map(number));
    if let Some(roots) = &config.upper {
        journal.keep(Keep::Upper, [number(&roots.upper)]);
        journal.keep(Keep::Work, [number(&roots.work)]);
    }
}
