//! POSIX access control lists: the xattr value, inheritance by new objects and chmod.
//!
//! The layer does what the kernel's filesystems do themselves when an object is created in its place: objects are
//! staged elsewhere, so the default ACL of the directory they end up in is applied by us.

use crate::Malformed;
use crate::mode::RWX_ALL;

const WHAT: &str = "POSIX ACL";
const VERSION: [u8; 4] = 2u32.to_le_bytes();
/// `ACL_UNDEFINED_ID`, in entries that name nobody.
const UNDEFINED_ID: u32 = u32::MAX;

/// The xattr that holds an object's own ACL.
pub const ACCESS_XATTR: &str = "system.posix_acl_access";
/// The xattr that holds what new objects in a directory inherit.
pub const DEFAULT_XATTR: &str = "system.posix_acl_default";

/// Whom an entry speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// The owner.
    UserObj,
    /// The user with this id.
    User(u32),
    /// The owning group.
    GroupObj,
    /// The group with this id.
    Group(u32),
    /// The most that named users and all groups get.
    Mask,
    /// Everybody else.
    Other,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Whom it speaks of.
    pub tag: Tag,
    /// Read 4, write 2, execute 1.
    pub perm: u8,
}

/// A list that the kernel accepts (`posix_acl_valid()`): owner, users, owning group, groups, mask, others in this
/// order, with a mask if anybody is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acl {
    entries: Vec<Entry>,
}

/// What a new object gets, see [`inherit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// The mode to create it with; bits outside the nine permissions are those asked for.
    pub mode: u32,
    /// Its own ACL, `None` if the mode says it all.
    pub access: Option<Acl>,
    /// Its default ACL, directories only.
    pub default: Option<Acl>,
}

/// The permission bits that an ACL amounts to, see [`Acl::equiv_mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EquivMode {
    /// The mode with its nine permission bits replaced.
    pub mode: u32,
    /// Whether the mode says everything, so that no ACL need be stored.
    pub exact: bool,
}

/// Mode and ACLs of an object created with `mode` in a directory that has the ACL `default`, as
/// `posix_acl_create()`. Applies to everything but symlinks. The umask does not: with a default ACL it is ignored, so
/// `mode` must be what the caller asked for, before it.
pub fn inherit(default: &Acl, mode: u32, is_dir: bool) -> Inherited {
    let mut access = default.clone();
    access.limit_to(mode);
    let EquivMode { mode, exact } = access.equiv_mode(mode);
    Inherited {
        mode,
        access: (!exact).then_some(access),
        default: is_dir.then(|| default.clone()),
    }
}

impl Acl {
    /// A list of these entries, if they are in order and complete.
    pub fn new(entries: Vec<Entry>) -> Result<Self, Malformed> {
        check(&entries)?;
        Ok(Self { entries })
    }

    /// Reads an xattr value. `None` for one without entries, which stands for "no ACL".
    pub fn parse(value: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(entries) = value.strip_prefix(&VERSION) else {
            return Err(Malformed::new(
                WHAT,
                "the value does not begin with version 2",
            ));
        };
        let (entries, rest) = entries.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Malformed::new(
                WHAT,
                "the value is not a multiple of 8-byte entries",
            ));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let entries = entries.iter().map(Entry::parse).collect::<Result<_, _>>()?;
        Self::new(entries).map(Some)
    }

    /// The xattr value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(VERSION.len() + 8 * self.entries.len());
        value.extend_from_slice(&VERSION);
        for entry in &self.entries {
            value.extend_from_slice(&entry.encode());
        }
        value
    }

    /// The list that says what the permission bits of `mode` say.
    pub fn from_mode(mode: u32) -> Self {
        let entry = |tag, shift: u32| Entry {
            tag,
            perm: (mode >> shift & 7) as u8,
        };
        let entries = vec![
            entry(Tag::UserObj, 6),
            entry(Tag::GroupObj, 3),
            entry(Tag::Other, 0),
        ];
        Self { entries }
    }

    /// The entries, in their order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The mode that goes with this list (`posix_acl_equiv_mode()`): the group bits are the mask where there is one.
    pub fn equiv_mode(&self, mode: u32) -> EquivMode {
        let (mut user, mut group, mut other, mut exact) = (0, 0, 0, true);
        for entry in &self.entries {
            let perm = u32::from(entry.perm);
            match entry.tag {
                Tag::UserObj => user = perm,
                Tag::GroupObj => group = perm,
                Tag::Other => other = perm,
                Tag::User(_) | Tag::Group(_) => exact = false,
                // The mask comes after the owning group, so that it has the last word.
                Tag::Mask => {
                    group = perm;
                    exact = false;
                }
            }
        }
        EquivMode {
            mode: mode & !RWX_ALL | user << 6 | group << 3 | other,
            exact,
        }
    }

    /// This list after a chmod to `mode` (`__posix_acl_chmod_masq()`): the group bits go to the mask where there is
    /// one, and named entries stay.
    #[must_use]
    pub fn chmod_masq(&self, mode: u32) -> Self {
        let mut acl = self.clone();
        for (entry, bits) in acl.class_entries(mode) {
            entry.perm = bits;
        }
        acl
    }

    /// This list with the ids of named users and groups replaced; `None` if one of them has no other id.
    pub fn map_ids(
        &self,
        user: impl Fn(u32) -> Option<u32>,
        group: impl Fn(u32) -> Option<u32>,
    ) -> Option<Self> {
        let map = |entry: &Entry| {
            let tag = match entry.tag {
                Tag::User(id) => Tag::User(user(id)?),
                Tag::Group(id) => Tag::Group(group(id)?),
                tag => tag,
            };
            Some(Entry { tag, ..*entry })
        };
        Some(Self {
            entries: self.entries.iter().map(map).collect::<Option<_>>()?,
        })
    }

    /// Takes away what `mode` does not grant (`posix_acl_create_masq()`).
    fn limit_to(&mut self, mode: u32) {
        for (entry, bits) in self.class_entries(mode) {
            entry.perm &= bits;
        }
    }

    /// The entries that the three groups of permission bits stand for, each with its bits of `mode`. For the group
    /// bits that is the mask if there is one, else the owning group.
    fn class_entries(&mut self, mode: u32) -> impl Iterator<Item = (&mut Entry, u8)> {
        let masked = self.entries.iter().any(|entry| entry.tag == Tag::Mask);
        self.entries.iter_mut().filter_map(move |entry| {
            let shift = match entry.tag {
                Tag::UserObj => 6,
                Tag::GroupObj if !masked => 3,
                Tag::Mask => 3,
                Tag::Other => 0,
                Tag::GroupObj | Tag::User(_) | Tag::Group(_) => return None,
            };
            Some((entry, (mode >> shift & 7) as u8))
        })
    }
}

