//! Stacks by ChainID: what a pile of layers needs that no single layer can know.
//!
//! A layer's archive may have `tmp/x` and no entry for `tmp`, or none for its root. The unpacked
//! layer must have such a directory, and as the topmost one it would decide what mode and owner
//! `tmp` has in the merged view, though the archive says nothing about it. The layer is shared by
//! images in which `tmp` differs, so it cannot be corrected itself. Instead the stack gets one
//! more directory on top, that has nothing but these directories, each with the attributes of the
//! topmost layer that really says something about it.
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use plyfs_format::names::XattrNamespace;
use plyfs_sys::attr::{self, SetTime};
use plyfs_sys::stat::{Kind, Stat, stat_fd, stat_opt};
use plyfs_sys::xattr::{self, SetFlags};
use plyfs_sys::{At, Errno, Name, SysError, beneath, make, open};
use serde::{Deserialize, Serialize};

use super::{LayerRecord, Store, files};
use crate::digest::{self, Digest};
use crate::error::{ImageError, Result};

/// As many lower layers as a mount takes.
const MAX_LOWERS: usize = 500;

#[derive(Debug, Serialize, Deserialize)]
struct StackRecord {
    diff_ids: Vec<Digest>,
}

struct Opened {
    fd: OwnedFd,
    implicit: BTreeSet<Vec<u8>>,
}

impl Store {
    /// The lower directories of a stack, topmost first, ready to be mounted.
    ///
    /// # Errors
    /// When a layer is not here.
    pub fn lower_dirs(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut dirs = Vec::new();
        if let Some(chain) = digest::chain_id(diff_ids)? {
            let top = self.place("stacks", &chain)?.join("fs");
            if top.is_dir() {
                dirs.push(top);
            }
        }
        for diff_id in diff_ids.iter().rev() {
            let dir = self.layer_dir(diff_id)?;
            // An empty layer may be in an image many times; the topmost one is enough.
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        Ok(dirs)
    }

    /// Gives a stack its name, with a directory on top where it needs one.
    pub(super) fn publish_stack(&self, diff_ids: &[Digest]) -> Result<()> {
        let Some(chain) = digest::chain_id(diff_ids)? else {
            return Ok(());
        };
        let to = self.place("stacks", &chain)?;
        if to.join("stack.json").exists() {
            return Ok(());
        }
        let staging = self.staging()?;
        let dir = staging.path().join("stack");
        let failed = |e| ImageError::file("making", &dir, e);
        std::fs::create_dir(&dir).map_err(failed)?;
        let record = StackRecord {
            diff_ids: diff_ids.to_vec(),
        };
        self.write_json(&dir.join("stack.json"), &record)?;
        let top = dir.join("fs");
        std::fs::create_dir(&top).map_err(failed)?;
        let mut layers = Vec::new();
        for diff_id in diff_ids.iter().rev() {
            layers.push(self.open_layer(diff_id)?);
        }
        let root = open::open_dir_path(&top)?;
        let needed = fill(root.as_fd(), &layers, self.namespace())?;
        if !needed || layers.len() >= MAX_LOWERS {
            std::fs::remove_dir_all(&top).map_err(failed)?;
        }
        if needed && layers.len() >= MAX_LOWERS {
            tracing::warn!("the stack {chain} is too deep for a directory that corrects modes");
        }
        files::publish_dir(&dir, &to)?;
        files::clear(staging)
    }

    fn open_layer(&self, diff_id: &Digest) -> Result<Opened> {
        let LayerRecord { implicit, .. } = self.layer(diff_id)?;
        Ok(Opened {
            fd: open::open_dir_path(&self.layer_dir(diff_id)?)?,
            implicit: implicit.iter().map(|p| crate::escape::decode(p)).collect(),
        })
    }
}

/// Makes the directories whose attributes no layer on top says; whether there are any.
fn fill(root: BorrowedFd<'_>, layers: &[Opened], ns: XattrNamespace) -> Result<bool> {
    let mut wrong: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut truth: HashMap<Vec<u8>, OwnedFd> = HashMap::new();
    let all: BTreeSet<&Vec<u8>> = layers.iter().flat_map(|l| &l.implicit).collect();
    for path in all {
        let Some((shown, said)) = shown_and_said(layers, path, ns)? else {
            continue;
        };
        if same(&shown, &said)? {
            continue;
        }
        // The way to it is made of directories that must be right too.
        let mut way = path.as_slice();
        loop {
            wrong.insert(way.to_vec());
            if way.is_empty() {
                break;
            }
            way = parent(way);
        }
    }
    for path in &wrong {
        if let Some((shown, said)) = shown_and_said(layers, path, ns)? {
            truth.insert(path.clone(), said.unwrap_or(shown));
        }
    }
    for path in &wrong {
        make_like(root, path, &truth)?;
    }
    // From the deepest up: making one changes the time of its parent.
    for path in wrong.iter().rev() {
        if let Some(from) = truth.get(path) {
            let at = open_at(root, path)?;
            let stat = stat_fd(from.as_fd())?;
            let times = (SetTime::To(stat.atime), SetTime::To(stat.mtime));
            attr::utimens(At::object(&at), times.0, times.1)?;
        }
    }
    Ok(!wrong.is_empty())
}

fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|b| *b == b'/');
    &path[..slash.unwrap_or(0)]
}

