//! Reading: many small files, one large file in several ways.
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

use super::Done;
use super::clients::share_files;
use crate::fixture::BLOCK;
use crate::site::Site;

/// What a read asks for at a time.
const BUFFER: usize = 1 << 20;

/// Opens, reads and closes every file.
pub(super) fn small(site: &Site) -> Result<Done> {
    each_small(site, &site.built.files)
}

/// The same by many clients, each with files of its own.
pub(super) fn small_shared<const CLIENTS: usize>(site: &Site) -> Result<Done> {
    share_files::<CLIENTS>(site, each_small)
}

fn each_small(site: &Site, files: &[PathBuf]) -> Result<Done> {
    let mut buffer = vec![0; 16 << 10];
    let mut done = Done::units(0);
    for file in files {
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
        count_blocks(&buffer[..filled], &mut done)?;
    }
}

/// Looks at the mark of each block and counts it: blocks follow those that are counted.
fn count_blocks(buffer: &[u8], done: &mut Done) -> Result<()> {
    for block in buffer.chunks(BLOCK) {
        let mark = block
            .first_chunk::<8>()
            .map(|mark| u64::from_le_bytes(*mark));
        ensure!(mark == Some(done.units), "block {} is wrong", done.units);
        done.units += 1;
    }
    done.bytes += buffer.len() as u64;
    Ok(())
}

/// Reads the large file through a mapping, from its beginning to its end.
pub(super) fn big_mapped(site: &Site) -> Result<Done> {
    let path = site.path("big");
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let size = usize::try_from(file.metadata()?.len())?;
    let (read, private) = (libc::PROT_READ, libc::MAP_PRIVATE);
    let map = MmapRegion::<()>::build(Some(FileOffset::new(file, 0)), size, read, private)?;
    let mut buffer = vec![0; BUFFER];
    let mut done = Done::units(0);
    for at in (0..size).step_by(BUFFER) {
        let part = &mut buffer[..BUFFER.min(size - at)];
        map.get_slice(at, part.len())?.read_slice(part, 0)?;
        count_blocks(part, &mut done)?;
    }
    Ok(done)
}

/// Reads the large file past the page cache.
pub(super) fn big_direct(site: &Site) -> Result<Done> {
    let path = site.path("big");
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut memory = vec![0; BUFFER + BLOCK];
    let aligned = memory.as_ptr().align_offset(BLOCK);
    let buffer = &mut memory[aligned..aligned + BUFFER];
    let mut done = Done::units(0);
    while done.bytes < site.sizes.big {
        let read = file.read_at(buffer, done.bytes).context("read")?;
        ensure!(read > 0, "the file ends at {}", done.bytes);
        count_blocks(&buffer[..read], &mut done)?;
    }
    Ok(done)
}

/// One block of so many is read by [`big_random`].
const EVERY: u64 = 16;
/// The golden ratio of 64 bits: multiples of it are spread evenly and in no order.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Reads blocks here and there in the large file.
pub(super) fn big_random(site: &Site) -> Result<Done> {
    let path = site.path("big");
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let blocks = site.sizes.big / BLOCK as u64;
    let mut block = [0; BLOCK];
    let mut done = Done::units(0);
    while done.units < blocks / EVERY {
        let number = (u128::from(done.units.wrapping_mul(SPREAD)) * u128::from(blocks)) >> 64;
        let number = u64::try_from(number)?;
        file.read_exact_at(&mut block, number * BLOCK as u64)
            .context("read")?;
        let mark = block.first_chunk::<8>();
        let mark = mark.map(|mark| u64::from_le_bytes(*mark));
        ensure!(mark == Some(number), "block {number} is wrong");
        done.units += 1;
        done.bytes += BLOCK as u64;
    }
    Ok(done)
}

/// A part of the blocks.
pub(super) fn big_random_expect(site: &Site) -> Done {
    let units = site.sizes.big / BLOCK as u64 / EVERY;
    Done {
        units,
        bytes: units * BLOCK as u64,
    }
}

/// Every block and every byte.
pub(super) fn big_expect(site: &Site) -> Done {
    Done {
        units: site.sizes.big / BLOCK as u64,
        bytes: site.sizes.big,
    }
}
