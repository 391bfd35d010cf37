//! Whom an object belongs to: what a layer stores, what its marks say instead, and what the view shows.
//!
//! Attributes take one way up: what `statx` says, then what an override_stat mark says instead
//! (the *stored* attributes, with which the engine works), then the id map (the *shown* ones).
//! The other way they go back down. Marks are per layer, as the layer's root announces them.
use std::borrow::Cow;

use plyfs_format::Malformed;
use plyfs_format::acl::{self, Acl};
use plyfs_format::idmap::IdMap;
use plyfs_format::names;
use plyfs_format::override_stat::{self, OverrideStat};
use plyfs_layer::{LayerIdx, Obj, set_mark};
use plyfs_sys::attr as sys_attr;
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Errno, SysError, stat, xattr};

use crate::copy_up::CAPABILITY;
use crate::stack::Stack;
use crate::{Caller, Error, Result, Union};

/// Where the upper keeps owner, mode and type of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerStore {
    /// In the objects themselves, unless the root of the upper announces marks.
    #[default]
    Objects,
    /// `xattr_permissions=1`: in `security.fuseoverlayfs.override_stat`.
    SecurityMark,
    /// `xattr_permissions=2`: in `user.containers.override_stat`, and the `security.` xattrs of
    /// users apart from those of the backing file system.
    UserMark,
}

/// How ids on disk become those the view shows.
#[derive(Debug, Clone, Default)]
pub struct Ownership {
    /// `uidmapping=`.
    pub uids: IdMap,
    /// `gidmapping=`.
    pub gids: IdMap,
    /// `squash_to_uid=`: everything shows this owner.
    pub squash_uid: Option<u32>,
    /// `squash_to_gid=`: everything shows this group.
    pub squash_gid: Option<u32>,
    /// `xattr_permissions=`.
    pub store: OwnerStore,
}

impl Ownership {
    /// The owner to show for the stored one.
    pub(crate) fn shown_uid(&self, stored: u32) -> u32 {
        self.squash_uid
            .unwrap_or_else(|| self.uids.to_host_or_overflow(stored))
    }

    /// The group to show for the stored one.
    pub(crate) fn shown_gid(&self, stored: u32) -> u32 {
        self.squash_gid
            .unwrap_or_else(|| self.gids.to_host_or_overflow(stored))
    }

    /// The ids of a caller as they are stored, to make something with: None keeps the daemon's,
    /// for where all ids are shown as one nothing depends on it. What a caller outside the map
    /// makes belongs to the overflow id, as in fuse-overlayfs: Podman sets a container's root up
    /// as a root who is not of that container.
    fn stored_ids(&self, uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
        let stored = |map: &IdMap, id: u32, squashed: bool| match map.to_container(id) {
            None if !squashed => Some(map.to_container_or_overflow(id)),
            stored => stored,
        };
        (
            stored(&self.uids, uid, self.squash_uid.is_some()),
            stored(&self.gids, gid, self.squash_gid.is_some()),
        )
    }

