//! What each operation does to the model, and how it fails.
use nix::errno::Errno;

use super::{Body, Dir, Id, Model, Move, Node, Op, ROOT};

type Res<T> = Result<T, Errno>;

impl Model {
    /// Does an operation, or says how it fails; a failed one changes nothing.
    ///
    /// # Errors
    /// The errno a program gets.
    pub fn apply(&mut self, op: &Op) -> Res<()> {
        match op {
            Op::Mkdir(path) => self.make(path, 0o755, Body::Dir(Dir::default())),
            Op::Create(path) => self.make(path, 0o644, Body::File(Vec::new())),
            Op::Symlink(path, target) => self.make(path, 0o777, Body::Symlink(target.clone())),
            Op::Link(old, new) => self.link(old, new),
            Op::Write(path, text) => self.write(path, text),
            Op::Append(path, text) => {
                let id = self.node(path)?;
                self.data(id, Errno::EINVAL)?.extend(text.as_bytes());
                Ok(())
            }
            Op::Truncate(path, size) => {
                let id = self.node(path)?;
                self.data(id, Errno::EISDIR)?.resize(*size, 0);
                Ok(())
            }
            Op::Chmod(path, mode) => {
                let id = self.node(path)?;
                self.chmod(id, *mode)
            }
            Op::Unlink(path) => self.unlink(path),
            Op::Rmdir(path) => self.rmdir(path),
            Op::Rename(how, from, to) => self.rename(*how, from, to),
            Op::Hold(slot, path) => {
                let id = self.node(path)?;
                self.held.insert(*slot, id);
                Ok(())
            }
            Op::Drop(slot) => self.held.remove(slot).map(drop).ok_or(Errno::EBADF),
            Op::Reopen => {
                self.held.clear();
                Ok(())
            }
        }
    }

    /// Whether the file system is never asked: the slot is empty, or the VFS refuses a rename of
    /// a directory into itself. Such an operation is no test of it.
    #[must_use]
    pub fn is_moot(&self, op: &Op) -> bool {
        let empty = |path: &String| self.slot(path).is_some_and(|s| !self.held.contains_key(&s));
        match op {
            Op::Drop(slot) => !self.held.contains_key(slot),
            Op::Reopen => false,
            Op::Link(a, b) => empty(a) || empty(b),
            Op::Rename(_, from, to) => empty(from) || empty(to) || self.is_loop(from, to),
            Op::Mkdir(p)
            | Op::Create(p)
            | Op::Symlink(p, _)
            | Op::Write(p, _)
            | Op::Append(p, _)
            | Op::Truncate(p, _)
            | Op::Chmod(p, _)
            | Op::Unlink(p)
            | Op::Rmdir(p)
            | Op::Hold(_, p) => empty(p),
        }
    }

    fn slot(&self, path: &str) -> Option<u8> {
        let (start, _) = path.split_once('/').unwrap_or((path, ""));
        start.strip_prefix('@')?.parse().ok()
    }

    /// Whether one end of a rename lies within the other.
    fn is_loop(&self, from: &str, to: &str) -> bool {
        let (Ok((from_dir, _)), Ok((to_dir, _))) = (self.parent(from), self.parent(to)) else {
            return false;
        };
        let below = |path: &str, dir: Id| self.node(path).is_ok_and(|id| self.contains(id, dir));
        below(from, to_dir) || below(to, from_dir)
    }

    /// Whether `dir` is `id` or lies below it.
    fn contains(&self, id: Id, dir: Id) -> bool {
        let mut found = id == dir;
        self.walk(id, "", &mut |_, below| found |= below == dir);
        found
    }

    fn node(&self, path: &str) -> Res<Id> {
        let mut parts = path.split('/');
        let start = parts.next().unwrap_or_default();
        let mut at = if start.is_empty() {
            ROOT
        } else {
            let slot = self.slot(start).and_then(|s| self.held.get(&s));
            *slot.ok_or(Errno::EBADF)?
        };
        for part in parts.filter(|p| !p.is_empty()) {
            let dir = self.dir(at).ok_or(Errno::ENOTDIR)?;
            at = *dir.names.get(part).ok_or(Errno::ENOENT)?;
        }
        Ok(at)
    }

