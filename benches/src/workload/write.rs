//! Writing: large files, rewrites, small files, an archive, the first write to a lower file.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::clients::share;
use super::{Done, read};
use crate::fixture::{BLOCK, LITTLE, fill_block, medium_size, small_content, small_path, walk};
use crate::site::Site;

const CHUNK: usize = 1 << 20;
/// How often [`rewrite`] goes over its file.
const TIMES: u64 = 8;

/// Writes a new file in large pieces.
pub(super) fn big(site: &Site) -> Result<Done> {
    let mut chunk = vec![0; CHUNK];
    for (number, block) in (0..).zip(chunk.chunks_mut(BLOCK)) {
        fill_block(block, number);
    }
    let mut file = File::create_new(site.path("big")).context("create")?;
    let (mut done, blocks) = (Done::units(0), (CHUNK / BLOCK) as u64);
    while done.bytes < site.sizes.big {
        for (number, block) in (done.units..).zip(chunk.chunks_mut(BLOCK)) {
            block[..8].copy_from_slice(&number.to_le_bytes());
        }
        file.write_all(&chunk).context("write")?;
        done = Done {
            units: done.units + blocks,
            bytes: done.bytes + CHUNK as u64,
        };
    }
    Ok(done)
}

/// Every block and every byte.
pub(super) fn big_expect(site: &Site) -> Done {
    read::big_expect(site)
}

/// Reads it back, and takes it away before its dirty pages cost the next sample.
pub(super) fn big_check(site: &Site) -> Result<()> {
    let done = read::big(site)?;
    ensure!(
        done == big_expect(site),
        "{done:?} came back, {:?} was written",
        big_expect(site)
    );
    fs::remove_file(site.path("big")).context("remove")
}

/// Makes the file that [`rewrite`] goes over.
pub(super) fn rewrite_prepare(site: &Site) -> Result<()> {
    let size = usize::try_from(site.sizes.rewrite)?;
    fs::write(site.path("file"), vec![1; size]).context("write")
}

/// Goes over the file a few times in small pieces.
pub(super) fn rewrite(site: &Site) -> Result<Done> {
    let file = File::options()
        .write(true)
        .open(site.path("file"))
        .context("open")?;
    let mut done = Done::units(0);
    let mut block = [0; BLOCK];
    for pass in 0..TIMES {
        for at in (0..site.sizes.rewrite).step_by(BLOCK) {
            block[..8].copy_from_slice(&(at + pass).to_le_bytes());
            file.write_all_at(&block, at).context("write")?;
            done = Done {
                units: done.units + 1,
                bytes: done.bytes + BLOCK as u64,
            };
        }
    }
    Ok(done)
}

/// Every block, as often as it is written.
pub(super) fn rewrite_expect(site: &Site) -> Done {
    let bytes = TIMES * site.sizes.rewrite;
    Done {
        units: bytes / BLOCK as u64,
        bytes,
    }
}

/// The last pass is in the file.
pub(super) fn rewrite_check(site: &Site) -> Result<()> {
    let content = fs::read(site.path("file"))?;
    ensure!(
        content.len() as u64 == site.sizes.rewrite,
        "the size is {}",
        content.len()
    );
    for (at, block) in (0..).step_by(BLOCK).zip(content.chunks(BLOCK)) {
        let mark = block
            .first_chunk::<8>()
            .map(|mark| u64::from_le_bytes(*mark));
        ensure!(
            mark == Some(at + TIMES - 1),
            "the block at {at} has the mark {mark:?}"
        );
    }
    Ok(())
}

/// Files in a directory.
const IN_DIR: usize = 100;

/// Creates small files, a hundred in a directory.
pub(super) fn create(site: &Site) -> Result<Done> {
    create_some(site, 0..site.sizes.small as u64)
}

/// The same by many clients, each in directories of its own.
pub(super) fn create_shared<const CLIENTS: usize>(site: &Site) -> Result<Done> {
    let count = site.sizes.small;
    let size = count.div_ceil(CLIENTS).next_multiple_of(IN_DIR);
    let part = |from: usize| from as u64..(from + size).min(count) as u64;
    let parts = (0..count).step_by(size).map(part).collect();
    share(parts, |numbers| create_some(site, numbers))
}