fn open_at(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    Ok(if path.is_empty() {
        open::dup(&root)?
    } else {
        beneath::open_dir_beneath(root, path)?
    })
}

/// The topmost directory that a path shows, and the topmost one below it that an archive says
/// something about. None where the path shows no directory.
fn shown_and_said(
    layers: &[Opened],
    path: &[u8],
    ns: XattrNamespace,
) -> Result<Option<(OwnedFd, Option<OwnedFd>)>> {
    let mut shown = None;
    for layer in layers {
        let (found, ends) = find(layer, path, ns)?;
        let Some(fd) = found else {
            if ends {
                break;
            }
            continue;
        };
        if !layer.implicit.contains(path) {
            return Ok(Some(match shown {
                None => (fd, None),
                Some(shown) => (shown, Some(fd)),
            }));
        }
        if shown.is_none() {
            shown = Some(fd);
        }
        if ends {
            break;
        }
    }
    Ok(shown.map(|s| (s, None)))
}

/// What a path is in one layer, and whether it hides what is below.
fn find(layer: &Opened, path: &[u8], ns: XattrNamespace) -> Result<(Option<OwnedFd>, bool)> {
    let mut at = open::dup(&layer.fd)?;
    let mut ends = is_opaque(&at, ns)?;
    for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        let name = Name::new(part)?;
        match stat_opt(At::entry(at.as_fd(), name))? {
            None => return Ok((None, ends)),
            Some(s) if s.kind() != Kind::Dir => return Ok((None, true)),
            Some(_) => at = open::open_dir(at.as_fd(), name)?,
        }
        ends |= is_opaque(&at, ns)?;
    }
    Ok((Some(at), ends))
}

fn is_opaque(dir: &OwnedFd, ns: XattrNamespace) -> Result<bool> {
    let mark = xattr::get(At::object(dir), ns.opaque().as_bytes())?;
    Ok(mark.as_deref() == Some(plyfs_format::opaque::OPAQUE_VALUE))
}

fn same(shown: &OwnedFd, said: &Option<OwnedFd>) -> Result<bool> {
    let Some(said) = said else { return Ok(true) };
    let facts = |s: Stat| (s.mode, s.uid, s.gid, s.mtime);
    let (a, b) = (stat_fd(shown.as_fd())?, stat_fd(said.as_fd())?);
    Ok(facts(a) == facts(b) && xattrs(shown)? == xattrs(said)?)
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs(dir: &OwnedFd) -> Result<Xattrs> {
    let at = At::object(dir);
    let mut all = Vec::new();
    for name in xattr::list(at)? {
        let private = [XattrNamespace::Trusted, XattrNamespace::User]
            .iter()
            .any(|ns| ns.is_private(&name));
        if private {
            continue;
        }
        if let Some(value) = xattr::get(at, &name)? {
            all.push((name, value));
        }
    }
    all.sort();
    Ok(all)
}

fn make_like(root: BorrowedFd<'_>, path: &[u8], truth: &HashMap<Vec<u8>, OwnedFd>) -> Result<()> {
    let Some(from) = truth.get(path) else {
        return Ok(());
    };
    if !path.is_empty() {
        let dir = open_at(root, parent(path))?;
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        make::mkdir(dir.as_fd(), Name::new(name)?, 0o700)?;
    }
    let made = open_at(root, path)?;
    let at = At::object(&made);
    let stat = stat_fd(from.as_fd())?;
    match attr::chown(at, Some(stat.uid), Some(stat.gid)) {
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EINVAL) => {}
        other => other?,
    }
    for (name, value) in xattrs(from)? {
        set_xattr(at, &name, &value)?;
    }
    attr::chmod(at, stat.perm())?;
    Ok(())
}

fn set_xattr(at: At<'_>, name: &[u8], value: &[u8]) -> std::result::Result<(), SysError> {
    match xattr::set(at, name, value, SetFlags::empty()) {
        Err(e) if matches!(e.errno(), Errno::EOPNOTSUPP | Errno::EPERM) => Ok(()),
        other => other,
    }
}
