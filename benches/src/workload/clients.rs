//! Work of many clients at a time, each with a part of its own.
use std::path::PathBuf;

use anyhow::Result;

use super::Done;
use crate::site::Site;

/// Does `work` for all parts at once; what they did together.
pub(super) fn share<T: Send>(
    parts: Vec<T>,
    work: impl Fn(T) -> Result<Done> + Sync,
) -> Result<Done> {
    let work = &work;
    std::thread::scope(|scope| {
        let clients: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        let mut all = Done::units(0);
        for client in clients {
            let done = client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            all.units += done.units;
            all.bytes += done.bytes;
        }
        Ok(all)
    })
}

/// [`share`] of all files among so many clients, in order.
pub(super) fn share_files<const CLIENTS: usize>(
    site: &Site,
    work: impl Fn(&Site, &[PathBuf]) -> Result<Done> + Sync,
) -> Result<Done> {
    let size = site.built.files.len().div_ceil(CLIENTS).max(1);
    let parts = site.built.files.chunks(size).collect();
    share(parts, |files| work(site, files))
}
