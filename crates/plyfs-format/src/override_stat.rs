//! The override_stat marks: owner, mode and type of an object that the backing filesystem could not be given.

use crate::Malformed;
use crate::mode::{
    PERM_MASK, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
};

const WHAT: &str = "override_stat";

/// The mark that containers/storage and fuse-overlayfs (`xattr_permissions=2`) write.
pub const CONTAINERS: &str = "user.containers.override_stat";
/// The mark that older fuse-overlayfs wrote without privileges.
pub const FUSE_OVERLAYFS_USER: &str = "user.fuseoverlayfs.override_stat";
/// The mark that fuse-overlayfs writes with privileges (`xattr_permissions=1`).
pub const FUSE_OVERLAYFS_SECURITY: &str = "security.fuseoverlayfs.override_stat";
/// All of them, in the order in which a layer is probed.
pub const NAMES: [&str; 3] = [FUSE_OVERLAYFS_SECURITY, CONTAINERS, FUSE_OVERLAYFS_USER];

/// What to show instead of what the backing filesystem says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OverrideStat {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions with setuid, setgid and sticky; no type bits.
    pub mode: u32,
    /// Type, where the mark states one; else the backing object's own.
    pub kind: Option<Kind>,
}

/// The type of an object. Devices, pipes, sockets and symlinks may be stored as regular files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// FIFO.
    Pipe,
    /// Socket.
    Socket,
    /// Block device with its numbers.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Character device with its numbers.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Kind {
    /// The type bits of `st_mode`.
    pub const fn type_bits(self) -> u32 {
        match self {
            Self::File => S_IFREG,
            Self::Dir => S_IFDIR,
            Self::Symlink => S_IFLNK,
            Self::Pipe => S_IFIFO,
            Self::Socket => S_IFSOCK,
            Self::Block { .. } => S_IFBLK,
            Self::Char { .. } => S_IFCHR,
        }
    }

    /// Major and minor number, 0:0 for what is no device.
    pub const fn rdev(self) -> (u32, u32) {
        match self {
            Self::Block { major, minor } | Self::Char { major, minor } => (major, minor),
            _ => (0, 0),
        }
    }

    /// The type of an object with this `st_mode` and device number; `None` for type bits no object has.
    pub const fn from_stat(mode: u32, major: u32, minor: u32) -> Option<Self> {
        Some(match mode & S_IFMT {
            S_IFREG => Self::File,
            S_IFDIR => Self::Dir,
            S_IFLNK => Self::Symlink,
            S_IFIFO => Self::Pipe,
            S_IFSOCK => Self::Socket,
            S_IFBLK => Self::Block { major, minor },
            S_IFCHR => Self::Char { major, minor },
            _ => return None,
        })
    }

    fn parse(text: &str) -> Result<Self, Malformed> {
        if let Some((kind, numbers)) = text.split_once('-') {
            let (major, minor) = numbers
                .split_once('-')
                .and_then(|(major, minor)| Some((decimal(major)?, decimal(minor)?)))
                .ok_or(Malformed::new(
                    WHAT,
                    "the device is not `block-MAJOR-MINOR` or `char-…`",
                ))?;
            return match kind {
                "block" => Ok(Self::Block { major, minor }),
                "char" => Ok(Self::Char { major, minor }),
                _ => Err(Malformed::new(
                    WHAT,
                    "only `block` and `char` have device numbers",
                )),
            };
        }
        match text {
            "file" => Ok(Self::File),
            "dir" => Ok(Self::Dir),
            "symlink" => Ok(Self::Symlink),
            "pipe" => Ok(Self::Pipe),
            "socket" => Ok(Self::Socket),
            _ => Err(Malformed::new(WHAT, "the type is none that is known")),
        }
    }

    fn encode(self) -> String {
        match self {
            Self::File => "file".into(),
            Self::Dir => "dir".into(),
            Self::Symlink => "symlink".into(),
            Self::Pipe => "pipe".into(),
            Self::Socket => "socket".into(),
            Self::Block { major, minor } => format!("block-{major}-{minor}"),
            Self::Char { major, minor } => format!("char-{major}-{minor}"),
        }
    }
}

/// Reads `UID:GID:MODE` with the mode in octal, and optionally `:TYPE`. Type bits in the mode are dropped: the type is
/// the field's or the object's own.
pub fn parse(value: &[u8]) -> Result<OverrideStat, Malformed> {
    let text = str::from_utf8(value).map_err(|_| Malformed::new(WHAT, "the value is not ASCII"))?;
    let mut fields = text.split(':');
    let mut field = || {
        fields
            .next()
            .ok_or(Malformed::new(WHAT, "it is not `UID:GID:MODE[:TYPE]`"))
    };
    let (uid, gid, mode) = (field()?, field()?, field()?);
    let kind = fields.next().map(Kind::parse).transpose()?;
    if fields.next().is_some() {
        return Err(Malformed::new(WHAT, "there is something after the type"));
    }
    Ok(OverrideStat {
        uid: decimal(uid).ok_or(Malformed::new(WHAT, "the uid is not a 32-bit number"))?,
        gid: decimal(gid).ok_or(Malformed::new(WHAT, "the gid is not a 32-bit number"))?,
        mode: octal_mode(mode).ok_or(Malformed::new(WHAT, "the mode is not octal"))? & PERM_MASK,
        kind,
    })
}

impl OverrideStat {
    /// The value as containers/storage writes it: four octal digits of mode, then the type if there is one.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = format!("{}:{}:{:04o}", self.uid, self.gid, self.mode & PERM_MASK);
        if let Some(kind) = self.kind {
            value.push(':');
            value.push_str(&kind.encode());
        }
        value.into_bytes()
    }

    /// The `st_mode` to show for a backing object that has `real_mode`.
    pub const fn full_mode(&self, real_mode: u32) -> u32 {
        let type_bits = match self.kind {
            Some(kind) => kind.type_bits(),
            None => real_mode & S_IFMT,
        };
        type_bits | (self.mode & PERM_MASK)
    }
}

/// A number of digits only; `str::parse` would take a sign too.
fn decimal(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn octal_mode(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let mode = digits.then(|| u32::from_str_radix(text, 8).ok())??;
    (mode <= S_IFMT | PERM_MASK).then_some(mode)
}

#[cfg(test)]
mod tests;
