//! How much a layer may ask of us before it is taken for an attack.

/// Bounds of one layer; the defaults are far above what real images have.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes of all regular files together, holes included.
    pub bytes: u64,
    /// Most bytes of the uncompressed archive.
    pub stream: u64,
    /// Bytes of the uncompressed archive that any compressed size may become.
    pub free_expansion: u64,
    /// Beyond that, how many times larger than the compressed archive it may be. gzip reaches
    /// 1032 at most; only zstd can exceed this.
    pub ratio: u64,
    /// Longest path, in bytes.
    pub path: usize,
    /// Deepest path, in names.
    pub depth: usize,
    /// Most bytes of the paths of all directories together: they are held in memory.
    pub dir_paths: u64,
    /// Longest PAX header, in bytes: all xattrs and long names of one entry.
    pub pax: u64,
    /// Largest manifest, index or config, in bytes.
    pub document: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            bytes: 1 << 40,
            stream: 1 << 40,
            free_expansion: 16 << 30,
            ratio: 2000,
            path: 4096,
            depth: 400,
            dir_paths: 256 << 20,
            pax: 1 << 20,
            document: 8 << 20,
        }
    }
}
