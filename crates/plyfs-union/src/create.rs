//! Making new objects: one path for files, directories, symbolic links, nodes and hard links.
//!
//! Where nothing is in the way the object is made in place, under the caller's ids and umask, so
//! that its first state is its final one. Over a whiteout, or where the caller's ids cannot do
//! it, it is staged with everything final and published in one step (C1).
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use plyfs_format::acl::{self, Acl};
use plyfs_format::nlink::Base;
use plyfs_layer::{LayerIdx, Obj, Probe, Staged, probe};
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::thread::{self, ActAs};
use plyfs_sys::{At, Errno, Name, SysError, make, open, stat, xattr};

use crate::copy_up::DataNeed;
use crate::inode::{Inode, Key, Link, NodeId, Parts};
use crate::io::SUID_SGID;
use crate::lookup::Entry;
use crate::lowers::LowerObjs;
use crate::owner::NewStat;
use crate::protect::own_flags;
use crate::sabotage::sabotaged;
use crate::{Caller, Error, Result, Union};

/// What to make.
#[derive(Debug, Clone, Copy)]
pub enum Make<'a> {
    /// A directory with these permission bits.
    Dir(u32),
    /// A regular file, device, fifo or socket: mode with type, and device number.
    Node(u32, (u32, u32)),
    /// A symbolic link that says this.
    Symlink(&'a [u8]),
}

impl Make<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::Dir(_) => Kind::Dir,
            Self::Node(mode, _) => Kind::from_mode(*mode),
            Self::Symlink(_) => Kind::Symlink,
        }
    }

    fn rdev(&self) -> (u32, u32) {
        match self {
            Self::Node(_, rdev) => *rdev,
            Self::Dir(_) | Self::Symlink(_) => (0, 0),
        }
    }

    fn perm(&self) -> u32 {
        match self {
            Self::Dir(mode) | Self::Node(mode, _) => mode & 0o7777,
            Self::Symlink(_) => 0o777,
        }
    }
}

/// What is at a name that is about to be given to something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// Nothing in the upper, and no lower shows the name.
    Free,
    /// A whiteout.
    Whiteout,
}

impl Union {
    /// Makes a new object.
    ///
    /// # Errors
    /// EEXIST, ENOENT for a removed directory, EROFS, ENOSPC, EPERM for a whiteout, and the like.
    pub fn make(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        make: Make<'_>,
    ) -> Result<Entry> {
        let made = self.make_once(caller, parent, name, make);
        let kind = make.kind();
        self.or_made_before(made, parent, name, |node| node.kind == kind)
    }

    fn make_once(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        make: Make<'_>,
    ) -> Result<Entry> {
        let name = Name::new(name)?;
        if let Make::Node(mode, (0, 0)) = make
            && Kind::from_mode(mode) == Kind::Char
        {
            // A whiteout is not for users to make (`ovl_mknod()`).
            return Err(Error::NotPermitted);
        }
        let dir = self.inode(parent)?;
        self.may_add_name(&dir, name)?;
        self.copy_up_dir(&dir)?;
        let _names = dir.dir_state()?.names.write();
        let (dir_obj, vacancy) = self.vacancy(&dir, name)?;
        let fd = self.reach.dir_fd(&dir_obj)?;
        let file = match vacancy {
            Vacancy::Free => self.make_free(caller, &dir, fd.as_fd(), name, make)?,
            Vacancy::Whiteout => {
                self.make_staged(caller, &dir, name, make, vacancy)?;
                None
            }
        };
        dir.touch_names();
        self.new_entry(&dir, &dir_obj, name, file)
    }

    /// A directory that gets a new name needs an upper, and must not have been removed.
    pub(crate) fn copy_up_dir(&self, dir: &Arc<Inode>) -> Result<()> {
        self.writable()?;
        dir.live_dir()?;
        self.copy_up(dir, DataNeed::AttributesOnly)
    }