    /// The ids to store for those asked for. What is shown already need not be stored.
    fn asked_ids(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(Option<u32>, Option<u32>)> {
        let uid = uid.filter(|id| self.squash_uid != Some(*id));
        let gid = gid.filter(|id| self.squash_gid != Some(*id));
        let stored = |map: &IdMap, id: Option<u32>| match id {
            Some(id) => map.to_container(id).map(Some).ok_or(Error::Unmapped),
            None => Ok(None),
        };
        Ok((stored(&self.uids, uid)?, stored(&self.gids, gid)?))
    }

    fn maps_ids(&self) -> bool {
        !(self.uids.is_identity() && self.gids.is_identity())
    }
}

/// The mark in which the root of a layer says that its objects have such marks.
pub(crate) fn announced(root: At<'_>) -> std::result::Result<Option<&'static str>, SysError> {
    for name in override_stat::NAMES {
        if xattr::get(root, name.as_bytes())?.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The mark an upper uses: that of the option, but an upper that has marks already goes on with
/// them where the option does not ask for the other kind.
pub(crate) fn upper_mark(store: OwnerStore, found: Option<&'static str>) -> Option<&'static str> {
    match (store, found) {
        (OwnerStore::SecurityMark, _) => Some(override_stat::FUSE_OVERLAYFS_SECURITY),
        (OwnerStore::UserMark, Some(override_stat::FUSE_OVERLAYFS_USER)) => found,
        (OwnerStore::UserMark, _) => Some(override_stat::CONTAINERS),
        (OwnerStore::Objects, found) => found,
    }
}

impl Stack {
    /// What an object of a layer is, by its mark where it has one.
    pub(crate) fn seen(
        &self,
        layer: LayerIdx,
        at: At<'_>,
        found: Stat,
    ) -> std::result::Result<Stat, SysError> {
        match self.mark_of(layer, at)? {
            None => Ok(found),
            Some(Ok(mark)) => Ok(overridden(&found, &mark)),
            Some(Err(e)) => {
                // To show the owner and mode of the backing file could grant what was not.
                tracing::warn!("{e}");
                Err(SysError::new("read override_stat xattr", Errno::EIO))
            }
        }
    }

    /// The type of an object of a layer, for a listing, which one malformed mark must not stop.
    pub(crate) fn seen_kind(
        &self,
        layer: LayerIdx,
        at: At<'_>,
        found: &Stat,
    ) -> std::result::Result<Kind, SysError> {
        Ok(match self.mark_of(layer, at)? {
            Some(Ok(mark)) => overridden(found, &mark).kind(),
            None | Some(Err(_)) => found.kind(),
        })
    }

    fn mark_of(
        &self,
        layer: LayerIdx,
        at: At<'_>,
    ) -> std::result::Result<Option<std::result::Result<OverrideStat, Malformed>>, SysError> {
        let Some(name) = self.stat_mark(layer) else {
            return Ok(None);
        };
        let value = xattr::get(at, name.as_bytes())?;
        Ok(value.map(|v| override_stat::parse(&v)))
    }

    /// Whether `security.` xattrs of users stand apart from the backing file system's own.
    pub(crate) fn keeps_apart(&self, layer: LayerIdx) -> bool {
        self.stat_mark(layer) == Some(override_stat::CONTAINERS)
    }

    /// The name an xattr has on the disk of a layer.
    pub(crate) fn xattr_to_disk<'n>(&self, layer: LayerIdx, name: &'n [u8]) -> Cow<'n, [u8]> {
        match names::to_apart(name) {
            Some(apart) if self.keeps_apart(layer) => Cow::Owned(apart),
            _ => self.ns.to_disk(name),
        }
    }

    /// The name to show for that of an xattr on the disk of a layer; None for what is not shown.
    pub(crate) fn xattr_from_disk<'n>(
        &self,
        layer: LayerIdx,
        disk: &'n [u8],
    ) -> Option<Cow<'n, [u8]>> {
        if self.keeps_apart(layer) {
            if let Some(name) = names::from_apart(disk) {
                return Some(Cow::Borrowed(name));
            }
            if names::to_apart(disk).is_some() {
                return None;
            }
        }
        self.ns.from_disk(disk)
    }
}

/// What a mark says instead of the backing file. Devices, fifos and sockets may be regular files
/// there; nothing else changes its type.
fn overridden(found: &Stat, mark: &OverrideStat) -> Stat {
    let special = |kind: &override_stat::Kind| {
        !matches!(
            kind,
            override_stat::Kind::File | override_stat::Kind::Dir | override_stat::Kind::Symlink
        )
    };
    let mut seen = *found;
    (seen.uid, seen.gid) = (mark.uid, mark.gid);
    seen.mode = (found.mode & !0o7777) | mark.mode;
    if let Some(kind) = mark.kind.filter(special)
        && found.kind() == Kind::File
    {
        seen.mode = kind.type_bits() | mark.mode;
        seen.rdev = kind.rdev();
        seen.size = 0;
    }
    seen
}

/// What an object is to be given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewStat {
    pub(crate) kind: Kind,
    pub(crate) rdev: (u32, u32),
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) perm: u32,
}

impl Union {
    /// Whether the upper keeps owner, mode and type in marks.
    pub(crate) fn upper_has_marks(&self) -> bool {
        self.stack.stat_mark(LayerIdx::UPPER).is_some()
    }

