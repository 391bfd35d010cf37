//! The directories of one case, opening the view over them, and what must hold afterwards.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfs_format::idmap::IdMap;
use plyfs_format::names::XattrNamespace;
use plyfs_layer::LayerRoot;
use plyfs_testkit::{Rules, Tree, diff_with, snapshot};
use plyfs_union::{
    OwnerStore, Ownership, RedirectDir, Union, UnionConfig, UnionOptions, UpperRoots,
};

use crate::kernel;
use crate::place::{chattr, place};
use crate::text::{objects, sections};
use crate::view::{self, Strict, View, differences};

/// Layers on the disk, as they were planted.
#[derive(Debug)]
pub(crate) struct World {
    dir: tempfile::TempDir,
    lowers: Vec<PathBuf>,
    data_only: Vec<PathBuf>,
    before: Vec<Tree>,
    writable: bool,
    /// Some object was planted with flags of chattr.
    protected: bool,
    pub(crate) options: UnionOptions,
    /// Kernel overlayfs understands all that is in the layers, and is asked.
    pub(crate) kernel_knows: bool,
}

impl World {
    /// Plants the layers of `text`; see [`crate::text`]. Besides `lower:` and `upper:` there are
    /// `data:` layers, which hold data of metacopies alone. An `opts:` section changes the options:
    /// `redirect=on|follow|nofollow` (default on), `metacopy`, `index`, `volatile`, `fds=N`,
    /// `cache=N`, `uids=MAP`, `gids=MAP`, `squash=UID:GID`, `marks=1|2`, `noacl`, `noxattrs`,
    /// `static_nlink`, and
    /// `own-format` for layers that kernel overlayfs does not read.
    pub(crate) fn new(text: &str) -> Self {
        Self::new_in(&plyfs_testkit::scratch_base(), text)
    }

    /// [`World::new`] with its directories below `base`. They stay where `PLYFS_KEEP` is set.
    pub(crate) fn new_in(base: &Path, text: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plyfs-engine-")
            .disable_cleanup(std::env::var_os("PLYFS_KEEP").is_some())
            .tempdir_in(base)
            .unwrap();
        let mut world = Self {
            dir,
            lowers: Vec::new(),
            data_only: Vec::new(),
            before: Vec::new(),
            writable: false,
            protected: text.contains(" flags="),
            options: UnionOptions {
                redirect_dir: RedirectDir::On,
                xattr_namespace: Some(XattrNamespace::Trusted),
                ..UnionOptions::default()
            },
            kernel_knows: true,
        };
        for (title, body) in sections(text) {
            match title {
                "lower" => {
                    let root = world.path(&format!("l{}", world.lowers.len()));
                    place(&root, &objects(body));
                    world.lowers.push(root);
                }
                "data" => {
                    let root = world.path(&format!("data{}", world.data_only.len()));
                    place(&root, &objects(body));
                    world.data_only.push(root);
                    world.kernel_knows = false;
                }
                "upper" => {
                    world.writable = true;
                    place(&world.upper(), &objects(body));
                }
                "opts" => body.split_whitespace().for_each(|o| world.option(o)),
                _ => panic!("no such section of layers: {title:?}"),
            }
        }
        std::fs::create_dir(world.path("work")).unwrap();
        world.before = world.lowers.iter().map(|l| snapshot(l)).collect();
        world
    }

    fn option(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match (name, value) {
            ("redirect", "on") => self.options.redirect_dir = RedirectDir::On,
            ("redirect", "follow") => self.options.redirect_dir = RedirectDir::Follow,
            ("redirect", "nofollow") => self.options.redirect_dir = RedirectDir::NoFollow,
            ("metacopy", "") => self.options.metacopy = true,
            ("volatile", "") => self.options.volatile = true,
            ("fds", n) => self.options.fd_budget = n.parse().unwrap(),
            ("cache", n) => self.options.cache_bytes = n.parse().unwrap(),
            ("uids", map) => self.own_ids(|own| own.uids = IdMap::parse(map).unwrap()),
            ("gids", map) => self.own_ids(|own| own.gids = IdMap::parse(map).unwrap()),
            ("squash", ids) => self.own_ids(|own| {
                let (uid, gid) = ids.split_once(':').unwrap();
                (own.squash_uid, own.squash_gid) = (uid.parse().ok(), gid.parse().ok());
            }),
            ("marks", "1") => self.own_ids(|own| own.store = OwnerStore::SecurityMark),
            ("marks", "2") => self.own_ids(|own| own.store = OwnerStore::UserMark),
            ("noacl", "") => (self.options.acl, self.kernel_knows) = (false, false),
            ("noxattrs", "") => (self.options.xattrs, self.kernel_knows) = (false, false),
            ("static_nlink", "") => self.options.static_nlink = true,
            ("own-format", "") => self.kernel_knows = false,
            // The kernel finds the index only with an upper of its own.
            ("index", "") => (self.options.index, self.kernel_knows) = (true, false),
            _ => panic!("no such option: {word:?}"),
        }
    }