fn create_some(site: &Site, numbers: std::ops::Range<u64>) -> Result<Done> {
    let mut done = Done::units(0);
    for i in numbers {
        let path = site.path(small_path(i));
        if i % IN_DIR as u64 == 0
            && let Some(parent) = path.parent()
        {
            fs::create_dir(parent).with_context(|| format!("mkdir {}", parent.display()))?;
        }
        let content = small_content(i);
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        file.write_all(&content)
            .with_context(|| format!("write {}", path.display()))?;
        done = Done {
            units: done.units + 1,
            bytes: done.bytes + content.len() as u64,
        };
    }
    Ok(done)
}

/// Every file and every byte.
pub(super) fn create_expect(site: &Site) -> Done {
    let count = site.sizes.small as u64;
    Done {
        units: count,
        bytes: (0..count).map(|i| small_content(i).len() as u64).sum(),
    }
}

/// Every tenth file has its content.
pub(super) fn create_check(site: &Site) -> Result<()> {
    for i in (0..site.sizes.small as u64).step_by(10) {
        let path = site.path(small_path(i));
        let same = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(
            same == small_content(i),
            "{} has another content",
            path.display()
        );
    }
    Ok(())
}

/// Unpacks the archive.
pub(super) fn untar(site: &Site) -> Result<Done> {
    let archive = &site.archive;
    let status = Command::new("tar")
        .arg("-xf")
        .arg(&archive.path)
        .arg("-C")
        .arg(&site.root)
        .status()
        .context("start tar")?;
    ensure!(status.success(), "tar ended with {status}");
    Ok(Done {
        units: archive.entries,
        bytes: archive.bytes,
    })
}

/// What the archive holds.
pub(super) fn untar_expect(site: &Site) -> Done {
    Done {
        units: site.archive.entries,
        bytes: site.archive.bytes,
    }
}

/// As many entries and bytes as the archive holds.
pub(super) fn untar_check(site: &Site) -> Result<()> {
    let mut found = BTreeMap::new();
    walk(&site.root, Path::new(""), &mut found)?;
    let bytes = found.values().map(|(_, bytes)| bytes).sum();
    let done = Done {
        units: found.len() as u64,
        bytes,
    };
    ensure!(
        done == untar_expect(site),
        "unpacked {done:?} of {:?}",
        untar_expect(site)
    );
    Ok(())
}

/// Writes one block into the large file of the lower layer, and closes it.
pub(super) fn first(site: &Site) -> Result<Done> {
    first_to(site, "big")
}

/// The same with the file of a tenth of the size.
pub(super) fn first_medium(site: &Site) -> Result<Done> {
    first_to(site, "medium")
}

/// The same with the file of 1 MiB.
pub(super) fn first_little(site: &Site) -> Result<Done> {
    first_to(site, "little")
}

fn first_to(site: &Site, name: &str) -> Result<Done> {
    let file = File::options()
        .write(true)
        .open(site.path(name))
        .context("open")?;
    file.write_all_at(&[0xab; BLOCK], 0).context("write")?;
    drop(file);
    Ok(first_expect(site))
}

/// One block.
pub(super) fn first_expect(_: &Site) -> Done {
    Done {
        units: 1,
        bytes: BLOCK as u64,
    }
}

/// The block is new, the last block is old, the lower is as it was; then the copy goes away.
pub(super) fn first_check(site: &Site) -> Result<()> {
    check_first(site, "big", site.sizes.big)
}

/// The same of the file of a tenth of the size.
pub(super) fn first_medium_check(site: &Site) -> Result<()> {
    check_first(site, "medium", medium_size(site.sizes.big))
}

/// The same of the file of 1 MiB.
pub(super) fn first_little_check(site: &Site) -> Result<()> {
    check_first(site, "little", LITTLE)
}

fn check_first(site: &Site, name: &str, size: u64) -> Result<()> {
    let (file, lower) = (
        File::open(site.path(name))?,
        File::open(site.lowers[0].join(name))?,
    );
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, 0)?;
    ensure!(block == [0xab; BLOCK], "the block is not there");
    lower.read_exact_at(&mut block, 0)?;
    ensure!(block[..8] == [0; 8], "the lower layer has changed");
    let last = size - BLOCK as u64;
    file.read_exact_at(&mut block, last)?;
    ensure!(
        block[..8] == (last / BLOCK as u64).to_le_bytes(),
        "the last block is wrong"
    );
    let found = file.metadata()?.size();
    ensure!(found == size, "the size is {found}");
    drop(file);
    fs::remove_file(site.path(name)).context("remove")
}
