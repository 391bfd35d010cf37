//! Names of the extended attributes and directories that kernel overlayfs and its relatives keep for themselves.

use std::borrow::Cow;

/// The part that is doubled to escape a name: `trusted.overlay.overlay.X` on disk is the user's `trusted.overlay.X`.
const ESCAPE: &str = "overlay.";

/// Prefix of what fuse-overlayfs keeps without privileges.
pub const FUSE_OVERLAYFS_USER_PREFIX: &str = "user.fuseoverlayfs.";
/// Prefix of what fuse-overlayfs keeps with privileges.
pub const FUSE_OVERLAYFS_SECURITY_PREFIX: &str = "security.fuseoverlayfs.";
/// The opaque mark that fuse-overlayfs writes.
pub const FUSE_OVERLAYFS_OPAQUE: &str = "user.fuseoverlayfs.opaque";
/// Every opaque mark that a layer may carry, whoever wrote it, in the order in which they are likely.
pub const OPAQUE_MARKS: [&str; 3] = [
    "trusted.overlay.opaque",
    "user.overlay.opaque",
    FUSE_OVERLAYFS_OPAQUE,
];

/// Prefix under which containers/storage and fuse-overlayfs keep what must not mix with the backing file's own.
pub const CONTAINERS_PREFIX: &str = "user.containers.override_";
const SECURITY_PREFIX: &str = "security.";

/// The directory below `workdir` in which objects are staged.
pub const WORK_DIR: &str = "work";
/// The directory below `workdir` that holds the index.
pub const INDEX_DIR: &str = "index";

/// Which namespace the overlay's own extended attributes live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XattrNamespace {
    /// `trusted.overlay.*`, needs CAP_SYS_ADMIN in the initial user namespace.
    Trusted,
    /// `user.overlay.*` (`userxattr`).
    User,
}

/// One method per mark, so that a name cannot be put together wrongly at a call site.
macro_rules! marks {
    ($($(#[$doc:meta])* $method:ident = $suffix:literal;)*) => {
        impl XattrNamespace {
            $($(#[$doc])*
            pub const fn $method(self) -> &'static str {
                match self {
                    Self::Trusted => concat!("trusted.overlay.", $suffix),
                    Self::User => concat!("user.overlay.", $suffix),
                }
            })*

            /// All marks of this namespace.
            pub const fn marks(self) -> &'static [&'static str] {
                match self {
                    Self::Trusted => &[$(concat!("trusted.overlay.", $suffix)),*],
                    Self::User => &[$(concat!("user.overlay.", $suffix)),*],
                }
            }
        }
    };
}

marks! {
    /// Directory that hides what lowers have at its place, see [`crate::opaque`].
    opaque = "opaque";
    /// Where the lowers have this object, see [`crate::redirect`].
    redirect = "redirect";
    /// Upper file whose data is still in a lower, see [`crate::metacopy`].
    metacopy = "metacopy";
    /// File handle of the lower object that was copied up, see [`crate::origin`].
    origin = "origin";
    /// `y` on an upper directory that holds copied-up or merged objects, so listings must look up their numbers.
    impure = "impure";
    /// Link count of the union relative to a real one, see [`crate::nlink`].
    nlink = "nlink";
    /// File handle of the upper directory, on the index entry of a directory and on the index itself.
    upper = "upper";
    /// 16 bytes on the upper root: the persistent identity of the union.
    uuid = "uuid";
    /// On an empty regular file: it is a whiteout, see [`crate::whiteout`].
    whiteout = "whiteout";
    /// Append-only and immutable flags that cannot be set on the upper itself, see [`crate::protattr`].
    protattr = "protattr";
    /// Linux 6.7 only: directory that may hold xattr whiteouts. Later kernels say opaque `x`.
    xwhiteouts = "whiteouts";
}

impl XattrNamespace {
    /// What every private name of this namespace begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    /// Whether the name on disk belongs to the overlay and not to a user: it begins with the prefix and is not escaped.
    ///
    /// Private names never pass through the mount and are not copied up.
    pub fn is_private(self, name: &[u8]) -> bool {
        self.own_suffix(name)
            .is_some_and(|suffix| !suffix.starts_with(ESCAPE.as_bytes()))
    }

    /// The name on disk for the one a user asks for through the mount: our own prefix is escaped one level
    /// (`ovl_xattr_escape_name()`), so that an overlay can be stored inside an overlay.
    pub fn to_disk(self, user_name: &[u8]) -> Cow<'_, [u8]> {
        match self.own_suffix(user_name) {
            None => Cow::Borrowed(user_name),
            Some(suffix) => {
                let parts = [self.prefix().as_bytes(), ESCAPE.as_bytes(), suffix];
                Cow::Owned(parts.concat())
            }
        }
    }

    /// The name to show a user for one on disk: `None` for private names, ours or fuse-overlayfs's, one escape level
    /// less for escaped ones, the name itself for all others.
    pub fn from_disk(self, disk_name: &[u8]) -> Option<Cow<'_, [u8]>> {
        if is_foreign_private(disk_name) {
            return None;
        }
        let Some(suffix) = self.own_suffix(disk_name) else {
            return Some(Cow::Borrowed(disk_name));
        };
        let unescaped = suffix.strip_prefix(ESCAPE.as_bytes())?;
        Some(Cow::Owned([self.prefix().as_bytes(), unescaped].concat()))
    }

    fn own_suffix(self, name: &[u8]) -> Option<&[u8]> {
        name.strip_prefix(self.prefix().as_bytes())
    }
}

/// Whether `name` is a mark of fuse-overlayfs. Such names have no escaped form: a user may neither see nor set
/// them through the mount, for they would change what the layer means.
pub fn is_foreign_private(name: &[u8]) -> bool {
    name.starts_with(FUSE_OVERLAYFS_USER_PREFIX.as_bytes())
        || name.starts_with(FUSE_OVERLAYFS_SECURITY_PREFIX.as_bytes())
        || name.starts_with(CONTAINERS_PREFIX.as_bytes())
}

/// The name on disk for a user's `security.` xattr in a layer that keeps those apart from the backing file's own.
pub fn to_apart(name: &[u8]) -> Option<Vec<u8>> {
    name.starts_with(SECURITY_PREFIX.as_bytes())
        .then(|| [CONTAINERS_PREFIX.as_bytes(), name].concat())
}

/// The user's name for one on disk that stands apart, see [`to_apart`].
pub fn from_apart(disk_name: &[u8]) -> Option<&[u8]> {
    let name = disk_name.strip_prefix(CONTAINERS_PREFIX.as_bytes())?;
    name.starts_with(SECURITY_PREFIX.as_bytes()).then_some(name)
}

#[cfg(test)]
mod tests;
