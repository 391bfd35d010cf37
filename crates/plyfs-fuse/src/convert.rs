//! Between fuser's types and the engine's.
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{FileType, TimeOrNow};
use plyfs_sys::attr::SetTime;
use plyfs_sys::stat::{Kind, Time};
use plyfs_union::{Caller, Cookie, Error};

/// Who sent a request.
pub(crate) fn caller(req: &fuser::Request, umask: u32) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
        umask,
        drops_suid: false,
    }
}

/// The errno of an error, logged when it is none that programs meet in ordinary work.
pub(crate) fn errno(op: &'static str, node: u64, e: &Error) -> fuser::Errno {
    if e.is_ordinary() {
        tracing::debug!("{op} of inode {node}: {e}");
    } else {
        tracing::warn!("{op} of inode {node}: {e}");
    }
    fuser::Errno::from_i32(e.errno() as i32)
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

pub(crate) fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::To(time(t)),
    }
}

/// fuser 0.18 makes of (-s, ns) the moment s + ns before 1970 (`system_time_from_time()`), which
/// is not what the kernel meant; taking the two apart again gives back exactly (-s, ns).
fn time(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time {
            sec: d.as_secs().cast_signed(),
            nsec: d.subsec_nanos(),
        },
        Err(before) => {
            let d = before.duration();
            Time {
                sec: -d.as_secs().cast_signed(),
                nsec: d.subsec_nanos(),
            }
        }
    }
}

/// The engine's time as fuser takes it.
pub(crate) fn system_time(t: Time) -> SystemTime {
    let nanos = std::time::Duration::from_nanos(u64::from(t.nsec));
    let whole = std::time::Duration::from_secs(t.sec.unsigned_abs());
    let second = if t.sec < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|s| s.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

/// Device number as FUSE sends it (`new_encode_dev()`).
pub(crate) fn rdev_from_wire(rdev: u32) -> (u32, u32) {
    (
        (rdev & 0xf_ff00) >> 8,
        (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
    )
}

/// Device number as FUSE takes it (`new_decode_dev()`).
pub(crate) fn rdev_to_wire((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Place in a listing.
pub(crate) fn cookie(offset: u64) -> Cookie {
    Cookie(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn device_numbers_survive_the_wire() {
        for dev in [(0, 0), (1, 3), (8, 17), (259, 70_000), (0xfff, 0xf_ffff)] {
            assert_eq!(rdev_from_wire(rdev_to_wire(dev)), dev);
        }
    }

    #[test]
    fn times_before_1970_are_what_the_kernel_meant() {
        // What fuser makes of (-5, 250_000_000).
        let from_fuser = UNIX_EPOCH - Duration::new(5, 250_000_000);
        assert_eq!(
            time(from_fuser),
            Time {
                sec: -5,
                nsec: 250_000_000
            }
        );
        let shown = system_time(Time {
            sec: -5,
            nsec: 250_000_000,
        });
        assert_eq!(
            UNIX_EPOCH.duration_since(shown).unwrap(),
            Duration::new(4, 750_000_000)
        );
    }
}
