//! Running the steps that move data through an open file or a mapping.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{FileType, FlockOperation, IFlags, Mode, OFlags};
use rustix::io::Errno;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes as _, FileOffset, VolatileMemory, VolatileSlice};

use super::exec::{fallocate_flags, seek_from};
use super::ops::Op;
use super::outcome::{Outcome, digest};
use super::side::{Map, Side};
use super::stream::read_all;
use super::text::pattern;

/// The flags people set: append only, immutable, no dump, no atime, sync.
const CHATTR: u32 = 0x20 | 0x10 | 0x40 | 0x80 | 0x8;

/// Largest transfer a step may ask for.
const LIMIT: usize = 1 << 20;

/// Runs a data step.
pub(crate) fn run(side: &Side, op: &Op) -> Outcome {
    match op {
        Op::CopyRange { .. } => copy_range(side, op),
        Op::MapPut { .. } | Op::MapGet { .. } => use_map(side, op),
        Op::Read { h, .. }
        | Op::Write { h, .. }
        | Op::Pread { h, .. }
        | Op::Pwrite { h, .. }
        | Op::Fsync { h, .. }
        | Op::Fallocate { h, .. }
        | Op::Lseek { h, .. }
        | Op::Getflags { h }
        | Op::Setflags { h, .. }
        | Op::Flock { h, .. }
        | Op::MapRead { h, .. } => match side.handles.get(usize::from(*h)) {
            Some(Some(handle)) => on_file(&handle.fd, op),
            _ => Outcome::skipped(),
        },
        _ => Outcome::skipped(),
    }
}

fn on_file(fd: impl AsFd, op: &Op) -> Outcome {
    match op {
        Op::Read { len, .. } => got(*len, |buf| rustix::io::read(fd, buf)),
        Op::Pread { off, len, .. } => got(*len, |buf| rustix::io::pread(fd, buf, *off)),
        Op::Write { len, seed, .. } => {
            let data = pattern(*seed, 0, (*len as usize).min(LIMIT));
            count(rustix::io::write(fd, &data))
        }
        Op::Pwrite { off, len, seed, .. } => {
            let data = pattern(*seed, *off, (*len as usize).min(LIMIT));
            count(rustix::io::pwrite(fd, &data, *off))
        }
        Op::Fsync { data: true, .. } => rustix::fs::fdatasync(fd).into(),
        Op::Fsync { .. } => rustix::fs::fsync(fd).into(),
        Op::Fallocate { mode, off, len, .. } => {
            rustix::fs::fallocate(fd, fallocate_flags(*mode), *off, *len).into()
        }
        // Holes of a directory: FUSE answers that in the kernel.
        Op::Lseek { whence, .. } if is_dir(&fd) && whence != "set" => Outcome::skipped(),
        Op::Lseek { whence, off, .. } if matches!(whence.as_str(), "data" | "hole") => {
            seek_sparse(fd, whence, *off)
        }
        Op::Lseek { whence, off, .. } => match rustix::fs::seek(fd, seek_from(whence, *off)) {
            Ok(place) => Outcome::done().fact("place", place),
            Err(errno) => Outcome::error(errno),
        },
        Op::Getflags { .. } => match rustix::fs::ioctl_getflags(fd) {
            // What the file system itself decides (extents, inline data) is not the union's doing.
            Ok(flags) => Outcome::done().fact("flags", format!("{:x}", flags.bits() & CHATTR)),
            Err(errno) => Outcome::error(errno),
        },
        Op::Setflags { flags, .. } => {
            // What the file system itself decides stays: ext4 would convert the file.
            let own = rustix::fs::ioctl_getflags(&fd).map_or(0, |old| old.bits() & !CHATTR);
            rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(own | *flags)).into()
        }
        Op::Flock { how, .. } => {
            let operation = match how.as_str() {
                "sh" => FlockOperation::NonBlockingLockShared,
                "ex" => FlockOperation::NonBlockingLockExclusive,
                _ => FlockOperation::NonBlockingUnlock,
            };
            rustix::fs::flock(fd, operation).into()
        }
        Op::MapRead { off, len, .. } => map_read(fd, *off, *len),
        _ => Outcome::skipped(),
    }
}

