//! The one table of mount options: name, value, where it is from, and what it does here.
use plyfs_sys::mount::MountFlags;

/// Whether an option has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `name` alone.
    Nothing,
    /// `name=value`.
    Value,
    /// Either.
    Either,
}

/// Who defined an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// plyfs itself.
    Plyfs,
    /// Kernel overlayfs.
    Kernel,
    /// fuse-overlayfs, C or Rust.
    FuseOverlayfs,
    /// libfuse and fusermount3.
    Libfuse,
    /// mount(8), fstab and the tools that read it.
    Mount,
}

/// What an option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// `lowerdir=A:B`: the lower layers, topmost first.
    Lowers,
    /// `lowerdir+=A`: one more lower layer below the others.
    LowerAppend,
    /// `datadir+=A`: one more data-only layer below the others.
    DataAppend,
    /// `upperdir=`.
    Upper,
    /// `workdir=`.
    Work,
    /// `redirect_dir=`.
    RedirectDir,
    /// `metacopy=`.
    Metacopy,
    /// `index=`.
    Index,
    /// `userxattr`.
    UserXattr,
    /// `volatile`.
    Volatile,
    /// `fsync=0`: the same as volatile.
    Fsync,
    /// `uidmapping=`.
    UidMapping,
    /// `gidmapping=`.
    GidMapping,
    /// `squash_to_root`.
    SquashToRoot,
    /// `squash_to_uid=`.
    SquashToUid,
    /// `squash_to_gid=`.
    SquashToGid,
    /// `xattr_permissions=0|1|2`.
    XattrPermissions,
    /// `noacl`.
    NoAcl,
    /// `noxattrs=0|1`.
    NoXattrs,
    /// `static_nlink`.
    StaticNlink,
    /// `timeout=SECONDS`.
    Timeout,
    /// `threads=N`.
    Threads,
    /// `threaded=0|1`: one thread or the default number.
    Threaded,
    /// `slow=SECONDS`: requests that take longer are logged.
    Slow,
    /// `max_write=BYTES`.
    MaxWrite,
    /// `max_read=BYTES`.
    MaxRead,
    /// `writeback=0|1`.
    Writeback,
    /// `nowriteback`.
    NoWriteback,
    /// `data=auto|cached|passthrough`.
    Data,
    /// `norestart`.
    NoRestart,
    /// `nosandbox`.
    NoSandbox,
    /// `fsname=`.
    FsName,
    /// `subtype=`.
    Subtype,
    /// `allow_other`.
    AllowOther,
    /// `remount`: changes the flags of a live mount and nothing else.
    Remount,
    /// Sets flags of the mount.
    Set(MountFlags),
    /// Clears flags of the mount.
    Clear(MountFlags),
    /// What it asks for is always so, or it speaks to somebody else.
    Granted,
    /// The listed values ask for what is always so; any other has no effect, and this is why.
    GrantedIf(&'static [&'static str], &'static str),
    /// Known, but without effect, and this is why.
    NoEffect(&'static str),
}

