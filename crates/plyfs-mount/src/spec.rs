//! The resolved meaning of a mount: which directories, which behaviour, which flags.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use plyfs_format::idmap::IdMap;
use plyfs_format::names::XattrNamespace;
use plyfs_fuse::{Data, SessionConfig};
use plyfs_sys::mount::MountFlags;
use plyfs_sys::process;
use plyfs_union::{OwnerStore, RedirectDir, UnionOptions};

use crate::options::{Given, Meaning, OptionError};

/// Most threads anybody can ask for.
const MAX_THREADS: usize = 256;
/// Largest request the kernel sends with its default page limit of FUSE (256 pages) and somewhat
/// more for kernels that allow it.
const MAX_REQUEST: u32 = 16 << 20;

/// How the mount shows up and who may enter.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// `x` of the type `fuse.x`.
    pub subtype: String,
    /// What `df` shows as the source.
    pub source: OsString,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Whether others than the user who mounts may enter.
    pub allow_other: bool,
    /// Largest READ request in bytes.
    pub max_read: Option<u32>,
}

/// A mount, ready to be assembled.
#[derive(Debug, Clone)]
pub struct MountSpec {
    /// Lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Layers below all lowers that hold nothing but the data of metacopy files.
    pub data_only: Vec<PathBuf>,
    /// The writable layer.
    pub upper: Option<PathBuf>,
    /// Where changes are staged.
    pub work: Option<PathBuf>,
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// A daemon in the background that dies is replaced.
    pub restart: bool,
    /// The daemon takes from itself what serving does not need.
    pub sandbox: bool,
    /// Change the flags of the mount that is there instead of making one.
    pub remount: bool,
    /// Behaviour of the merged view.
    pub union: UnionOptions,
    /// Behaviour of the connection.
    pub session: SessionConfig,
    /// Appearance.
    pub settings: MountSettings,
    /// The options as they were given, for those who ask what is in force.
    pub given: Vec<Given>,
}

/// Who mounts; decides the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invoker {
    /// User 0 of its user namespace, who can mount without help.
    Root,
    /// An ordinary user.
    User,
}

impl Invoker {
    /// The user this process runs as.
    #[must_use]
    pub fn current() -> Self {
        if process::euid() == 0 {
            Self::Root
        } else {
            Self::User
        }
    }
}

impl MountSpec {
    /// A mount on `mountpoint` with the defaults for `who`: root lets everybody in and keeps
    /// suid bits and devices, as kernel overlayfs and fuse-overlayfs do.
    #[must_use]
    pub fn new(mountpoint: PathBuf, subtype: &str, who: Invoker) -> Self {
        let flags = match who {
            Invoker::Root => MountFlags::NOATIME,
            Invoker::User => MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV,
        };
        Self {
            lowers: Vec::new(),
            data_only: Vec::new(),
            upper: None,
            work: None,
            mountpoint,
            restart: true,
            sandbox: true,
            remount: false,
            union: UnionOptions::default(),
            session: SessionConfig::default(),
            settings: MountSettings {
                subtype: subtype.to_owned(),
                source: subtype.into(),
                flags,
                allow_other: who == Invoker::Root,
                max_read: None,
            },
            given: Vec::new(),
        }
    }