    /// Changes who owns what, which the kernel is not told.
    fn own_ids(&mut self, change: impl FnOnce(&mut Ownership)) {
        self.kernel_knows = false;
        change(&mut self.options.ownership);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.path("upper")
    }

    pub(crate) fn lower(&self, index: usize) -> &Path {
        &self.lowers[index]
    }

    /// Opens a view over the layers as they are now.
    pub(crate) fn open(&self) -> Arc<Union> {
        let root = |path: &Path| LayerRoot::open(path).unwrap();
        Union::open(UnionConfig {
            lowers: self.lowers.iter().map(|l| root(l)).collect(),
            data_only: self.data_only.iter().map(|l| root(l)).collect(),
            upper: self.writable.then(|| UpperRoots {
                upper: root(&self.upper()),
                work: root(&self.path("work")),
            }),
            options: self.options.clone(),
        })
        .unwrap()
    }

    /// What must hold of any view over the layers, whatever was done to it: see the crate's
    /// documentation. Nothing but the root may be known of `union` any more.
    pub(crate) fn verify(&self, union: &Arc<Union>) -> View {
        assert_eq!(
            union.known_inodes(),
            1,
            "inodes nobody knows stay in the table"
        );
        let shown = view::of_union(union);
        assert_eq!(union.known_inodes(), 1, "a walk leaves inodes in the table");
        union.close().unwrap();
        self.verify_workdir();
        let fresh = self.open();
        let again = view::of_union(&fresh);
        let lines = differences(&shown, &again, Strict::Inodes);
        assert!(
            lines.is_empty(),
            "another view over the same layers:\n{lines}"
        );
        fresh.close().unwrap();
        drop(fresh);
        if self.kernel_knows {
            let upper = self.writable.then(|| self.upper());
            let layers: Vec<_> = upper.into_iter().chain(self.lowers.clone()).collect();
            if let Some(by_kernel) = kernel::view(&layers, self.options.redirect_dir) {
                let lines = differences(&shown, &by_kernel, Strict::NoInodes);
                assert!(lines.is_empty(), "plyfs | kernel overlayfs:\n{lines}");
            }
        }
        self.verify_disk();
        shown
    }

    /// Lower layers are untouched and the workdir is empty.
    pub(crate) fn verify_disk(&self) {
        for (layer, before) in self.lowers.iter().zip(&self.before) {
            let lines = diff_with(before, &snapshot(layer), &Rules::exact());
            assert!(
                lines.is_empty(),
                "a lower layer changed:\n{}",
                lines.join("\n")
            );
        }
        self.verify_workdir();
    }

    fn verify_workdir(&self) {
        if self.writable {
            let litter = std::fs::read_dir(self.path("work/work")).unwrap();
            let litter: Vec<_> = litter.map(|e| e.unwrap().file_name()).collect();
            let volatile = self.options.volatile && litter == ["incompat"];
            assert!(
                litter.is_empty() || volatile,
                "litter in the workdir: {litter:?}"
            );
        }
    }
}

impl Drop for World {
    /// Protected objects are let go, or they could not be removed.
    fn drop(&mut self) {
        if self.protected {
            chattr(&["-R", "-f", "-i", "-a"], self.dir.path());
        }
    }
}

impl World {
    /// Takes the layers as they are now for what they were planted as.
    pub(crate) fn resealed(mut self) -> Self {
        self.before = self.lowers.iter().map(|l| snapshot(l)).collect();
        self
    }
}

/// Memory where it can carry an upper: a new inode of a disk file system costs a hundred times as
/// much. Elsewhere, or where `PLYFS_TEST_DIR` says so, a disk.
pub(crate) fn memory() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    let carries =
        |dir: tempfile::TempDir| xattr::set(dir.path(), "trusted.overlay.probe", b"y").is_ok();
    if std::env::var_os("PLYFS_TEST_DIR").is_none() && tempfile::tempdir_in(&shm).is_ok_and(carries)
    {
        shm
    } else {
        plyfs_testkit::scratch_base()
    }
}