impl Meaning {
    /// What an option with this meaning is good for, where its name does not say it.
    #[must_use]
    pub fn summary(self) -> Option<&'static str> {
        Some(match self {
            Self::Lowers => "A:B...: lower layers, the first one topmost; write \\: for a colon",
            Self::LowerAppend => "one more lower layer, below the others",
            Self::DataAppend => "one more layer with nothing but data of metacopy files",
            Self::Upper => "where changes are kept; without it the mount is read-only",
            Self::Work => "where changes are prepared, on the file system of the upper",
            Self::RedirectDir => {
                "on|follow|nofollow|off: rename lower directories (default follow)"
            }
            Self::Metacopy => "on|off: chown and chmod without copying data (default off)",
            Self::Remount => "change the flags of the mount that is there, such as ro",
            Self::Index => "on|off: hard links of a lower stay one file (default off)",
            Self::UserXattr => "keep marks in user.overlay.* attributes",
            Self::Volatile => "never wait for the disk: faster, lost after a crash",
            Self::Fsync => "0: the same as volatile",
            Self::UidMapping => "DISK:SHOWN:COUNT[:...]: owners on disk and those to show for them",
            Self::GidMapping => "DISK:SHOWN:COUNT[:...]: the same for groups",
            Self::SquashToRoot => "everything shows as owned by root",
            Self::SquashToUid => "UID: everything shows this owner",
            Self::SquashToGid => "GID: everything shows this group",
            Self::XattrPermissions => {
                "0|1|2: keep owner, mode and device numbers in attributes, security.* (1) or user.* (2)"
            }
            Self::NoAcl => "show and keep no access control lists",
            Self::NoXattrs => "1: show no extended attributes",
            Self::StaticNlink => "directories show a link count of 1",
            Self::Timeout => "SECONDS the kernel may remember names and attributes (default: ever)",
            Self::Threads => "number of threads that serve requests",
            Self::Threaded => "0: one thread",
            Self::Slow => {
                "SECONDS after which a request is named in the log; 0: never (default 10)"
            }
            Self::MaxWrite => "largest write request in bytes",
            Self::MaxRead => "largest read request in bytes",
            Self::Writeback => "0|1: cache writes and store them later (default 1)",
            Self::NoWriteback => "the same as writeback=0",
            Self::Data => {
                "auto|cached|passthrough: how data is read and written (default auto: cached)"
            }
            Self::NoRestart => "a daemon in the background that dies is not replaced",
            Self::NoSandbox => "the daemon keeps the privileges, paths and system calls it has",
            Self::FsName => "source that df and mount show",
            Self::Subtype => "X in the type fuse.X that df and mount show",
            Self::AllowOther => "let other users in (root always does)",
            Self::Set(_) | Self::Clear(_) => return None,
            Self::Granted | Self::GrantedIf(..) | Self::NoEffect(_) => return None,
        })
    }
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct OptionDef {
    /// Name, before the `=`.
    pub name: &'static str,
    /// Whether a value follows.
    pub takes: Takes,
    /// Where it is from.
    pub origin: Origin,
    /// What it does.
    pub meaning: Meaning,
}

impl OptionDef {
    /// The definition of option `name`.
    #[must_use]
    pub fn find(name: &[u8]) -> Option<&'static Self> {
        OPTIONS
            .iter()
            .find(|d| d.name.as_bytes() == name)
            .or_else(|| {
                let private = name.starts_with(b"x-") || name.starts_with(b"X-");
                private.then_some(&USER_SPACE)
            })
    }
}

/// Options of user space tools, `x-systemd.automount` for example (mount(8)).
static USER_SPACE: OptionDef = of(Origin::Mount, "x-*", Takes::Either, Meaning::Granted);

const fn of(origin: Origin, name: &'static str, takes: Takes, meaning: Meaning) -> OptionDef {
    OptionDef {
        name,
        takes,
        origin,
        meaning,
    }
}

const fn kernel(name: &'static str, takes: Takes, meaning: Meaning) -> OptionDef {
    of(Origin::Kernel, name, takes, meaning)
}

const fn rival(name: &'static str, takes: Takes, meaning: Meaning) -> OptionDef {
    of(Origin::FuseOverlayfs, name, takes, meaning)
}

const fn libfuse(name: &'static str, takes: Takes, meaning: Meaning) -> OptionDef {
    of(Origin::Libfuse, name, takes, meaning)
}

const fn flag(name: &'static str, meaning: Meaning) -> OptionDef {
    of(Origin::Mount, name, Takes::Nothing, meaning)
}

const NO_ID_MAP: &str = "see uidmapping, gidmapping and squash_to_uid";
const OWN_IO: &str = "plyfs decides itself how data moves and is cached";
const OWN_INO: &str = "plyfs decides itself how inode numbers are made";
const NO_LABEL: &str = "security labels of the layers are passed through as they are";
const NO_PROPAGATION: &str = "plyfs never changes how mounts propagate";

use Meaning::{Clear, Granted, GrantedIf, NoEffect, Set};
use Takes::{Either, Nothing, Value};

