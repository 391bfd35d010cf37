//! A shared mapping of a file, used without `unsafe`.

use std::fs::File;
use std::io;

use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{Bytes as _, FileOffset, VolatileMemory as _};

/// A file mapped with MAP_SHARED. An access past the last page of the file is a SIGBUS, as it is
/// for every program: callers stay below.
#[derive(Debug)]
pub struct Mapping(MmapRegion<()>);

impl Mapping {
    /// Maps the first `len` bytes, for reading and writing.
    ///
    /// # Errors
    /// What mmap(2) answers.
    pub fn writable(file: &File, len: usize) -> io::Result<Self> {
        Self::build(file, len, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps the first `len` bytes, for reading.
    ///
    /// # Errors
    /// What mmap(2) answers.
    pub fn readable(file: &File, len: usize) -> io::Result<Self> {
        Self::build(file, len, libc::PROT_READ)
    }

    fn build(file: &File, len: usize, prot: i32) -> io::Result<Self> {
        let file = FileOffset::new(file.try_clone()?, 0);
        match MmapRegion::build(Some(file), len, prot, libc::MAP_SHARED) {
            Ok(region) => Ok(Self(region)),
            Err(MmapRegionError::Mmap(error)) => Err(error),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }

    /// The bytes at `off`.
    ///
    /// # Errors
    /// EINVAL outside of the mapping.
    pub fn read(&self, off: usize, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let slice = self.0.get_slice(off, len).map_err(outside)?;
        slice.read_slice(&mut bytes, 0).map_err(outside)?;
        Ok(bytes)
    }

    /// Puts bytes at `off`.
    ///
    /// # Errors
    /// EINVAL outside of the mapping.
    pub fn write(&self, off: usize, bytes: &[u8]) -> io::Result<()> {
        let slice = self.0.get_slice(off, bytes.len()).map_err(outside)?;
        slice.write_slice(bytes, 0).map_err(outside)
    }
}

fn outside(error: vm_memory::VolatileMemoryError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}
