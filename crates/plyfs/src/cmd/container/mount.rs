//! `plyfs container mount` and `umount`.
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plyfs_image::Store;
use plyfs_image::store::containers::Container;
use plyfs_mount::MountSpec;
use plyfs_mount::spec::Invoker;
use plyfs_mount::state::{Watched, is_our_type};
use plyfs_sys::mount::{Unmount, mounts};

use crate::cmd::store;
use crate::{logging, output};

/// `plyfs container mount`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container
    pub name: String,
    /// Where to mount it; its own directory in the store otherwise
    pub dir: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `plyfs container umount`.
#[derive(Debug, clap::Args)]
pub(crate) struct UmountArgs {
    /// The container
    pub name: String,
    /// Take it from the tree now, even if it is in use; the daemon ends with its last user
    #[arg(short, long)]
    pub lazy: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Mounts and prints where.
pub(crate) fn run(args: &Args, root: Option<&Path>) -> anyhow::Result<()> {
    let store = store::open(root)?;
    let container = store.container(&args.name)?;
    let place = match (mounted_at(&container)?, &args.dir) {
        (Some(at), None) => at,
        (Some(at), Some(_)) => bail!("container {:?} is mounted at {at:?} already", args.name),
        (None, dir) => {
            let place = dir.clone().unwrap_or_else(|| container.merged());
            logging::start(false, false);
            mount_at(store, &container, &place)?;
            std::fs::canonicalize(&place).unwrap_or(place)
        }
    };
    if args.json {
        let told = serde_json::json!({ "name": container.name, "mountpoint": place });
        return output::line(serde_json::to_string_pretty(&told)?);
    }
    output::line(place.display())
}

/// Mounts a container in the background. The daemon does not hold the store: the container itself
/// keeps its layers.
pub(crate) fn mount_at(store: Store, container: &Container, place: &Path) -> anyhow::Result<()> {
    let mut spec = MountSpec::new(place.to_owned(), "plyfs", Invoker::current());
    spec.lowers = store.lower_dirs(&container.diff_ids)?;
    spec.upper = Some(container.upper());
    spec.work = Some(container.work());
    drop(store);
    crate::cmd::mount::start(spec, false)?;
    Ok(())
}

/// Where a container is mounted, as this process sees it.
pub(crate) fn mounted_at(container: &Container) -> anyhow::Result<Option<PathBuf>> {
    let upper = container.upper();
    for entry in mounts()?.into_iter().filter(|m| is_our_type(&m.fstype)) {
        let watched = Watched::open(entry.dev);
        let is_it = watched
            .and_then(|w| w.state.upper)
            .is_some_and(|u| u.to_path() == upper);
        if is_it || entry.target == container.merged() {
            return Ok(Some(entry.target));
        }
    }
    Ok(None)
}

/// Takes the mount away; where it was, if there was one.
pub(crate) fn unmount(container: &Container, how: Unmount) -> anyhow::Result<Option<PathBuf>> {
    let Some(place) = mounted_at(container)? else {
        return Ok(None);
    };
    plyfs_mount::unmount::unmount(&place, how)
        .with_context(|| format!("container {:?}", container.name))?;
    Ok(Some(place))
}

/// Unmounts.
pub(crate) fn umount(args: &UmountArgs, root: Option<&Path>) -> anyhow::Result<()> {
    let container = store::open(root)?.container(&args.name)?;
    let how = if args.lazy {
        Unmount::Lazy
    } else {
        Unmount::Idle
    };
    let Some(place) = unmount(&container, how)? else {
        bail!("container {:?} is not mounted", args.name);
    };
    if !args.json {
        return Ok(());
    }
    let told = serde_json::json!({ "name": container.name, "mountpoint": place });
    output::line(serde_json::to_string_pretty(&told)?)
}
