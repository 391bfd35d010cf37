//! Reading a tar stream entry by entry, with bounds on what a stranger can make us hold.
use std::io::BufRead;

use plyfs_sys::stat::Time;

use super::header::{self, Header, Type};
use super::pax::Pax;
use super::sparse::{self, Extent, MapReader};
use super::{BLOCK, Kind, TarError};

/// Bounds on what is read.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest PAX header or GNU long name, in bytes.
    pub extra: u64,
    /// Most headers, those that only prepare others included.
    pub headers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            extra: 1 << 20,
            headers: 20_000_000,
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it, not checked in any way except that it holds no NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, suid, sgid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Size of a regular file once unpacked.
    pub size: u64,
    /// Last modification.
    pub mtime: Time,
    /// Last access, where the archive tells.
    pub atime: Option<Time>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Device number.
    pub rdev: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data of a sparse file goes.
    pub sparse: Option<Vec<Extent>>,
}

/// Reads entries from a stream.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    limits: Limits,
    /// Bytes read.
    at: u64,
    headers: u64,
    /// Bytes of the current entry's data not read yet, and the padding behind.
    left: u64,
    padding: u64,
}

/// What headers before an object have said about it.
#[derive(Default)]
struct Before {
    pax: Pax,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `source`, which is at the start of an archive.
    pub fn new(source: R, limits: Limits) -> Self {
        Self {
            source,
            limits,
            at: 0,
            headers: 0,
            left: 0,
            padding: 0,
        }
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The source, standing behind what was read.
    pub fn into_source(self) -> R {
        self.source
    }

    /// The next object; None at the end of the archive. Data of the one before that was not read
    /// is skipped.
    ///
    /// # Errors
    /// When the stream breaks off, is no tar or exceeds a limit.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip()?;
        let mut before = Before::default();
        loop {
            let start = self.at;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let header = Header(&block);
            let bad = |why: String| TarError::Malformed { at: start, why };
            match header.kind() {
                Type::Pax => before.pax = Pax::parse(&self.extra(&header)?).map_err(bad)?,
                Type::PaxGlobal | Type::Label => {
                    self.start_data(&header, None)?;
                    self.skip()?;
                }
                Type::LongName => before.name = Some(text(self.extra(&header)?)),
                Type::LongLink => before.link = Some(text(self.extra(&header)?)),
                Type::Object(kind) => return self.object(&header, kind, before).map(Some),
                Type::GnuSparse => return self.gnu_sparse(&header, before).map(Some),
                Type::Unknown(t) => {
                    let name = header.path().escape_ascii().to_string();
                    let t = t.escape_ascii();
                    return Err(bad(format!("{name}: entries of type '{t}' are not known")));
                }
            }
        }
    }

