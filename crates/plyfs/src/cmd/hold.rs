//! `plyfs hold`: what an older plyfs becomes by an upgrade. Nobody types it.
use std::process::ExitCode;

use anyhow::Context;
use plyfs_image::store::Use;
use plyfs_mount::MountError;
use plyfs_mount::heir::{HANDOVER, Heir};
use serde_json::json;

use crate::cmd::mount;
use crate::{logging, output};

/// `plyfs hold`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say which mounts could be taken over
    #[arg(long, conflicts_with = "numbers")]
    pub check: bool,
    /// Numbers of the descriptors of journal, plan and pipe
    #[arg(num_args = 3, required_unless_present = "check")]
    pub numbers: Vec<i32>,
}

/// Looks after the mount until it is gone.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.check {
        let told = json!({ "plyfs": env!("CARGO_PKG_VERSION"), "handover": HANDOVER });
        output::line(told)?;
        return Ok(ExitCode::SUCCESS);
    }
    let numbers = <[i32; 3]>::try_from(args.numbers.as_slice()).context("three numbers")?;
    let mut heir = Heir::receive(numbers)?;
    logging::start(false, false);
    let serve = match ready(&mut heir) {
        Ok((spec, used)) => mount::serving(spec, used),
        Err(e) => {
            heir.give_up(&e);
            return Err(e.into());
        }
    };
    let status = heir.hold(serve)?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

fn ready(heir: &mut Heir) -> Result<(plyfs_mount::MountSpec, Option<Use>), MountError> {
    let spec = heir.spec()?;
    let used = heir.plan.used();
    let used =
        used.map(|(path, lock)| Ok::<_, MountError>(Use::go_on(path, heir.left.take(lock)?)));
    Ok((spec, used.transpose()?))
}
