//! What the generator of steps believes the mounted tree to be, and the paths it picks from that.

use std::collections::VecDeque;

use super::gen_stack::name;
use super::ops::{Op, Step};
use super::rng::Rng;
use super::side::{HANDLES, MAPS};
use super::text::Bytes;

/// What the generator believes an open handle to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Slot {
    Empty,
    File,
    Dir,
}

/// Makes one step after the other and learns from what became of them.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(super) rng: Rng,
    /// Paths that may exist, and whether they were directories when they came.
    pub(super) known: Vec<(Bytes, bool)>,
    /// Paths that have an attribute of this name.
    pub(super) dressed: Vec<(Bytes, Bytes)>,
    pub(super) slots: [Slot; HANDLES],
    pub(super) maps: [bool; MAPS],
    /// Whether steps that need two mounts are wanted (not while a layer is being made).
    pub(super) remounts: bool,
    /// Whether the layers are on a disk file system, not on tmpfs.
    pub(super) disk: bool,
    /// Whether files are made append-only and immutable.
    pub(super) locks: bool,
    /// Where threads that work at once mostly meet.
    pub(super) focus: Option<Bytes>,
    /// Steps that come next, in this order.
    pub(super) pending: VecDeque<Step>,
}

impl Generator {
    pub(super) fn learn_path(&mut self, path: &Bytes, dir: bool) {
        if !path.0.contains(&b'@') && path.0.len() < 1500 {
            match self.known.iter_mut().find(|(known, _)| known == path) {
                Some(found) => found.1 |= dir,
                None => self.known.push((path.clone(), dir)),
            }
        }
    }

    /// What became of a step.
    pub(crate) fn learn(&mut self, step: &Step, worked: bool) {
        if !worked {
            return;
        }
        match &step.op {
            Op::Together { lanes } => {
                for step in lanes.iter().flatten() {
                    self.learn(step, true);
                }
            }
            Op::Open { h, path, flags, .. } => {
                let dir = self.known.iter().any(|(known, dir)| known == path && *dir);
                let dir = dir || flags.contains("DIRECTORY");
                self.slots[usize::from(*h)] = if dir { Slot::Dir } else { Slot::File };
                self.learn_path(path, dir);
            }
            Op::Close { h } => self.slots[usize::from(*h)] = Slot::Empty,
            Op::Map { m, .. } => self.maps[usize::from(*m)] = true,
            Op::Unmap { m } => self.maps[usize::from(*m)] = false,
            Op::Mkdir { path, .. } => self.learn_path(path, true),
            Op::Symlink { path, .. } | Op::Mknod { path, .. } | Op::Link { to: path, .. } => {
                self.learn_path(path, false);
            }
            Op::Rename { from, to, .. } => self.moved(from, to),
            Op::Setxattr { path, name, .. } => self.dressed.push((path.clone(), name.clone())),
            Op::Remount | Op::Swap => {
                self.slots = [Slot::Empty; HANDLES];
                self.maps = [false; MAPS];
            }
            _ => {}
        }
    }

    /// Everything below a renamed path is now also known below its new name.
    pub(super) fn moved(&mut self, from: &Bytes, to: &Bytes) {
        let below = [from.0.as_slice(), b"/"].concat();
        let moved: Vec<_> = self
            .known
            .iter()
            .filter(|(path, _)| path == from || path.0.starts_with(&below))
            .map(|(path, dir)| {
                (
                    Bytes([to.0.as_slice(), &path.0[from.0.len()..]].concat()),
                    *dir,
                )
            })
            .collect();
        for (path, dir) in moved {
            self.learn_path(&path, dir);
        }
    }

    pub(super) fn known_where(&mut self, dir: Option<bool>) -> Bytes {
        let near = self.focus.clone().filter(|_| self.rng.chance(70));
        let near = near.unwrap_or_default();
        let fitting: Vec<_> = self
            .known
            .iter()
            .filter(|(_, is_dir)| dir.is_none_or(|dir| dir == *is_dir))
            .filter(|(path, _)| path.0.starts_with(&near.0))
            .collect();
        let place = self.rng.index(fitting.len());
        fitting
            .get(place)
            .map_or_else(Bytes::default, |(path, _)| path.clone())
    }

    /// A path that probably exists.
    pub(super) fn existing(&mut self) -> Bytes {
        match self.rng.below(100) {
            0..=84 => self.known_where(None),
            85..=92 => self.fresh(),
            _ => self.strange(),
        }
    }

    /// A path of a directory, probably.
    pub(super) fn directory(&mut self) -> Bytes {
        if self.rng.chance(92) {
            self.known_where(Some(true))
        } else {
            self.existing()
        }
    }

    /// A path of something else, probably.
    pub(super) fn file(&mut self) -> Bytes {
        if self.rng.chance(92) {
            self.known_where(Some(false))
        } else {
            self.existing()
        }
    }

    /// A name in a directory that may or may not be taken.
    pub(super) fn fresh(&mut self) -> Bytes {
        let wants_dir = self.rng.chance(30);
        let name = match self.rng.below(10) {
            0..=5 => name(&mut self.rng, wants_dir),
            n => format!("n{n}").into_bytes(),
        };
        if self.rng.chance(8)
            && let Some(slot) = self.slot(Slot::Dir)
        {
            return Bytes::from(format!("@{slot}").as_str()).join(&name);
        }
        self.known_where(Some(true)).join(&name)
    }

    /// A path that file systems stumble over.
    pub(super) fn strange(&mut self) -> Bytes {
        let base = self.known_where(None);
        match self.rng.below(8) {
            0 => base.join(b"below"),
            1 => Bytes([base.0.as_slice(), b"/"].concat()),
            2 => base.join(b"."),
            3 => base.join(&[b'L'; 256]),
            4 => base.join(&[b'L'; 255]),
            5 => {
                let dir = self.known_where(Some(true));
                let name = name(&mut self.rng, false);
                if dir.0.is_empty() {
                    dir.join(&name)
                } else {
                    dir.join(b"..").join(&name)
                }
            }
            6 => Bytes::default(),
            _ => base.join(&name(&mut self.rng, false)),
        }
    }

    pub(super) fn slot(&mut self, kind: Slot) -> Option<u8> {
        let fitting: Vec<_> = (0..HANDLES).filter(|at| self.slots[*at] == kind).collect();
        (!fitting.is_empty()).then(|| *self.rng.pick(&fitting) as u8)
    }

    /// A path, or an open handle itself.
    pub(super) fn path_or_handle(&mut self) -> Bytes {
        let kind = *self.rng.pick(&[Slot::File, Slot::File, Slot::Dir]);
        match self.slot(kind) {
            Some(slot) if self.rng.chance(25) => Bytes::from(format!("@{slot}").as_str()),
            _ => self.existing(),
        }
    }
}