    /// Hands the data of the current entry to `sink`, piece by piece.
    ///
    /// # Errors
    /// When the stream breaks off, or what `sink` answers.
    pub fn data<E: From<TarError>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.left > 0 {
            let piece = match self.source.fill_buf() {
                Ok([]) => return Err(self.broken().into()),
                Ok(piece) => piece,
                Err(e) => return Err(TarError::Io(e).into()),
            };
            let n = piece
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            sink(&piece[..n])?;
            self.source.consume(n);
            self.left -= n as u64;
            self.at += n as u64;
        }
        Ok(())
    }

    fn broken(&self) -> TarError {
        TarError::Malformed {
            at: self.at,
            why: "the archive breaks off".to_owned(),
        }
    }

    fn skip(&mut self) -> Result<(), TarError> {
        self.data(|_| Ok::<(), TarError>(()))?;
        self.left = std::mem::take(&mut self.padding);
        // Some writers end without the padding of the last entry; nothing is lost with it.
        if self.left > 0 && self.source.fill_buf()?.is_empty() {
            self.left = 0;
        }
        self.data(|_| Ok::<(), TarError>(()))
    }

    /// Fills `block`; false at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            let piece = self.source.fill_buf()?;
            if piece.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(self.broken());
            }
            let n = piece.len().min(BLOCK - filled);
            block[filled..filled + n].copy_from_slice(&piece[..n]);
            self.source.consume(n);
            filled += n;
            self.at += n as u64;
        }
        Ok(true)
    }

    /// The next header block; None at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let start = self.at;
        let bad = |why: &str| TarError::Malformed {
            at: start,
            why: why.to_owned(),
        };
        let mut block = [0u8; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if Header(&block).is_zero() {
            if self.block(&mut block)? && !Header(&block).is_zero() {
                return Err(bad("a single block of zeros is not the end of an archive"));
            }
            return Ok(None);
        }
        if !Header(&block).checksum_holds() {
            return Err(bad("this is no tar header: its checksum is wrong"));
        }
        self.headers += 1;
        if self.headers > self.limits.headers {
            return Err(bad(&format!(
                "it has more than {} headers",
                self.limits.headers
            )));
        }
        Ok(Some(block))
    }

    fn start_data(&mut self, header: &Header<'_>, size: Option<u64>) -> Result<u64, TarError> {
        let at = self.at;
        let bad = |why| TarError::Malformed { at, why };
        let size = match size {
            Some(size) => size,
            None => u64::try_from(header.number(header::SIZE).map_err(bad)?)
                .map_err(|_| bad("the size is negative".to_owned()))?,
        };
        if size > i64::MAX as u64 {
            return Err(bad("the size is no size a file can have".to_owned()));
        }
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(size)
    }

    /// The data of a header that prepares another.
    fn extra(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = self.start_data(header, None)?;
        if size > self.limits.extra {
            return Err(TarError::Malformed {
                at: self.at,
                why: format!(
                    "a header of {size} bytes is larger than the limit of {}",
                    self.limits.extra
                ),
            });
        }
        let mut data = Vec::new();
        self.data(|piece| {
            data.extend_from_slice(piece);
            Ok::<(), TarError>(())
        })?;
        self.skip()?;
        Ok(data)
    }

    fn object(
        &mut self,
        header: &Header<'_>,
        kind: Kind,
        before: Before,
    ) -> Result<Entry, TarError> {
        let at = self.at;
        let size = before.pax.size;
        let mut entry =
            entry(header, kind, &before).map_err(|why| TarError::Malformed { at, why })?;
        if kind == Kind::File {
            entry.size = self.start_data(header, size)?;
            if before.pax.sparse.is_sparse {
                self.pax_sparse(&mut entry, before.pax.sparse)?;
            }
            // How archives older than type 5 say it.
            if entry.path.ends_with(b"/") {
                entry.kind = Kind::Dir;
                entry.size = 0;
                entry.sparse = None;
            }
        }
        // Nothing else has data, whatever its size field says: container tools read it so.
        Ok(entry)
    }

    fn gnu_sparse(&mut self, header: &Header<'_>, before: Before) -> Result<Entry, TarError> {
        let at = self.at;
        let bad = |why| TarError::Malformed { at, why };
        let mut entry = entry(header, Kind::File, &before).map_err(bad)?;
        let mut map = Vec::new();
        let mut more = sparse::gnu_header(header, &mut map).map_err(bad)?;
        while more {
            let mut block = [0u8; BLOCK];
            if !self.block(&mut block)? {
                return Err(self.broken());
            }
            more = sparse::gnu_extension(&block, &mut map).map_err(bad)?;
        }
        let stored = self.start_data(header, before.pax.size)?;
        let real = header.number(header::GNU_REAL_SIZE).map_err(bad)?;
        entry.size = u64::try_from(real).map_err(|_| bad("the size is negative".to_owned()))?;
        sparse::check(&map, entry.size, stored).map_err(bad)?;
        entry.sparse = Some(map);
        Ok(entry)
    }

    fn pax_sparse(
        &mut self,
        entry: &mut Entry,
        mut pax: super::pax::SparsePax,
    ) -> Result<(), TarError> {
        let at = self.at;
        let bad = |why| TarError::Malformed { at, why };
        if let Some(name) = pax.name.take() {
            entry.path = name;
        }
        let mut map = std::mem::take(&mut pax.map);
        if pax.map_in_data {
            map = self.map_in_data()?;
        }
        let real = pax.real_size.unwrap_or(entry.size);
        if real > i64::MAX as u64 {
            return Err(bad("the size is no size a file can have".to_owned()));
        }
        sparse::check(&map, real, self.left).map_err(bad)?;
        entry.size = real;
        entry.sparse = Some(map);
        Ok(())
    }

    fn map_in_data(&mut self) -> Result<Vec<Extent>, TarError> {
        let mut reader = MapReader::default();
        let mut block = [0u8; BLOCK];
        loop {
            let at = self.at;
            let bad = |why: &str| TarError::Malformed {
                at,
                why: why.to_owned(),
            };
            if self.left < BLOCK as u64 {
                return Err(bad("the map of a sparse file breaks off"));
            }
            if !self.block(&mut block)? {
                return Err(self.broken());
            }
            self.left -= BLOCK as u64;
            if let Some(map) = reader.block(&block).map_err(|why| bad(&why))? {
                return Ok(map);
            }
        }
    }
}

/// A GNU long name ends with a NUL.
fn text(data: Vec<u8>) -> Vec<u8> {
    header::until_nul(&data).to_vec()
}

fn entry(header: &Header<'_>, kind: Kind, before: &Before) -> Result<Entry, String> {
    let pax = &before.pax;
    let pick = |pax: &Option<Vec<u8>>, gnu: &Option<Vec<u8>>, own: Vec<u8>| {
        pax.clone().or_else(|| gnu.clone()).unwrap_or(own)
    };
    let path = pick(&pax.path, &before.name, header.path());
    let link = pick(&pax.link, &before.link, header.text(header::LINK).to_vec());
    if path.contains(&0) || link.contains(&0) {
        return Err("a name holds a NUL byte".to_owned());
    }
    let id = |pax: Option<u64>, field| match pax {
        Some(id) => Ok(id),
        None => u64::try_from(header.number(field)?)
            .map_err(|_| format!("the {} is negative", field.name)),
    };
    let rdev = match kind {
        Kind::Char | Kind::Block => (
            device(header, header::MAJOR)?,
            device(header, header::MINOR)?,
        ),
        _ => (0, 0),
    };
    let mode = header.number(header::MODE)?;
    Ok(Entry {
        path,
        kind,
        mode: u32::try_from(mode & 0o7777).map_err(|_| "the mode is no mode".to_owned())?,
        uid: id(pax.uid, header::UID)?,
        gid: id(pax.gid, header::GID)?,
        size: 0,
        mtime: match pax.mtime {
            Some(time) => time,
            None => Time {
                sec: header.number(header::MTIME)?,
                nsec: 0,
            },
        },
        atime: pax.atime,
        link,
        rdev,
        xattrs: pax.xattrs.clone(),
        sparse: None,
    })
}

fn device(header: &Header<'_>, field: header::Field) -> Result<u32, String> {
    u32::try_from(header.number(field)?).map_err(|_| format!("the {} is out of range", field.name))
}
