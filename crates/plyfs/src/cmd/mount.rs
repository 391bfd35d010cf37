//! `plyfs mount`: the strict grammar, where every word must mean something.
use std::os::unix::ffi::OsStrExt;

use anyhow::bail;
use plyfs_mount::options::{Meaning, Mode, Parsed, parse};
use plyfs_mount::spec::Invoker;
use plyfs_mount::{MountError, MountSpec, daemonize, session};

use crate::args::MountArgs;
use crate::logging;

/// Mounts; returns once the mount answers, or with --foreground once it is gone.
pub(crate) fn run(args: MountArgs) -> anyhow::Result<()> {
    let foreground = args.foreground || args.debug;
    logging::start(args.debug);
    Ok(start(spec(args)?, foreground)?)
}

/// Mounts what is specified, here or in a daemon.
pub(crate) fn start(spec: MountSpec, foreground: bool) -> Result<(), MountError> {
    if spec.remount {
        return session::remount(&spec);
    }
    if foreground {
        session::serve(spec, &mut daemonize::Ready::nobody_waits())
    } else {
        daemonize::in_background(|ready| session::serve(spec, ready))
    }
}

fn spec(args: MountArgs) -> anyhow::Result<MountSpec> {
    let mut parsed = Parsed::default();
    for options in &args.options {
        parse(options.as_bytes(), Mode::Strict, &mut parsed)?;
    }
    let mut spec = MountSpec::new(args.mountpoint, "plyfs", Invoker::current());
    spec.apply(&parsed.given)?;
    for given in &parsed.given {
        let twice = match given.def.meaning {
            Meaning::Lowers | Meaning::LowerAppend => !args.lowers.is_empty(),
            Meaning::Upper => args.upper.is_some(),
            Meaning::Work => args.work.is_some(),
            _ => false,
        };
        if twice {
            let name = given.def.name;
            bail!("-o {name}= and the argument that says the same are both given: leave one out");
        }
    }
    if !args.lowers.is_empty() {
        spec.lowers = args.lowers;
    }
    spec.upper = spec.upper.or(args.upper);
    spec.work = spec.work.or(args.work);
    Ok(spec)
}