    /// Whether the mount can be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.upper.is_none() || self.settings.flags.contains(MountFlags::RDONLY)
    }

    /// Applies options in their order; a later one wins over an earlier one.
    ///
    /// # Errors
    /// A value that cannot be understood.
    pub fn apply(&mut self, options: &[Given]) -> Result<(), OptionError> {
        self.given.extend_from_slice(options);
        options.iter().try_for_each(|given| self.apply_one(given))
    }

    fn apply_one(&mut self, given: &Given) -> Result<(), OptionError> {
        let path = || PathBuf::from(OsString::from_vec(given.value()));
        match given.def.meaning {
            Meaning::Lowers => (self.lowers, self.data_only) = lowers(given)?,
            Meaning::LowerAppend => self.lowers.push(path()),
            Meaning::DataAppend => self.data_only.push(path()),
            Meaning::Upper => self.upper = Some(path()),
            Meaning::Work => self.work = Some(path()),
            Meaning::RedirectDir => self.union.redirect_dir = redirect_dir(given)?,
            Meaning::Metacopy => self.union.metacopy = switch(given)?,
            Meaning::Index => self.union.index = switch(given)?,
            Meaning::UserXattr => self.union.xattr_namespace = Some(XattrNamespace::User),
            Meaning::Volatile => self.union.volatile = true,
            Meaning::Fsync => self.union.volatile = !switch(given)?,
            Meaning::UidMapping => self.union.ownership.uids = id_map(given)?,
            Meaning::GidMapping => self.union.ownership.gids = id_map(given)?,
            Meaning::SquashToRoot => {
                let ids = &mut self.union.ownership;
                ids.squash_uid.get_or_insert(0);
                ids.squash_gid.get_or_insert(0);
            }
            Meaning::SquashToUid => self.union.ownership.squash_uid = Some(id(given)?),
            Meaning::SquashToGid => self.union.ownership.squash_gid = Some(id(given)?),
            Meaning::XattrPermissions => self.union.ownership.store = owner_store(given)?,
            Meaning::NoAcl => self.union.acl = false,
            Meaning::NoXattrs => self.union.xattrs = !(given.value().is_empty() || switch(given)?),
            Meaning::StaticNlink => self.union.static_nlink = true,
            Meaning::Timeout => self.session.timeout = seconds(given)?,
            Meaning::Threads => self.session.threads = threads(given)?,
            Meaning::Threaded => {
                let many = SessionConfig::default().threads;
                self.session.threads = if switch(given)? { many } else { 1 };
            }
            Meaning::Slow => self.session.slow = slow(given)?,
            Meaning::MaxWrite => self.session.max_write = request_size(given)?,
            Meaning::MaxRead => self.settings.max_read = Some(request_size(given)?),
            Meaning::Writeback => {
                self.session.writeback = given.value().is_empty() || switch(given)?
            }
            Meaning::NoWriteback => self.session.writeback = false,
            Meaning::Data => self.session.data = data(given)?,
            Meaning::NoRestart => self.restart = false,
            Meaning::NoSandbox => self.sandbox = false,
            Meaning::FsName => self.settings.source = OsString::from_vec(given.value()),
            Meaning::Subtype => self.settings.subtype = subtype(given)?,
            Meaning::AllowOther => self.settings.allow_other = true,
            Meaning::Remount => self.remount = true,
            Meaning::Set(flag) => self.settings.flags.insert(flag),
            Meaning::Clear(flag) => self.settings.flags.remove(flag),
            Meaning::Granted | Meaning::GrantedIf(..) | Meaning::NoEffect(_) => {}
        }
        Ok(())
    }
}

fn bad(given: &Given, expected: &'static str) -> OptionError {
    OptionError::BadValue {
        name: given.def.name,
        value: given.text(),
        expected,
    }
}

/// Lower layers, and behind `::` data-only layers, each with two colons before it.
fn lowers(given: &Given) -> Result<(Vec<PathBuf>, Vec<PathBuf>), OptionError> {
    let (mut lowers, mut data) = (Vec::new(), Vec::new());
    let mut doubled = false;
    let mut start = true;
    for name in given.list() {
        let path = PathBuf::from(OsString::from_vec(name));
        let empty = path.as_os_str().is_empty();
        if (empty && (doubled || start)) || (!empty && !doubled && !data.is_empty()) {
            return Err(bad(given, LOWERDIR));
        }
        start = false;
        match (empty, doubled) {
            (true, _) => {}
            (false, true) => data.push(path),
            (false, false) => lowers.push(path),
        }
        doubled = empty;
    }
    if doubled || start {
        Err(bad(given, LOWERDIR))
    } else {
        Ok((lowers, data))
    }
}

const LOWERDIR: &str = "directories with one colon between them, and two before each data-only \
                        layer at the end (write \\: for a colon in a path)";

fn switch(given: &Given) -> Result<bool, OptionError> {
    match given.text().as_str() {
        "on" | "1" => Ok(true),
        "off" | "0" => Ok(false),
        _ => Err(bad(given, "on or off")),
    }
}

/// `auto` is `cached`, where opens cost no request (docs/performance.md).
fn data(given: &Given) -> Result<Data, OptionError> {
    match given.text().as_str() {
        "auto" | "cached" => Ok(Data::Cached),
        "passthrough" => Ok(Data::Passthrough),
        _ => Err(bad(given, "auto, cached or passthrough")),
    }
}

