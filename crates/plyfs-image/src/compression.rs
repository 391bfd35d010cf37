//! How a layer's archive is packed: told from its first bytes, whatever its media type claims.
use std::io::{self, BufReader, Read};

use oci_spec::image::MediaType;

/// Largest zstd window that is accepted: what a stream may make us hold in memory (128 MiB).
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes that tell how something is packed.
const MAGIC_LEN: u64 = 4;
/// Bytes read of a packed archive at a time.
const BUFFER: usize = 256 << 10;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, by far the most common.
    Gzip,
    /// zstd, zstd:chunked included.
    Zstd,
}

impl Compression {
    /// Tells it from the first bytes of an archive.
    #[must_use]
    pub fn sniff(start: &[u8]) -> Self {
        let skippable = start.len() >= 4
            && start.first().is_some_and(|b| b & 0xf0 == 0x50)
            && start.get(1..4) == Some(&[0x2a, 0x4d, 0x18]);
        if start.starts_with(GZIP_MAGIC) {
            Self::Gzip
        } else if start.starts_with(ZSTD_MAGIC) || skippable {
            Self::Zstd
        } else {
            Self::Plain
        }
    }

    /// The media type of a layer that is packed so.
    #[must_use]
    pub fn media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

/// How `source` is packed, and all of it.
///
/// # Errors
/// When the source fails.
pub fn sniffed<R: Read>(mut source: R) -> io::Result<(Compression, impl Read + use<R>)> {
    let mut start = Vec::new();
    (&mut source).take(MAGIC_LEN).read_to_end(&mut start)?;
    let compression = Compression::sniff(&start);
    Ok((compression, io::Cursor::new(start).chain(source)))
}

/// Reads what `source`, which is packed so, unpacks to.
///
/// # Errors
/// When there is no memory for it.
pub fn decoder<'a, R: Read + Send + 'a>(
    compression: Compression,
    source: R,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let buffered = |source| BufReader::with_capacity(BUFFER, source);
    Ok(match compression {
        Compression::Plain => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(source))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(source))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}