    /// The ids a caller's new objects are stored with.
    pub(crate) fn stored_ids(&self, caller: &Caller) -> (Option<u32>, Option<u32>) {
        self.options.ownership.stored_ids(caller.uid, caller.gid)
    }

    /// The group to show for a stored one.
    pub(crate) fn shown_gid(&self, stored: u32) -> u32 {
        self.options.ownership.shown_gid(stored)
    }

    /// Changes the owner of an upper object to what a caller asked for.
    pub(crate) fn change_owner(&self, obj: &Obj, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = self.options.ownership.asked_ids(uid, gid)?;
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        self.reach.with(obj, |at| {
            if !self.upper_has_marks() {
                return Ok(sys_attr::chown(at, uid, gid)?);
            }
            let _one_at_a_time = self.mark_change.lock();
            let was = self.stack.seen(LayerIdx::UPPER, at, stat::stat(at)?)?;
            let mut perm = was.perm();
            if was.kind() != Kind::Dir {
                // As chown(2) does.
                perm &= !0o4000;
                perm &= if perm & 0o010 != 0 { !0o2000 } else { !0 };
            }
            let (uid, gid) = (uid.or(Some(was.uid)), gid.or(Some(was.gid)));
            self.put_mode(
                at,
                &NewStat {
                    uid,
                    gid,
                    perm,
                    ..like(&was)
                },
            )
        })
    }

    /// Changes the mode of an upper object.
    pub(crate) fn change_mode(&self, obj: &Obj, perm: u32) -> Result<()> {
        self.reach.with(obj, |at| {
            if !self.upper_has_marks() {
                return Ok(sys_attr::chmod(at, perm)?);
            }
            let _one_at_a_time = self.mark_change.lock();
            let was = self.stack.seen(LayerIdx::UPPER, at, stat::stat(at)?)?;
            self.put_mode(at, &NewStat { perm, ..like(&was) })
        })
    }

