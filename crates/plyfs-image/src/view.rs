//! What a stack of layer directories shows, read without mounting it.
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use plyfs_format::aufs::{self, AufsName};
use plyfs_format::names::XattrNamespace;
use plyfs_format::opaque::Opaque;
use plyfs_format::redirect::Redirect;
use plyfs_layer::{Probe, dir_marks, file_marks, probe};
use plyfs_sys::stat::{Kind, Stat, stat_fd, stat_opt};
use plyfs_sys::{At, Errno, Name, NameBuf, Result, SysError, dir, open};

/// The roots of a stack, topmost first.
#[derive(Debug)]
pub struct Layers(Vec<OwnedFd>);

/// A directory of one layer.
#[derive(Debug)]
struct Part {
    layer: usize,
    fd: Rc<OwnedFd>,
    marks: Marks,
}

/// How a directory of a layer relates to the layers below.
#[derive(Debug)]
struct Marks {
    opaque: bool,
    /// Whiteouts may be empty files with an xattr.
    xwhiteouts: bool,
    redirect: Option<Redirect>,
}

/// A merged directory; its topmost part decides what its attributes are.
#[derive(Debug)]
pub struct Dir {
    parts: Vec<Part>,
    /// Attributes of the topmost part.
    pub stat: Stat,
}

/// Anything but a directory.
#[derive(Debug)]
pub struct Leaf {
    /// The layer it is in.
    pub layer: usize,
    /// Its attributes.
    pub stat: Stat,
    dir: Rc<OwnedFd>,
    name: NameBuf,
}

impl Leaf {
    /// Where it is, for a system call.
    #[must_use]
    pub fn at(&self) -> At<'_> {
        At::entry(self.dir.as_fd(), &self.name)
    }
}

/// What a name shows.
#[derive(Debug)]
pub enum Node {
    /// Anything but a directory.
    Leaf(Leaf),
    /// A directory.
    Dir(Dir),
}

/// Where the layers below are asked.
enum Wanted {
    Name(NameBuf),
    Path(Vec<NameBuf>),
}

/// What one layer answers.
enum Answer {
    Absent,
    Whiteout,
    Leaf(Leaf),
    Dir(Part),
}

impl Layers {
    /// Opens the directories.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn open<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let fds = paths.into_iter().map(open::open_dir_path);
        Ok(Self(fds.collect::<Result<_>>()?))
    }

    /// The merged root; None for a stack without layers.
    pub fn root(&self) -> Result<Option<Dir>> {
        let mut parts = Vec::new();
        for (layer, fd) in self.0.iter().enumerate() {
            let fd = Rc::new(open::dup(fd)?);
            let marks = Marks::read(&fd)?;
            let opaque = marks.opaque;
            parts.push(Part { layer, fd, marks });
            if opaque {
                break;
            }
        }
        Dir::new(parts)
    }

    /// What the path shows in one layer alone.
    fn ask_path(&self, layer: usize, path: &[NameBuf]) -> Result<Answer> {
        let Some((last, dirs)) = path.split_last() else {
            return Ok(Answer::Absent);
        };
        let fd = Rc::new(open::dup(&self.0[layer])?);
        let mut at = Part {
            layer,
            marks: Marks::read(&fd)?,
            fd,
        };
        for name in dirs {
            match at.ask(name)? {
                Answer::Dir(part) => at = part,
                Answer::Whiteout | Answer::Leaf(_) => return Ok(Answer::Whiteout),
                Answer::Absent => return Ok(Answer::Absent),
            }
        }
        at.ask(last)
    }
}

impl Marks {
    fn read(fd: &OwnedFd) -> Result<Self> {
        let at = At::object(fd);
        let mut marks = dir_marks(at, XattrNamespace::Trusted)?;
        if marks.redirect.is_none() {
            marks.redirect = dir_marks(at, XattrNamespace::User)?.redirect;
        }
        let aufs_marker = stat_opt(At::entry(fd.as_fd(), Name::new(aufs::OPAQUE_MARKER)?))?;
        Ok(Self {
            opaque: marks.opaque == Opaque::Opaque || aufs_marker.is_some(),
            xwhiteouts: marks.opaque == Opaque::XWhiteouts,
            redirect: marks.redirect,
        })
    }
}

impl Part {
    fn ask(&self, name: &Name) -> Result<Answer> {
        match self.probe(name)? {
            Probe::Absent if self.is_hidden_by_aufs(name)? => return Ok(Answer::Whiteout),
            Probe::Absent => return Ok(Answer::Absent),
            Probe::Whiteout => return Ok(Answer::Whiteout),
            Probe::Found(stat) if stat.kind() == Kind::Dir => {}
            Probe::Found(stat) => {
                return Ok(Answer::Leaf(Leaf {
                    layer: self.layer,
                    stat,
                    dir: Rc::clone(&self.fd),
                    name: name.to_owned(),
                }));
            }
        }
        let fd = Rc::new(open::open_dir(self.fd.as_fd(), name)?);
        let mut marks = Marks::read(&fd)?;
        marks.opaque |= self.is_hidden_by_aufs(name)?;
        Ok(Answer::Dir(Part {
            layer: self.layer,
            fd,
            marks,
        }))
    }

    fn probe(&self, name: &Name) -> Result<Probe> {
        let wanted = [XattrNamespace::Trusted, XattrNamespace::User];
        let mut answer = probe(self.fd.as_fd(), name, wanted[0], self.marks.xwhiteouts)?;
        if self.marks.xwhiteouts && matches!(answer, Probe::Found(_)) {
            answer = probe(self.fd.as_fd(), name, wanted[1], true)?;
        }
        Ok(answer)
    }