/// Every option plyfs knows.
pub static OPTIONS: &[OptionDef] = &[
    // Layers.
    kernel("lowerdir", Value, Meaning::Lowers),
    kernel("lowerdir+", Value, Meaning::LowerAppend),
    kernel("datadir+", Value, Meaning::DataAppend),
    kernel("upperdir", Value, Meaning::Upper),
    kernel("workdir", Value, Meaning::Work),
    // Kernel overlayfs.
    kernel("redirect_dir", Value, Meaning::RedirectDir),
    kernel("metacopy", Value, Meaning::Metacopy),
    kernel("index", Value, Meaning::Index),
    kernel("userxattr", Nothing, Meaning::UserXattr),
    kernel("volatile", Nothing, Meaning::Volatile),
    kernel("xino", Value, GrantedIf(&["on", "auto", "off"], OWN_INO)),
    kernel(
        "nfs_export",
        Value,
        GrantedIf(&["off"], "export by NFS is not implemented"),
    ),
    kernel(
        "uuid",
        Value,
        GrantedIf(&["auto", "null", "off"], "a FUSE mount has no UUID"),
    ),
    kernel(
        "verity",
        Value,
        GrantedIf(&["off"], "fs-verity digests are not checked"),
    ),
    kernel("override_creds", Nothing, Granted),
    kernel(
        "nooverride_creds",
        Nothing,
        NoEffect("layers are accessed as the daemon's user"),
    ),
    // fuse-overlayfs.
    rival("timeout", Value, Meaning::Timeout),
    rival("fsync", Value, Meaning::Fsync),
    rival("threaded", Value, Meaning::Threaded),
    rival("uidmapping", Value, Meaning::UidMapping),
    rival("gidmapping", Value, Meaning::GidMapping),
    rival("squash_to_root", Nothing, Meaning::SquashToRoot),
    rival("squash_to_uid", Value, Meaning::SquashToUid),
    rival("squash_to_gid", Value, Meaning::SquashToGid),
    rival("xattr_permissions", Value, Meaning::XattrPermissions),
    rival("fast_ino", Value, NoEffect(OWN_INO)),
    rival("fast_ino_check", Value, NoEffect(OWN_INO)),
    rival("ino32_t", Nothing, NoEffect(OWN_INO)),
    rival("static_nlink", Nothing, Meaning::StaticNlink),
    rival("noacl", Nothing, Meaning::NoAcl),
    rival("noxattrs", Either, Meaning::NoXattrs),
    rival("writeback", Either, Meaning::Writeback),
    of(Origin::Plyfs, "nowriteback", Nothing, Meaning::NoWriteback),
    rival(
        "plugins",
        Value,
        NoEffect("layer plugins are not implemented"),
    ),
    // plyfs and libfuse.
    of(Origin::Plyfs, "threads", Value, Meaning::Threads),
    of(Origin::Plyfs, "slow", Value, Meaning::Slow),
    of(Origin::Plyfs, "data", Value, Meaning::Data),
    of(Origin::Plyfs, "norestart", Nothing, Meaning::NoRestart),
    of(Origin::Plyfs, "nosandbox", Nothing, Meaning::NoSandbox),
    libfuse("max_threads", Value, Meaning::Threads),
    libfuse("max_write", Value, Meaning::MaxWrite),
    libfuse("max_read", Value, Meaning::MaxRead),
    libfuse("fsname", Value, Meaning::FsName),
    libfuse("subtype", Value, Meaning::Subtype),
    libfuse("allow_other", Nothing, Meaning::AllowOther),
    libfuse(
        "allow_root",
        Nothing,
        NoEffect("root cannot be told from others; see allow_other"),
    ),
    libfuse("default_permissions", Nothing, Granted),
    libfuse("nonempty", Nothing, Granted),
    libfuse("use_ino", Nothing, Granted),
    libfuse("readdir_ino", Nothing, Granted),
    libfuse("intr", Nothing, Granted),
    libfuse("big_writes", Nothing, Granted),
    libfuse("debug", Nothing, NoEffect("debugging is switched on by -d")),
    libfuse(
        "auto_unmount",
        Nothing,
        NoEffect("the mount ends with the daemon anyway, unless killed"),
    ),
    libfuse("kernel_cache", Nothing, NoEffect(OWN_IO)),
    libfuse("auto_cache", Nothing, NoEffect(OWN_IO)),
    libfuse("direct_io", Nothing, NoEffect(OWN_IO)),
    libfuse("clone_fd", Nothing, NoEffect(OWN_IO)),
    libfuse("splice_read", Nothing, NoEffect(OWN_IO)),
    libfuse("splice_write", Nothing, NoEffect(OWN_IO)),
    libfuse("splice_move", Nothing, NoEffect(OWN_IO)),
    libfuse("async_read", Nothing, NoEffect(OWN_IO)),
    libfuse("sync_read", Nothing, NoEffect(OWN_IO)),
    libfuse("max_readahead", Value, NoEffect(OWN_IO)),
    libfuse("max_background", Value, NoEffect(OWN_IO)),
    libfuse("congestion_threshold", Value, NoEffect(OWN_IO)),
    libfuse(
        "max_idle_threads",
        Value,
        NoEffect("the number of threads is fixed; see threads="),
    ),
    libfuse(
        "entry_timeout",
        Value,
        NoEffect("one timeout serves all; see timeout="),
    ),
    libfuse(
        "attr_timeout",
        Value,
        NoEffect("one timeout serves all; see timeout="),
    ),
    libfuse(
        "negative_timeout",
        Value,
        NoEffect("one timeout serves all; see timeout="),
    ),
    libfuse("uid", Value, NoEffect(NO_ID_MAP)),
    libfuse("gid", Value, NoEffect(NO_ID_MAP)),
    libfuse("umask", Value, NoEffect("modes are shown as they are")),
    // Labels.
    flag_value("context", NoEffect(NO_LABEL)),
    flag_value("fscontext", NoEffect(NO_LABEL)),
    flag_value("defcontext", NoEffect(NO_LABEL)),
    flag_value("rootcontext", NoEffect(NO_LABEL)),
    // Flags of any mount.
    flag("ro", Set(MountFlags::RDONLY)),
    flag("rw", Clear(MountFlags::RDONLY)),
    flag("suid", Clear(MountFlags::NOSUID)),
    flag("nosuid", Set(MountFlags::NOSUID)),
    flag("dev", Clear(MountFlags::NODEV)),
    flag("nodev", Set(MountFlags::NODEV)),
    flag("exec", Clear(MountFlags::NOEXEC)),
    flag("noexec", Set(MountFlags::NOEXEC)),
    flag("sync", Set(MountFlags::SYNCHRONOUS)),
    flag("async", Clear(MountFlags::SYNCHRONOUS)),
    flag("dirsync", Set(MountFlags::DIRSYNC)),
    flag("atime", Clear(MountFlags::NOATIME)),
    flag("noatime", Set(MountFlags::NOATIME)),
    flag("diratime", Clear(MountFlags::NODIRATIME)),
    flag("nodiratime", Set(MountFlags::NODIRATIME)),
    flag("symfollow", Clear(MountFlags::NOSYMFOLLOW)),
    flag("nosymfollow", Set(MountFlags::NOSYMFOLLOW)),
    flag("relatime", NoEffect(ATIME)),
    flag("norelatime", NoEffect(ATIME)),
    flag("strictatime", NoEffect(ATIME)),
    flag("nostrictatime", NoEffect(ATIME)),
    flag("lazytime", NoEffect(ATIME)),
    flag("nolazytime", Granted),
    flag("mand", NoEffect("Linux has no mandatory locks any more")),
    flag("nomand", Granted),
    flag("iversion", NoEffect("FUSE has no inode versions")),
    flag("noiversion", Granted),
    // fstab and its readers.
    flag("defaults", Granted),
    flag("auto", Granted),
    flag("noauto", Granted),
    flag("user", Granted),
    flag("nouser", Granted),
    flag("users", Granted),
    flag("nousers", Granted),
    flag("owner", Granted),
    flag("noowner", Granted),
    flag("group", Granted),
    flag("nogroup", Granted),
    flag("nofail", Granted),
    flag("_netdev", Granted),
    flag("silent", Granted),
    flag("loud", Granted),
    flag_value("comment", Granted),
    flag("remount", Meaning::Remount),
    // Propagation: containers/storage passes `private` to every mount program.
    flag("private", Granted),
    flag("rprivate", Granted),
    flag("shared", NoEffect(NO_PROPAGATION)),
    flag("rshared", NoEffect(NO_PROPAGATION)),
    flag("slave", NoEffect(NO_PROPAGATION)),
    flag("rslave", NoEffect(NO_PROPAGATION)),
    flag("unbindable", NoEffect(NO_PROPAGATION)),
    flag("runbindable", NoEffect(NO_PROPAGATION)),
    flag("bind", NoEffect(NO_PROPAGATION)),
    flag("rbind", NoEffect(NO_PROPAGATION)),
];

const ATIME: &str = "access times of the layers are never updated by reading";

const fn flag_value(name: &'static str, meaning: Meaning) -> OptionDef {
    of(Origin::Mount, name, Either, meaning)
}