    /// Checks that `name` is free in `dir`, whose names the caller holds for writing.
    pub(crate) fn vacancy(&self, dir: &Arc<Inode>, name: &Name) -> Result<(Arc<Obj>, Vacancy)> {
        dir.live_dir()?;
        let obj = Arc::clone(dir.upper().ok_or(Error::ReadOnly)?);
        if !dir.has_lower() {
            // The call that makes the name finds out by itself whether it is free.
            return Ok((obj, Vacancy::Free));
        }
        let lower = self.lower_index(dir)?.has(name);
        if !lower {
            return Ok((obj, Vacancy::Free));
        }
        let fd = self.reach.dir_fd(&obj)?;
        match probe(fd.as_fd(), name, self.stack.ns, false)? {
            Probe::Whiteout => Ok((obj, Vacancy::Whiteout)),
            Probe::Absent if self.is_hidden_by_name(fd.as_fd(), name)? => Ok((obj, Vacancy::Free)),
            _ => Err(Error::Exists),
        }
    }

    fn make_free(
        &self,
        caller: &Caller,
        parent: &Arc<Inode>,
        dir: BorrowedFd<'_>,
        name: &Name,
        make: Make<'_>,
    ) -> Result<Option<OwnedFd>> {
        let made = match self.stored_ids(caller) {
            // Where marks say who owns what, nothing is final before it has its mark.
            _ if self.upper_has_marks() => Err(SysError::new("make in place", Errno::EPERM)),
            (Some(uid), Some(gid)) => make_in_place((uid, gid), caller.umask, dir, name, make),
            _ => Err(SysError::new("act as the caller", Errno::EPERM)),
        };
        let vacancy = match made {
            Ok(file) => return Ok(file),
            // Where no lower shows the name a whiteout may hide nothing.
            Err(e) if e.errno() == Errno::EEXIST => match probe(dir, name, self.stack.ns, false)? {
                Probe::Whiteout => Vacancy::Whiteout,
                _ => return Err(Error::Exists),
            },
            // The kernel has allowed the request; the caller's ids alone may not suffice here.
            Err(e) if matches!(e.errno(), Errno::EACCES | Errno::EPERM) => {
                match probe(dir, name, self.stack.ns, false)? {
                    Probe::Whiteout => Vacancy::Whiteout,
                    _ => Vacancy::Free,
                }
            }
            Err(e) => return Err(e.into()),
        };
        self.make_staged(caller, parent, name, make, vacancy)?;
        Ok(None)
    }

    fn make_staged(
        &self,
        caller: &Caller,
        parent: &Arc<Inode>,
        name: &Name,
        make: Make<'_>,
        vacancy: Vacancy,
    ) -> Result<()> {
        let work = &self.writable()?.upper.work;
        let staged = match make {
            Make::Dir(_) => work.stage_dir()?,
            Make::Node(mode, rdev) => {
                let (kind, rdev) = self.backing_kind(Kind::from_mode(mode), rdev);
                work.stage_node(kind | 0o600, rdev)?
            }
            Make::Symlink(target) => work.stage_symlink(target)?,
        };
        let fd = self.reach.dir_fd(parent.upper().ok_or(Error::ReadOnly)?)?;
        self.dress(caller, fd.as_fd(), &staged, make)?;
        let over = vacancy == Vacancy::Whiteout;
        if over && make.kind() == Kind::Dir && !sabotaged("no-opaque") {
            self.shut(staged.at(), parent, name)?;
        }
        self.publish(staged, fd.as_fd(), name, make.kind(), vacancy)
    }

    /// Publishes a staged object at a name that is free or has a whiteout.
    pub(crate) fn publish(
        &self,
        staged: Staged<'_>,
        dir: BorrowedFd<'_>,
        name: &Name,
        kind: Kind,
        vacancy: Vacancy,
    ) -> Result<()> {
        match vacancy {
            Vacancy::Free => drop(staged.publish_new(dir, name)?),
            Vacancy::Whiteout if kind == Kind::Dir => staged.publish_exchange(dir, name)?,
            Vacancy::Whiteout => drop(staged.publish_over(dir, name)?),
        }
        Ok(())
    }