    fn is_hidden_by_aufs(&self, name: &Name) -> Result<bool> {
        let Some(whiteout) = aufs::whiteout_name(name.as_bytes()) else {
            return Ok(false);
        };
        Ok(stat_opt(At::entry(self.fd.as_fd(), Name::new(&whiteout)?))?.is_some())
    }

    /// All names it decides about, deleted ones included.
    fn names(&self, into: &mut BTreeSet<NameBuf>) -> Result<()> {
        let list = open::open_dir_for_list(self.fd.as_fd())?;
        dir::for_each(list.as_fd(), |entry| {
            let name = match aufs::classify(entry.name) {
                AufsName::Plain => entry.name,
                AufsName::Whiteout(hidden) => hidden,
                AufsName::OpaqueMarker | AufsName::Meta => return Ok::<_, SysError>(()),
            };
            into.insert(Name::new(name)?.to_owned());
            Ok(())
        })
    }
}

impl Dir {
    fn new(parts: Vec<Part>) -> Result<Option<Self>> {
        match parts.first() {
            None => Ok(None),
            Some(top) => {
                let stat = stat_fd(top.fd.as_fd())?;
                Ok(Some(Self { parts, stat }))
            }
        }
    }

    /// The layer of the topmost part.
    pub fn layer(&self) -> usize {
        self.parts.first().map_or(0, |p| p.layer)
    }

    /// Whether its topmost part has cut the tie to what the layers below show at its path.
    pub fn is_cut(&self) -> bool {
        self.parts
            .first()
            .is_some_and(|p| p.marks.opaque || p.marks.redirect.is_some())
    }

    /// The topmost part, for its extended attributes.
    pub fn top(&self) -> Option<At<'_>> {
        self.parts.first().map(|p| At::object(&*p.fd))
    }

    /// Names its topmost part decides about, deleted ones included.
    pub fn top_names(&self) -> Result<BTreeSet<NameBuf>> {
        let mut names = BTreeSet::new();
        self.parts.first().map_or(Ok(()), |p| p.names(&mut names))?;
        Ok(names)
    }

    /// Names any part decides about, deleted ones included.
    pub fn all_names(&self) -> Result<BTreeSet<NameBuf>> {
        let mut names = BTreeSet::new();
        self.parts.iter().try_for_each(|p| p.names(&mut names))?;
        Ok(names)
    }

    /// Whether the topmost part says that the name is deleted.
    pub fn top_deletes(&self, name: &Name) -> Result<bool> {
        match self.parts.first() {
            Some(top) => Ok(matches!(top.ask(name)?, Answer::Whiteout)),
            None => Ok(false),
        }
    }

    /// What one layer says; None where nobody would ask it.
    fn ask(&self, layers: &Layers, layer: usize, wanted: &Wanted) -> Result<Option<Answer>> {
        Ok(match wanted {
            Wanted::Path(path) => Some(layers.ask_path(layer, path)?),
            Wanted::Name(name) => match self.parts.iter().find(|p| p.layer == layer) {
                Some(part) => Some(part.ask(name)?),
                None => None,
            },
        })
    }

    /// The file that has the data of the regular file `name`: itself, or for one that has only
    /// metadata (metacopy) one of a layer below.
    ///
    /// # Errors
    /// ENODATA where no layer has the data; EIO and the like.
    pub fn data(&self, layers: &Layers, name: &Name, ns: XattrNamespace) -> Result<Leaf> {
        let mut wanted = Wanted::Name(name.to_owned());
        for layer in 0..layers.0.len() {
            let Some(Answer::Leaf(leaf)) = self.ask(layers, layer, &wanted)? else {
                continue;
            };
            let marks = file_marks(leaf.at(), ns)?;
            if !marks.metacopy {
                return Ok(leaf);
            }
            if let Some(redirect) = &marks.redirect {
                wanted = wanted.redirected(redirect)?;
            }
        }
        Err(SysError::on(
            "find data of",
            name.as_bytes(),
            Errno::ENODATA,
        ))
    }

    /// What the name shows, by the rules of lookup: a directory merges with those of the layers
    /// below until one is opaque, anything else ends the search.
    pub fn child(&self, layers: &Layers, name: &Name) -> Result<Option<Node>> {
        let mut wanted = Wanted::Name(name.to_owned());
        let mut parts: Vec<Part> = Vec::new();
        for layer in 0..layers.0.len() {
            let Some(answer) = self.ask(layers, layer, &wanted)? else {
                continue;
            };
            match answer {
                Answer::Absent => {}
                Answer::Leaf(leaf) if parts.is_empty() => return Ok(Some(Node::Leaf(leaf))),
                Answer::Whiteout | Answer::Leaf(_) => break,
                Answer::Dir(part) => {
                    let opaque = part.marks.opaque;
                    if let Some(redirect) = &part.marks.redirect {
                        wanted = wanted.redirected(redirect)?;
                    }
                    parts.push(part);
                    if opaque {
                        break;
                    }
                }
            }
        }
        Ok(Dir::new(parts)?.map(Node::Dir))
    }
}

impl Wanted {
    fn redirected(self, redirect: &Redirect) -> Result<Self> {
        let owned = |name: &Vec<u8>| Ok::<_, SysError>(Name::new(name)?.to_owned());
        match (redirect, self) {
            (Redirect::Absolute(path), _) => {
                Ok(Self::Path(path.iter().map(owned).collect::<Result<_>>()?))
            }
            (Redirect::Relative(name), Self::Name(_)) => Ok(Self::Name(owned(name)?)),
            (Redirect::Relative(name), Self::Path(mut path)) => {
                path.pop();
                path.push(owned(name)?);
                Ok(Self::Path(path))
            }
        }
    }
}
