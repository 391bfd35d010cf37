//! Reading: many small files, one large file.
use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::Done;
use crate::fixture::BLOCK;
use crate::site::Site;

/// What a read asks for at a time.
const BUFFER: usize = 1 << 20;

/// Opens, reads and closes every file.
pub(super) fn small(site: &Site) -> Result<Done> {
    let mut buffer = vec![0; 16 << 10];
    let mut done = Done::units(0);
    for file in &site.built.files {
        let path = site.path(file);
        let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        loop {
            let read = file
                .read(&mut buffer)
                .with_context(|| format!("{}", path.display()))?;
            if read == 0 {
                break;
            }
            done.bytes += read as u64;
        }
        done.units += 1;
    }
    Ok(done)
}

/// Every file and every byte.
pub(super) fn small_expect(site: &Site) -> Done {
    Done {
        units: site.built.files.len() as u64,
        bytes: site.built.bytes,
    }
}

/// Reads the large file and looks at the mark of every block.
pub(super) fn big(site: &Site) -> Result<Done> {
    let path = site.path("big");
    let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut buffer = vec![0; BUFFER];
    let mut done = Done::units(0);
    loop {
        let mut filled = 0;
        while filled < BUFFER {
            let read = file.read(&mut buffer[filled..])?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        if filled == 0 {
            return Ok(done);
        }
        for block in buffer[..filled].chunks(BLOCK) {
            let mark = block
                .first_chunk::<8>()
                .map(|mark| u64::from_le_bytes(*mark));
            ensure!(
                mark == Some(done.units),
                "block {} of {} is wrong",
                done.units,
                path.display()
            );
            done.units += 1;
        }
        done.bytes += filled as u64;
    }
}

/// Every block and every byte.
pub(super) fn big_expect(site: &Site) -> Done {
    Done {
        units: site.sizes.big / BLOCK as u64,
        bytes: site.sizes.big,
    }
}