    /// Gives a staged object the owner, mode and ACLs it would have been made with in place.
    fn dress(
        &self,
        caller: &Caller,
        dir: BorrowedFd<'_>,
        staged: &Staged<'_>,
        make: Make<'_>,
    ) -> Result<()> {
        let parent = stat::stat_fd(dir)?;
        let parent = self.stack.seen(LayerIdx::UPPER, At::object(&dir), parent)?;
        let kind = make.kind();
        let setgid = parent.mode & 0o2000 != 0;
        let (uid, gid) = self.stored_ids(caller);
        let mut mode = make.perm();
        let mut new = NewStat {
            kind,
            rdev: make.rdev(),
            uid,
            gid: if setgid { Some(parent.gid) } else { gid },
            perm: mode,
        };
        self.put_owner(staged.at(), &new)?;
        if kind == Kind::Symlink {
            return self.put_mode(staged.at(), &new);
        }
        let inherited = default_acl(dir)?.map(|d| acl::inherit(&d, mode, kind == Kind::Dir));
        match &inherited {
            Some(i) => mode = i.mode & 0o7777,
            None => mode &= !caller.umask,
        }
        if setgid && kind == Kind::Dir {
            mode |= 0o2000;
        }
        if let Some(i) = inherited {
            for (name, acl) in [
                (acl::ACCESS_XATTR, i.access),
                (acl::DEFAULT_XATTR, i.default),
            ] {
                if let Some(acl) = acl {
                    let value = acl.encode();
                    xattr::set(
                        staged.at(),
                        name.as_bytes(),
                        &value,
                        xattr::SetFlags::empty(),
                    )?;
                }
            }
        }
        new.perm = mode;
        self.put_mode(staged.at(), &new)
    }

    /// The inode of an object that has just been made in the upper; a file made in place is open.
    fn new_entry(
        &self,
        dir: &Arc<Inode>,
        dir_obj: &Arc<Obj>,
        name: &Name,
        file: Option<OwnedFd>,
    ) -> Result<Entry> {
        let found = match &file {
            Some(file) => stat::stat_fd(file.as_fd())?,
            None => {
                let fd = self.reach.dir_fd(dir_obj)?;
                let at = At::entry(fd.as_fd(), name);
                self.stack.seen(LayerIdx::UPPER, at, stat::stat(at)?)?
            }
        };
        let node = self.intern_new(dir, dir_obj, name, &found)?;
        // What has just been made carries no mark, and a write takes nothing off it but suid and sgid.
        node.protection.set(own_flags(&found));
        if let Some(file) = file {
            let file = self.files.add(node.id, file, LayerIdx::UPPER, true);
            file.set_plain(found.perm() & SUID_SGID == 0);
        }
        let attr = self.show(&node, &found)?;
        Ok(Entry { node, attr })
    }

    fn intern_new(
        &self,
        dir: &Arc<Inode>,
        dir_obj: &Arc<Obj>,
        name: &Name,
        found: &Stat,
    ) -> Result<crate::InodeRef> {
        let layer = plyfs_layer::LayerIdx::UPPER;
        let own_name = name.to_owned();
        let link: Option<Link> = (found.kind() == Kind::Dir)
            .then(|| self.link_to(dir, own_name.clone()))
            .transpose()?;
        let obj = self.upper_obj(found, dir_obj, own_name);
        let key = Key::Obj(layer, found.id());
        Ok(self.table.intern(&key, Some((dir, name)), || Parts {
            kind: found.kind(),
            st_ino: self.stack.st_ino(found.id()),
            upper: Some(obj),
            lowers: LowerObjs::new(),
            metacopy: false,
            impure: false,
            link,
            index: None,
        }))
    }

    /// Makes `name` in `parent` a further hard link of a file.
    ///
    /// # Errors
    /// EEXIST, EPERM for a directory, EMLINK, EROFS, ENOSPC and the like.
    pub fn link(&self, node: NodeId, parent: NodeId, name: &[u8]) -> Result<Entry> {
        let made = self.link_once(node, parent, name);
        self.or_made_before(made, parent, name, |found| found.id == node)
    }