/// `off` follows existing redirects, as in the kernel with its module's default
/// `redirect_always_follow`.
fn redirect_dir(given: &Given) -> Result<RedirectDir, OptionError> {
    match given.text().as_str() {
        "on" => Ok(RedirectDir::On),
        "follow" | "off" => Ok(RedirectDir::Follow),
        "nofollow" => Ok(RedirectDir::NoFollow),
        _ => Err(bad(given, "on, follow, nofollow or off")),
    }
}

fn seconds(given: &Given) -> Result<Duration, OptionError> {
    let expected = "seconds, for example 1.5";
    let number: f64 = given.text().parse().map_err(|_| bad(given, expected))?;
    if number.is_nan() || number < 0.0 {
        return Err(bad(given, expected));
    }
    Ok(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
}

/// 0 is "never", as nobody wants every request logged as slow.
fn slow(given: &Given) -> Result<Duration, OptionError> {
    let limit = seconds(given)?;
    Ok(if limit.is_zero() {
        Duration::MAX
    } else {
        limit
    })
}

/// Ids on disk and those to show for them.
fn id_map(given: &Given) -> Result<IdMap, OptionError> {
    let expected = "DISK:SHOWN:COUNT and more of these, apart from each other, none empty";
    IdMap::parse(&given.text()).map_err(|_| bad(given, expected))
}

fn id(given: &Given) -> Result<u32, OptionError> {
    let number: Option<u32> = given.text().parse().ok();
    number
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| bad(given, "a number from 0 to 4294967294"))
}

fn owner_store(given: &Given) -> Result<OwnerStore, OptionError> {
    match given.text().as_str() {
        "0" => Ok(OwnerStore::Objects),
        "1" => Ok(OwnerStore::SecurityMark),
        "2" => Ok(OwnerStore::UserMark),
        _ => Err(bad(given, "0, 1 or 2")),
    }
}

fn threads(given: &Given) -> Result<usize, OptionError> {
    let number: Option<usize> = given.text().parse().ok();
    number
        .filter(|n| (1..=MAX_THREADS).contains(n))
        .ok_or_else(|| bad(given, "a number from 1 to 256"))
}

fn request_size(given: &Given) -> Result<u32, OptionError> {
    let number: Option<u32> = given.text().parse().ok();
    number
        .filter(|n| (4096..=MAX_REQUEST).contains(n))
        .ok_or_else(|| bad(given, "a number of bytes from 4096 to 16777216"))
}

