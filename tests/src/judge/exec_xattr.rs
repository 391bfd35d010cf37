//! Running the steps on extended attributes.

use std::os::fd::OwnedFd;

use rustix::fs::XattrFlags;

use super::exec::via_proc;
use super::ops::Op;
use super::outcome::Outcome;
use super::side::{Place, Side};
use super::text::Bytes;
use super::view::{list, value};

type Io<T> = rustix::io::Result<T>;

fn flag(nofollow: bool, follow: impl Fn() -> Io<usize>, not: impl Fn() -> Io<usize>) -> Io<usize> {
    if nofollow { not() } else { follow() }
}

/// Runs an xattr step.
pub(crate) fn xattr(side: &Side, op: &Op) -> Outcome {
    let (Op::Setxattr { path, .. }
    | Op::Getxattr { path, .. }
    | Op::Listxattr { path, .. }
    | Op::Removexattr { path, .. }) = op
    else {
        return Outcome::skipped();
    };
    let outcome = match side.place(path) {
        Place::Nowhere => Outcome::skipped(),
        Place::Open(fd) => fxattr(fd, op),
        Place::Path(dir, path) => path_xattr(&via_proc(dir, path), op),
    };
    // Removing an ACL that is not there works in the upper and fails in a lower, and who is in the
    // upper after an open for writing is left open.
    match op {
        Op::Removexattr { name, .. }
            if name.0.starts_with(b"system.posix_acl_") && outcome.ending() == "ENODATA" =>
        {
            Outcome::done()
        }
        _ => outcome,
    }
}

fn fxattr(fd: &OwnedFd, op: &Op) -> Outcome {
    match op {
        Op::Setxattr {
            name, value, flags, ..
        } => {
            let flags = XattrFlags::from_bits_retain(*flags);
            rustix::fs::fsetxattr(fd, name.0.as_slice(), &value.0, flags).into()
        }
        Op::Getxattr { name, .. } => bytes(value(|buf| {
            rustix::fs::fgetxattr(fd, name.0.as_slice(), buf)
        })),
        Op::Listxattr { .. } => name_list(list(|buf| rustix::fs::flistxattr(fd, buf))),
        Op::Removexattr { name, .. } => rustix::fs::fremovexattr(fd, name.0.as_slice()).into(),
        _ => Outcome::skipped(),
    }
}

fn path_xattr(path: &[u8], op: &Op) -> Outcome {
    match op {
        Op::Setxattr {
            name,
            value,
            flags,
            nofollow,
            ..
        } => {
            let (name, flags) = (name.0.as_slice(), XattrFlags::from_bits_retain(*flags));
            if *nofollow {
                rustix::fs::lsetxattr(path, name, &value.0, flags).into()
            } else {
                rustix::fs::setxattr(path, name, &value.0, flags).into()
            }
        }
        Op::Getxattr { name, nofollow, .. } => bytes(value(|buf| {
            let buf = std::cell::RefCell::new(buf);
            let name = name.0.as_slice();
            flag(
                *nofollow,
                || rustix::fs::getxattr(path, name, &mut **buf.borrow_mut()),
                || rustix::fs::lgetxattr(path, name, &mut **buf.borrow_mut()),
            )
        })),
        Op::Listxattr { nofollow, .. } => name_list(list(|buf| {
            let buf = std::cell::RefCell::new(buf);
            flag(
                *nofollow,
                || rustix::fs::listxattr(path, &mut **buf.borrow_mut()),
                || rustix::fs::llistxattr(path, &mut **buf.borrow_mut()),
            )
        })),
        Op::Removexattr { name, nofollow, .. } if *nofollow => {
            rustix::fs::lremovexattr(path, name.0.as_slice()).into()
        }
        Op::Removexattr { name, .. } => rustix::fs::removexattr(path, name.0.as_slice()).into(),
        _ => Outcome::skipped(),
    }
}

fn bytes(result: Io<Vec<u8>>) -> Outcome {
    match result {
        Ok(value) => Outcome::done().fact("value", Bytes(value)),
        Err(errno) => Outcome::error(errno),
    }
}

fn name_list(result: Io<Vec<Bytes>>) -> Outcome {
    match result {
        Ok(names) => Outcome::done().fact("names", format!("{names:?}")),
        Err(errno) => Outcome::error(errno),
    }
}
