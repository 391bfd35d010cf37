//! What one name means in one directory of one layer.
use std::os::fd::BorrowedFd;

use plyfs_format::names::XattrNamespace;
use plyfs_format::whiteout;
use plyfs_sys::stat::{Kind, Stat};
use plyfs_sys::{At, Name, Result, stat, xattr};

/// What a name means in a layer.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// Nothing; deeper layers decide.
    Absent,
    /// The name is deleted; deeper layers are hidden.
    Whiteout,
    /// An object.
    Found(Stat),
}

/// Probes `name` in `dir`. `xwhiteouts` says that the directory may hold whiteouts in the form of
/// empty files with an xattr (opaque mark "x", `ovl_path_check_xwhiteout_xattr()`).
///
/// # Errors
/// Anything but absence: EIO, EACCES and the like.
pub fn probe(
    dir: BorrowedFd<'_>,
    name: &Name,
    ns: XattrNamespace,
    xwhiteouts: bool,
) -> Result<Probe> {
    let at = At::entry(dir, name);
    let Some(found) = stat::stat_opt(at)? else {
        return Ok(Probe::Absent);
    };
    if whiteout::is_whiteout_dev(found.mode, found.rdev.0, found.rdev.1) {
        return Ok(Probe::Whiteout);
    }
    if xwhiteouts && found.kind() == Kind::File && found.size == 0 {
        let mark = xattr::get(at, ns.whiteout().as_bytes())?;
        if mark.is_some() {
            return Ok(Probe::Whiteout);
        }
    }
    Ok(Probe::Found(found))
}

#[cfg(test)]
mod tests;