/// The subtype becomes part of a mount option of the helper, so it is kept to plain words.
fn subtype(given: &Given) -> Result<String, OptionError> {
    let word = given.text();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if word.chars().all(plain) {
        Ok(word)
    } else {
        Err(bad(given, "letters, digits, - _ and ."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Mode, Parsed, parse};

    fn spec(options: &str, who: Invoker) -> Result<MountSpec, OptionError> {
        let mut parsed = Parsed::default();
        parse(options.as_bytes(), Mode::Strict, &mut parsed)?;
        let mut spec = MountSpec::new("/m".into(), "plyfs", who);
        spec.apply(&parsed.given).map(|()| spec)
    }

    #[test]
    fn values_mean_what_they_say() {
        let s = spec(
            "lowerdir=/a\\:b:c,lowerdir+=/d:e,upperdir=u,workdir=w,redirect_dir=on,\
             metacopy=on,index=off,userxattr,timeout=2.5,threads=3,max_write=65536,fsname=x,nosuid,fsync=0",
            Invoker::Root,
        )
        .unwrap();
        assert_eq!(s.lowers, [PathBuf::from("/a:b"), "c".into(), "/d:e".into()]);
        assert_eq!(s.upper, Some("u".into()));
        assert_eq!(s.union.redirect_dir, RedirectDir::On);
        assert!(s.union.volatile && s.union.metacopy);
        assert_eq!(s.union.xattr_namespace, Some(XattrNamespace::User));
        assert_eq!(s.session.timeout, Duration::from_millis(2500));
        assert_eq!((s.session.threads, s.session.max_write), (3, 65536));
        assert_eq!(s.settings.source, "x");
        assert_eq!(s.settings.flags, MountFlags::NOATIME | MountFlags::NOSUID);
        assert!(s.settings.allow_other);
    }

    #[test]
    fn writes_are_cached_unless_told_not_to() {
        for (options, cached) in [
            ("lowerdir=/a", true),
            ("lowerdir=/a,writeback=0", false),
            ("lowerdir=/a,nowriteback", false),
            ("lowerdir=/a,nowriteback,writeback", true),
        ] {
            let s = spec(options, Invoker::Root).unwrap();
            assert_eq!(s.session.writeback, cached, "{options}");
        }
    }

    #[test]
    fn ordinary_users_mount_without_suid_and_devices() {
        let s = spec("lowerdir=/a", Invoker::User).unwrap();
        assert!(
            s.settings
                .flags
                .contains(MountFlags::NOSUID | MountFlags::NODEV)
        );
        assert!(!s.settings.allow_other && s.is_read_only());
    }

    #[test]
    fn the_last_option_wins() {
        let s = spec(
            "nodev,dev,ro,rw,noatime,atime,lowerdir=/a,lowerdir=/b",
            Invoker::Root,
        )
        .unwrap();
        assert!(s.settings.flags.is_empty());
        assert_eq!(s.lowers, [PathBuf::from("/b")]);
    }

    #[test]
    fn owners_are_mapped_as_clients_ask() {
        let s = spec(
            "lowerdir=/a,uidmapping=:0:1000:1:1:100000:65536,gidmapping=0:5:1,squash_to_root,squash_to_gid=7,\
             xattr_permissions=2,noacl,noxattrs=1,static_nlink",
            Invoker::Root,
        )
        .unwrap();
        let own = &s.union.ownership;
        assert_eq!(
            (own.uids.to_host(0), own.uids.to_host(2)),
            (Some(1000), Some(100_001))
        );
        assert_eq!(
            (own.gids.to_container(5), own.gids.to_container(0)),
            (Some(0), None)
        );
        assert_eq!((own.squash_uid, own.squash_gid), (Some(0), Some(7)));
        assert_eq!(own.store, OwnerStore::UserMark);
        assert!(!s.union.acl && !s.union.xattrs && s.union.static_nlink);
    }

    #[test]
    fn data_is_cached_unless_it_is_to_be_passed_through() {
        for (options, data) in [
            ("lowerdir=/a", Data::Cached),
            ("lowerdir=/a,data=auto", Data::Cached),
            ("lowerdir=/a,data=passthrough,data=cached", Data::Cached),
            ("lowerdir=/a,data=passthrough", Data::Passthrough),
        ] {
            let s = spec(options, Invoker::Root).unwrap();
            assert_eq!(s.session.data, data, "{options}");
        }
    }

    #[test]
    fn data_only_layers_stand_behind_two_colons() {
        let s = spec("lowerdir=/a:/b::/c::/d\\:e,datadir+=/f", Invoker::Root).unwrap();
        assert_eq!(s.lowers, [PathBuf::from("/a"), PathBuf::from("/b")]);
        let data = ["/c", "/d:e", "/f"].map(PathBuf::from);
        assert_eq!(s.data_only, data);
    }

    #[test]
    fn values_without_meaning_are_errors() {
        for options in [
            "timeout=abc",
            "timeout=-1",
            "timeout=nan",
            "threads=0",
            "threads=999",
            "max_write=1",
            "max_read=99999999999",
            "redirect_dir=maybe",
            "redirect_dir=1",
            "lowerdir=/a::",
            "lowerdir=/a:::/b",
            "lowerdir=/a::/b:/c",
            "lowerdir=::/a",
            "lowerdir=:/a",
            "subtype=a,b=\\,",
            "index=",
            "uidmapping=0:1",
            "gidmapping=0:0:0",
            "uidmapping=0:0:5:3:9:1",
            "squash_to_uid=root",
            "squash_to_gid=-1",
            "xattr_permissions=3",
            "fsync=2",
            "writeback=2",
            "data=fast",
        ] {
            assert!(spec(options, Invoker::Root).is_err(), "{options}");
        }
        assert_eq!(
            spec("timeout=1e300", Invoker::Root)
                .unwrap()
                .session
                .timeout,
            Duration::MAX
        );
    }
}