    fn link_once(&self, node: NodeId, parent: NodeId, name: &[u8]) -> Result<Entry> {
        let name = Name::new(name)?;
        let inode = self.inode(node)?;
        if inode.kind == Kind::Dir {
            return Err(Error::NotPermitted);
        }
        let dir = self.inode(parent)?;
        self.may_add_name(&dir, name)?;
        self.may_change(&inode)?;
        self.copy_up_dir(&dir)?;
        // A metacopy finds its data by where it is; with two names it takes the data along.
        self.copy_up(&inode, DataNeed::All)?;
        if !inode.is_findable() {
            // Its last name has gone; the nameless copy could be linked and must not be.
            return Err(Error::NotFound);
        }
        let obj = Arc::clone(inode.upper().ok_or(Error::ReadOnly)?);
        let _names = dir.dir_state()?.names.write();
        let (dir_obj, vacancy) = self.vacancy(&dir, name)?;
        let fd = self.reach.dir_fd(&dir_obj)?;
        if inode.st_ino() != self.stack.st_ino(obj.id()) {
            self.set_impure(&dir)?;
        }
        if inode.index_name().is_some() {
            self.count_from(&inode, Base::Upper)?;
        }
        self.link_at(&obj, fd.as_fd(), name, vacancy)?;
        obj.place_mut().add_name(&dir_obj, name.to_owned());
        dir.touch_names();
        let node = self.table.again(&inode).ok_or(Error::Stale)?;
        let attr = self.attr_of(&inode)?;
        Ok(Entry { node, attr })
    }

    fn link_at(&self, obj: &Obj, dir: BorrowedFd<'_>, name: &Name, vacancy: Vacancy) -> Result<()> {
        if vacancy == Vacancy::Free {
            let linked: std::result::Result<(), SysError> =
                self.reach.with(obj, |at| make::link(at, dir, name));
            match linked {
                Err(e) if e.errno() == Errno::EEXIST => {}
                other => return Ok(other?),
            }
            match probe(dir, name, self.stack.ns, false)? {
                Probe::Whiteout => {}
                _ => return Err(Error::Exists),
            }
        }
        let work = &self.writable()?.upper.work;
        let staged = self.reach.with(obj, |at| work.stage_link(at))?;
        drop(staged.publish_over(dir, name)?);
        Ok(())
    }
}

/// Makes the object with the caller's ids and umask, which the layer's file system applies
/// exactly as it would for the caller: setgid directories and default ACLs included.
fn make_in_place(
    (uid, gid): (u32, u32),
    umask: u32,
    dir: BorrowedFd<'_>,
    name: &Name,
    make: Make<'_>,
) -> std::result::Result<Option<OwnedFd>, SysError> {
    thread::set_umask(umask)?;
    let _caller = ActAs::new(uid, gid)?;
    match make {
        Make::Dir(mode) => make::mkdir(dir, name, mode & 0o7777)?,
        // Who makes a file mostly writes to it: the descriptor saves opening it again.
        Make::Node(mode, rdev) if Kind::from_mode(mode) == Kind::File => {
            match open::create_file(dir, name, mode & 0o7777) {
                Err(e) if matches!(e.errno(), Errno::EMFILE | Errno::ENFILE) => {
                    make::mknod(dir, name, mode, rdev)?;
                }
                made => return made.map(Some),
            }
        }
        Make::Node(mode, rdev) => make::mknod(dir, name, mode, rdev)?,
        Make::Symlink(target) => make::symlink(target, dir, name)?,
    }
    Ok(None)
}

/// The default ACL of a directory, which new objects in it inherit.
fn default_acl(dir: BorrowedFd<'_>) -> Result<Option<Acl>> {
    let Some(value) = xattr::get(At::object(&dir), acl::DEFAULT_XATTR.as_bytes())? else {
        return Ok(None);
    };
    Acl::parse(&value).map_err(|_| Error::Malformed("default ACL"))
}
