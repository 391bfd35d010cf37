//! The lower layers that workloads run on: made once, kept between runs, never changed.
mod archive;
mod plant;
mod programs;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;

pub use archive::Archive;
pub(crate) use plant::{BLOCK, LITTLE, fill_block, medium_size, small_content, small_path};
pub(crate) use programs::{PYTHON_HOME, finds_python};
pub(crate) use tree::{kept_root, walk};

use crate::ground::{Ground, Mold};

/// Raised whenever a kept fixture would no longer be what the code makes.
const VERSION: u32 = 2;

/// What the lower layers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing.
    Empty,
    /// The names of a real root file system; the files are as large as there, but holes.
    Tree,
    /// Small files of 0.5 to 8 kB, a hundred in a directory.
    Small,
    /// One large file, one of a tenth of its size, and one of 1 MiB.
    Big,
    /// One directory with very many names.
    Crowd,
    /// What `chroot DIR true` needs: the program, its loader and its libraries.
    Root,
    /// Python's standard library, where there is a Python.
    Python,
}

impl Kind {
    /// Whether the files hold bytes that are worth having in the page cache.
    pub(crate) fn has_content(self) -> bool {
        matches!(self, Self::Small | Self::Big | Self::Root | Self::Python)
    }
}

/// A kind of content, spread over a number of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fixture {
    /// What.
    pub kind: Kind,
    /// Over how many layers; every file is in one of them, chosen by a hash of its path.
    pub layers: usize,
}

/// How much there is to work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Entries of [`Kind::Tree`].
    pub tree: usize,
    /// Files of [`Kind::Small`], and files created by workloads.
    pub small: usize,
    /// Bytes of [`Kind::Big`].
    pub big: u64,
    /// Names of [`Kind::Crowd`].
    pub crowd: usize,
    /// Bytes that the rewriting workload rewrites in one pass.
    pub rewrite: u64,
    /// Files in the archive of source code.
    pub archive: usize,
}

impl Sizes {
    /// What results are published for.
    pub const FULL: Self = Self {
        tree: 20_000,
        small: 10_000,
        big: 1 << 30,
        crowd: 100_000,
        rewrite: 16 << 20,
        archive: 5_000,
    };

    /// A tenth of it, for a first impression.
    pub const QUICK: Self = Self {
        tree: 2_000,
        small: 1_000,
        big: 128 << 20,
        crowd: 10_000,
        rewrite: 4 << 20,
        archive: 500,
    };

    fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Empty | Kind::Root | Kind::Python => 0,
            Kind::Tree => self.tree as u64,
            Kind::Small => self.small as u64,
            Kind::Big => self.big,
            Kind::Crowd => self.crowd as u64,
        }
    }
}

/// What the layers of a fixture hold; all paths are relative.
#[derive(Debug)]
pub struct Built {
    /// Directories of the merged view except the root, parents first.
    pub dirs: Vec<PathBuf>,
    /// Regular files of the merged view, sorted.
    pub files: Vec<PathBuf>,
    /// Entries of the merged view except the root: directories, files and symbolic links.
    pub entries: u64,
    /// Bytes in all regular files.
    pub bytes: u64,
}

/// The fixtures of one run; each is made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Fixtures {
    sizes: Sizes,
    built: BTreeMap<Fixture, (Mold, Arc<Built>)>,
    archive: Option<Arc<Archive>>,
}

impl Fixtures {
    /// No fixtures yet.
    pub(crate) fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            built: BTreeMap::new(),
            archive: None,
        }
    }

    /// The layers of `fixture`, and what they hold.
    pub(crate) fn get(&mut self, ground: &Ground, fixture: Fixture) -> Result<(Mold, Arc<Built>)> {
        if let Some((mold, built)) = self.built.get(&fixture) {
            return Ok((mold.clone(), Arc::clone(built)));
        }
        let size = self.sizes.of(fixture.kind);
        let name = format!("{:?}-{size}-{}-v{VERSION}", fixture.kind, fixture.layers);
        let room = self.sizes.big;
        let mold = ground.mold(&name.to_lowercase(), room, |layers| {
            plant::plant(fixture, size, layers)
        })?;
        let place = ground.place(&mold)?;
        let layers: Vec<_> = (0..fixture.layers)
            .map(|index| place.layer(index))
            .collect();
        let built = Arc::new(tree::take_stock(&layers)?);
        place.clear()?;
        self.built
            .insert(fixture, (mold.clone(), Arc::clone(&built)));
        Ok((mold, built))
    }

    /// The archive of source code.
    pub(crate) fn archive(&mut self, ground: &Ground) -> Result<Arc<Archive>> {
        if let Some(archive) = &self.archive {
            return Ok(Arc::clone(archive));
        }
        let files = self.sizes.archive;
        let name = format!("archive-{files}-v{VERSION}");
        let dir = ground.keep(&name, |partial| archive::pack(partial, files))?;
        let archive = Arc::new(archive::read(&dir)?);
        self.archive = Some(Arc::clone(&archive));
        Ok(archive)
    }
}