    fn parent<'p>(&self, path: &'p str) -> Res<(Id, &'p str)> {
        let (dir, name) = path.rsplit_once('/').ok_or(Errno::EINVAL)?;
        let id = self.node(dir)?;
        self.dir(id).ok_or(Errno::ENOTDIR)?;
        Ok((id, name))
    }

    /// A parent that can take names, and whether it has this one.
    fn vacancy<'p>(&self, path: &'p str) -> Res<(Id, &'p str)> {
        let (id, name) = self.parent(path)?;
        let dir = self.dir(id).ok_or(Errno::ENOTDIR)?;
        if dir.removed {
            return Err(Errno::ENOENT);
        }
        if dir.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        Ok((id, name))
    }

    fn names(&mut self, dir: Id) -> &mut std::collections::BTreeMap<String, Id> {
        match &mut self.nodes[dir].body {
            Body::Dir(dir) => &mut dir.names,
            _ => unreachable!("a parent is a directory"),
        }
    }

    fn make(&mut self, path: &str, mode: u32, body: Body) -> Res<()> {
        let (dir, name) = self.vacancy(path)?;
        self.nodes.push(Node { mode, body });
        let id = self.nodes.len() - 1;
        self.names(dir).insert(name.to_owned(), id);
        Ok(())
    }

    fn link(&mut self, old: &str, new: &str) -> Res<()> {
        let id = self.node(old)?;
        let parent = self.parent(new)?;
        if self.dir(id).is_some() {
            return Err(Errno::EPERM);
        }
        if self.dir(parent.0).is_some_and(|d| d.removed) || self.links(id) == 0 {
            return Err(Errno::ENOENT);
        }
        let (dir, name) = self.vacancy(new)?;
        self.names(dir).insert(name.to_owned(), id);
        Ok(())
    }

    fn write(&mut self, path: &str, text: &str) -> Res<()> {
        let id = match self.node(path) {
            Err(Errno::ENOENT) => {
                self.make(path, 0o644, Body::File(Vec::new()))?;
                self.node(path)?
            }
            other => other?,
        };
        *self.data(id, Errno::EISDIR)? = text.as_bytes().to_vec();
        Ok(())
    }

    /// The data of a file; `for_dir` is how a directory refuses.
    fn data(&mut self, id: Id, for_dir: Errno) -> Res<&mut Vec<u8>> {
        match &mut self.nodes[id].body {
            Body::File(data) => Ok(data),
            Body::Dir(_) => Err(for_dir),
            Body::Symlink(_) => Err(Errno::EINVAL),
        }
    }

    fn chmod(&mut self, id: Id, mode: u32) -> Res<()> {
        if let Body::Symlink(_) = self.nodes[id].body {
            return Err(Errno::EOPNOTSUPP);
        }
        self.nodes[id].mode = mode;
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Res<()> {
        let (dir, name) = self.parent(path)?;
        let id = self.node(path)?;
        if self.dir(id).is_some() {
            return Err(Errno::EISDIR);
        }
        self.names(dir).remove(name);
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Res<()> {
        let (dir, name) = self.parent(path)?;
        let id = self.node(path)?;
        self.remove_empty(id)?;
        self.names(dir).remove(name);
        Ok(())
    }

    fn remove_empty(&mut self, id: Id) -> Res<()> {
        match &mut self.nodes[id].body {
            Body::Dir(dir) if dir.names.is_empty() => dir.removed = true,
            Body::Dir(_) => return Err(Errno::ENOTEMPTY),
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(())
    }

    fn rename(&mut self, how: Move, from: &str, to: &str) -> Res<()> {
        let (from_dir, name) = self.parent(from)?;
        let (to_dir, new_name) = self.parent(to)?;
        let old = self.node(from)?;
        let new = self.node(to).ok();
        if new == Some(old) {
            return Ok(());
        }
        let is_dir = |id: Id| self.dir(id).is_some();
        match new {
            None if how == Move::Exchange => return Err(Errno::ENOENT),
            Some(_) if how == Move::NoReplace => return Err(Errno::EEXIST),
            Some(new) if how == Move::Plain && is_dir(old) && !is_dir(new) => {
                return Err(Errno::ENOTDIR);
            }
            Some(new) if how == Move::Plain && !is_dir(old) && is_dir(new) => {
                return Err(Errno::EISDIR);
            }
            _ => {}
        }
        self.may_move(old)?;
        if let (Some(new), Move::Exchange) = (new, how) {
            self.may_move(new)?;
            self.names(from_dir).insert(name.to_owned(), new);
            self.names(to_dir).insert(new_name.to_owned(), old);
            return Ok(());
        }
        if self.dir(to_dir).is_some_and(|d| d.removed) {
            return Err(Errno::ENOENT);
        }
        if let Some(new) = new.filter(|n| self.dir(*n).is_some()) {
            self.remove_empty(new)?;
        }
        self.names(from_dir).remove(name);
        self.names(to_dir).insert(new_name.to_owned(), old);
        Ok(())
    }

    /// A directory with a lower part needs a redirect to move.
    fn may_move(&self, id: Id) -> Res<()> {
        match self.dir(id) {
            Some(dir) if dir.lower.is_some() && !self.redirects => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }
}