fn got(len: u32, call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> Outcome {
    let mut buffer = vec![0; (len as usize).min(LIMIT)];
    match call(&mut buffer) {
        Ok(count) => Outcome::done().fact("data", digest(&buffer[..count])),
        Err(errno) => Outcome::error(errno),
    }
}

fn count(result: rustix::io::Result<usize>) -> Outcome {
    match result {
        Ok(count) => Outcome::done().fact("count", count),
        Err(errno) => Outcome::error(errno),
    }
}

fn copy_range(side: &Side, op: &Op) -> Outcome {
    let Op::CopyRange {
        from,
        to,
        off_in,
        off_out,
        len,
    } = op
    else {
        return Outcome::skipped();
    };
    let slot = |at: &u8| side.handles.get(usize::from(*at)).and_then(Option::as_ref);
    let (Some(source), Some(target)) = (slot(from), slot(to)) else {
        return Outcome::skipped();
    };
    let (mut off_in, mut off_out) = (*off_in, *off_out);
    let len = (*len as usize).min(LIMIT);
    // A short copy is allowed, so the sides go on until the range is done or nothing more comes.
    let mut total = 0;
    while total < len {
        let (input, output) = (Some(&mut off_in), Some(&mut off_out));
        match rustix::fs::copy_file_range(&source.fd, input, &target.fd, output, len - total) {
            Ok(0) => break,
            Ok(count) => total += count,
            Err(errno) if total == 0 => return Outcome::error(errno),
            Err(errno) => return Outcome::error(errno).fact("after", total),
        }
    }
    Outcome::done().fact("count", total)
}

/// Where holes are is the backing file system's affair, and copying may make or fill them. What
/// must hold: nothing but zeros is skipped as a hole, and a hole begins with a zero.
fn seek_sparse(fd: impl AsFd, whence: &str, off: i64) -> Outcome {
    let size = file_size(&fd).unwrap_or(0);
    let place = rustix::fs::seek(&fd, seek_from(whence, off));
    let start = usize::try_from(off).unwrap_or(usize::MAX);
    if start >= size {
        return place.map(drop).into();
    }
    let end = match (whence, place) {
        ("data", Ok(place)) => usize::try_from(place).unwrap_or(size),
        ("data", Err(Errno::NXIO)) => size,
        ("hole", Ok(place)) if place as usize >= size => return back(fd, off, true),
        ("hole", Ok(place)) => {
            let mut byte = [1];
            let zero = rustix::io::pread(&fd, &mut byte, place).is_err() || byte == [0];
            return back(fd, off, zero);
        }
        (_, Err(errno)) => return Outcome::error(errno),
        _ => return Outcome::skipped(),
    };
    let mut skipped = vec![0; end.saturating_sub(start).min(LIMIT)];
    let zero = match rustix::io::pread(&fd, &mut skipped, start as u64) {
        Ok(count) => skipped[..count].iter().all(|byte| *byte == 0),
        Err(_) => true,
    };
    back(fd, off, zero)
}

/// Puts the file position where both sides have it.
fn back(fd: impl AsFd, off: i64, zero: bool) -> Outcome {
    match rustix::fs::seek(fd, seek_from("set", off)) {
        Ok(_) => Outcome::done().fact("only zeros skipped", zero),
        Err(errno) => Outcome::error(errno),
    }
}

/// Whether an open handle is a directory that was removed.
pub(crate) fn is_removed_dir(fd: impl AsFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    is_dir(&fd)
        && rustix::fs::openat(&fd, c".", flags, Mode::empty())
            .and_then(read_all)
            .is_err()
}

fn is_dir(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn file_size(fd: impl AsFd) -> rustix::io::Result<usize> {
    rustix::fs::fstat(fd).map(|stat| usize::try_from(stat.st_size).unwrap_or(0))
}

/// Maps the first `len` bytes; `None` for nothing to map.
fn region(fd: impl AsFd, prot: i32, len: usize) -> Result<Option<MmapRegion<()>>, Errno> {
    if len == 0 {
        return Ok(None);
    }
    let file = std::fs::File::from(rustix::io::fcntl_dupfd_cloexec(fd, 0)?);
    let mapped = MmapRegion::build(Some(FileOffset::new(file, 0)), len, prot, libc::MAP_SHARED);
    match mapped {
        Ok(region) => Ok(Some(region)),
        Err(vm_memory::mmap::MmapRegionError::Mmap(error)) => {
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
        Err(_) => Err(Errno::INVAL),
    }
}

/// The slice of a region from `off` on, at most `len` and never beyond `size`: past the end of
/// the file an access is SIGBUS.
fn window(region: &MmapRegion<()>, off: u64, len: u32, size: usize) -> Option<VolatileSlice<'_>> {
    let end = size.min(region.size());
    let off = usize::try_from(off).ok().filter(|off| *off < end)?;
    region.get_slice(off, (len as usize).min(end - off)).ok()
}

fn read_window(window: Option<VolatileSlice<'_>>) -> Outcome {
    let Some(window) = window else {
        return Outcome::done().fact("data", "beyond the end");
    };
    let mut buffer = vec![0; window.len()];
    match window.read_slice(&mut buffer, 0) {
        Ok(()) => Outcome::done().fact("data", digest(&buffer)),
        Err(error) => Outcome::done().fact("data", error),
    }
}

/// Maps for reading through a fresh descriptor: through one that was opened before its file was
/// copied up the kernel maps the lower file, with another size than fstat says.
fn map_read(fd: impl AsFd, off: u64, len: u32) -> Outcome {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mapped = rustix::fs::open(link, flags, Mode::empty()).and_then(|fd| {
        let size = file_size(&fd)?;
        Ok((size, region(&fd, libc::PROT_READ, size)?))
    });
    match mapped {
        Ok((size, Some(region))) => read_window(window(&region, off, len, size)),
        Ok((_, None)) => Outcome::done().fact("data", "empty"),
        Err(errno) => Outcome::error(errno),
    }
}

/// Maps a handle into a map slot.
pub(crate) fn map(side: &mut Side, h: u8, m: u8) -> Outcome {
    let Some(handle) = side.handle(h) else {
        return Outcome::skipped();
    };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let made = file_size(&handle.fd).and_then(|size| {
        let region = region(&handle.fd, prot, size)?;
        Ok((rustix::io::fcntl_dupfd_cloexec(&handle.fd, 0)?, region))
    });
    match made {
        Ok((fd, Some(region))) => {
            let outcome = Outcome::done().fact("len", region.size());
            if let Some(slot) = side.maps.get_mut(usize::from(m)) {
                *slot = Some(Map { fd, region });
            }
            outcome
        }
        Ok((_, None)) => Outcome::done().fact("len", 0),
        Err(errno) => Outcome::error(errno),
    }
}

fn use_map(side: &Side, op: &Op) -> Outcome {
    let (Op::MapPut { m, off, len, .. } | Op::MapGet { m, off, len }) = op else {
        return Outcome::skipped();
    };
    let Some(Some(map)) = side.maps.get(usize::from(*m)) else {
        return Outcome::skipped();
    };
    let size = match file_size(&map.fd) {
        Ok(size) => size,
        Err(errno) => return Outcome::error(errno),
    };
    let window = window(&map.region, *off, *len, size);
    match (op, window) {
        (Op::MapPut { seed, .. }, Some(window)) => {
            let data = pattern(*seed, *off, window.len());
            match window.write_slice(&data, 0) {
                Ok(()) => put(map, *off, data.len()),
                Err(error) => Outcome::done().fact("count", error),
            }
        }
        (_, window) => read_window(window),
    }
}

/// What a read sees of bytes that were just stored through a mapping. Whether and when that moves
/// the file's time is up to the backing file system, so a byte is written the usual way, too.
fn put(map: &Map, off: u64, len: usize) -> Outcome {
    let seen = got(len as u32, |buf| rustix::io::pread(&map.fd, buf, off));
    let mut byte = [0];
    let again = rustix::io::pread(&map.fd, &mut byte, off)
        .and_then(|_| rustix::io::pwrite(&map.fd, &byte, off))
        .and_then(|_| rustix::fs::fsync(&map.fd));
    match again {
        Ok(()) => seen,
        Err(errno) => Outcome::error(errno).fact("call", "rewriting a byte"),
    }
}