impl Entry {
    fn parse(bytes: &[u8; 8]) -> Result<Self, Malformed> {
        let [tag_low, tag_high, perm_low, perm_high, id @ ..] = *bytes;
        let id = u32::from_le_bytes(id);
        let tag = match u16::from_le_bytes([tag_low, tag_high]) {
            0x01 => Tag::UserObj,
            0x02 => Tag::User(id),
            0x04 => Tag::GroupObj,
            0x08 => Tag::Group(id),
            0x10 => Tag::Mask,
            0x20 => Tag::Other,
            _ => return Err(Malformed::new(WHAT, "an entry has a tag that is not known")),
        };
        match [perm_low, perm_high] {
            [perm @ 0..=7, 0] => Ok(Self { tag, perm }),
            _ => Err(Malformed::new(WHAT, "an entry has permissions beyond rwx")),
        }
    }

    fn encode(self) -> [u8; 8] {
        let (tag, id) = match self.tag {
            Tag::UserObj => (0x01, UNDEFINED_ID),
            Tag::User(id) => (0x02, id),
            Tag::GroupObj => (0x04, UNDEFINED_ID),
            Tag::Group(id) => (0x08, id),
            Tag::Mask => (0x10, UNDEFINED_ID),
            Tag::Other => (0x20, UNDEFINED_ID),
        };
        let [i0, i1, i2, i3] = id.to_le_bytes();
        [tag, 0, self.perm, 0, i0, i1, i2, i3]
    }
}

/// Order and completeness, by the state machine of `posix_acl_valid()`.
fn check(entries: &[Entry]) -> Result<(), Malformed> {
    /// The last thing seen; each allows only what may follow it.
    #[derive(PartialEq)]
    enum Seen {
        Nothing,
        Users,
        Groups,
        Mask,
        Other,
    }
    let (mut seen, mut needs_mask) = (Seen::Nothing, false);
    for entry in entries {
        if entry.perm > 7 {
            return Err(Malformed::new(WHAT, "an entry has permissions beyond rwx"));
        }
        seen = match (entry.tag, seen) {
            (Tag::User(UNDEFINED_ID) | Tag::Group(UNDEFINED_ID), _) => {
                return Err(Malformed::new(
                    WHAT,
                    "a named entry has the id -1, which is nobody's",
                ));
            }
            (Tag::UserObj, Seen::Nothing) => Seen::Users,
            (Tag::User(_), Seen::Users) => {
                needs_mask = true;
                Seen::Users
            }
            (Tag::GroupObj, Seen::Users) => Seen::Groups,
            (Tag::Group(_), Seen::Groups) => {
                needs_mask = true;
                Seen::Groups
            }
            (Tag::Mask, Seen::Groups) => Seen::Mask,
            (Tag::Other, Seen::Mask) => Seen::Other,
            (Tag::Other, Seen::Groups) if !needs_mask => Seen::Other,
            _ => {
                return Err(Malformed::new(
                    WHAT,
                    "its entries are out of order or one is missing",
                ));
            }
        };
    }
    if seen == Seen::Other {
        Ok(())
    } else {
        Err(Malformed::new(
            WHAT,
            "it does not end with the entry for others",
        ))
    }
}

#[cfg(test)]
mod tests;