    /// Gives an upper object its mode; with it all that its mark says, where it has one. Ids that
    /// are None stay.
    pub(crate) fn put_mode(&self, at: At<'_>, new: &NewStat) -> Result<()> {
        let Some(name) = self.stack.stat_mark(LayerIdx::UPPER) else {
            if new.kind != Kind::Symlink {
                sys_attr::chmod(at, new.perm)?;
            }
            return Ok(());
        };
        let now = stat::stat(at)?;
        let mark = OverrideStat {
            uid: new.uid.unwrap_or(now.uid),
            gid: new.gid.unwrap_or(now.gid),
            mode: new.perm,
            kind: override_stat::Kind::from_stat(new.kind.mode_bits(), new.rdev.0, new.rdev.1),
        };
        let set = set_mark(at, name, &mark.encode());
        if new.kind == Kind::Symlink {
            // Symbolic links cannot have `user.` xattrs: theirs is the owner the daemon gives.
            return match set {
                Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EOPNOTSUPP) => Ok(()),
                other => Ok(other?),
            };
        }
        set?;
        Ok(sys_attr::chmod(at, backing_perm(new.kind, new.perm))?)
    }

    /// Gives an upper object its owner, where it keeps that itself.
    pub(crate) fn put_owner(&self, at: At<'_>, new: &NewStat) -> Result<()> {
        if self.upper_has_marks() {
            return Ok(());
        }
        match sys_attr::chown(at, new.uid, new.gid) {
            // Who sees one owner everywhere does not see that this one could not be stored.
            Err(e)
                if matches!(e.errno(), Errno::EPERM | Errno::EINVAL)
                    && self.options.ownership.squash_uid.is_some()
                    && self.options.ownership.squash_gid.is_some() =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The type an object of the upper has on disk.
    pub(crate) fn backing_kind(&self, kind: Kind, rdev: (u32, u32)) -> (u32, (u32, u32)) {
        let special = !matches!(kind, Kind::File | Kind::Dir | Kind::Symlink);
        if special && self.upper_has_marks() {
            (Kind::File.mode_bits(), (0, 0))
        } else {
            (kind.mode_bits(), rdev)
        }
    }

    /// Announces the marks on the root of an upper that has none yet. What it shows from then on
    /// is what the layer below it shows, as the mode of a backing directory is no one's choice.
    pub(crate) fn announce_marks(&self) -> Result<()> {
        let (Some(upper), Some(name)) = (&self.stack.upper, self.stack.stat_mark(LayerIdx::UPPER))
        else {
            return Ok(());
        };
        let shown = match self.stack.lowers.first() {
            Some(lower) => self.stat_obj(lower)?,
            None => self.stat_obj(&upper.root)?,
        };
        let mark = OverrideStat {
            uid: shown.uid,
            gid: shown.gid,
            mode: shown.perm(),
            kind: Some(override_stat::Kind::Dir),
        };
        self.reach.with(&upper.root, |at| {
            if xattr::get(at, name.as_bytes())?.is_some() {
                return Ok(());
            }
            Ok(set_mark(at, name, &mark.encode())?)
        })
    }

    /// Capabilities of a file that stand apart do not go by themselves when its data or owner
    /// changes.
    pub(crate) fn drop_apart_capability(&self, obj: &Obj) -> Result<()> {
        if !self.stack.keeps_apart(LayerIdx::UPPER) {
            return Ok(());
        }
        let disk = self.stack.xattr_to_disk(LayerIdx::UPPER, CAPABILITY);
        match self.reach.with(obj, |at| xattr::remove(at, &disk)) {
            Err(e) if matches!(e.errno(), Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    /// After an access ACL was set the backing file has its permission bits; the mark says them
    /// too.
    pub(crate) fn mode_follows_acl(&self, obj: &Obj, value: &[u8]) -> Result<()> {
        if !self.upper_has_marks() {
            return Ok(());
        }
        let acl = Acl::parse(value).map_err(|_| Error::Invalid("access ACL"))?;
        let Some(acl) = acl else { return Ok(()) };
        let was = self.stat_obj(obj)?;
        self.change_mode(obj, acl.equiv_mode(was.perm()).mode & 0o7777)
    }

    /// An xattr's value as it is shown: ids in ACLs are mapped.
    pub(crate) fn value_from_disk(&self, name: &[u8], value: Vec<u8>) -> Result<Vec<u8>> {
        let own = &self.options.ownership;
        if !own.maps_ids() || !is_acl(name) {
            return Ok(value);
        }
        let mapped = Acl::parse(&value)
            .map_err(|_| Error::Malformed("ACL"))?
            .and_then(|acl| {
                acl.map_ids(
                    |id| Some(own.uids.to_host_or_overflow(id)),
                    |id| Some(own.gids.to_host_or_overflow(id)),
                )
            });
        Ok(mapped.map_or(value, |acl| acl.encode()))
    }

    /// An xattr's value as it is stored. Ids that are not mapped cannot be.
    pub(crate) fn value_to_disk<'v>(&self, name: &[u8], value: &'v [u8]) -> Result<Cow<'v, [u8]>> {
        let own = &self.options.ownership;
        if !own.maps_ids() || !is_acl(name) {
            return Ok(Cow::Borrowed(value));
        }
        let acl = Acl::parse(value).map_err(|_| Error::Invalid("ACL"))?;
        let Some(acl) = acl else {
            return Ok(Cow::Borrowed(value));
        };
        let mapped = acl.map_ids(
            |id| own.uids.to_container(id),
            |id| own.gids.to_container(id),
        );
        mapped
            .map(|acl| Cow::Owned(acl.encode()))
            .ok_or(Error::Invalid("an ACL names an id that is not mapped"))
    }
}

fn like(was: &Stat) -> NewStat {
    NewStat {
        kind: was.kind(),
        rdev: was.rdev,
        uid: Some(was.uid),
        gid: Some(was.gid),
        perm: was.perm(),
    }
}

/// The mode of a file whose own one is in its mark: never more than that grants to others, never
/// setuid, and always enough for the daemon.
fn backing_perm(kind: Kind, perm: u32) -> u32 {
    perm & 0o777 | if kind == Kind::Dir { 0o700 } else { 0o600 }
}

/// Whether an xattr is an access control list.
pub(crate) fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS_XATTR.as_bytes() || name == acl::DEFAULT_XATTR.as_bytes()
}
