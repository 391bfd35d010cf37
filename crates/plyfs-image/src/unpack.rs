//! Taking in a layer's blob: read, keep, unpack, hash and apply at the same time.
//!
//! One thread reads the blob, keeps a copy and unpacks it; one hashes what comes out; one applies
//! it. The pieces between them are bounded, so memory does not grow with the layer.
use std::io::{self, BufRead, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use plyfs_format::names::XattrNamespace;

use crate::apply::{Applied, apply};
use crate::compression::{Compression, unpacked};
use crate::digest::{Digest, Hasher, HashingReader};
use crate::error::{ImageError, Result};
use crate::limits::Limits;

/// Bytes handed from thread to thread at a time.
const PIECE: usize = 256 << 10;
/// Pieces on their way to one thread.
const ON_THE_WAY: usize = 16;

type Piece = io::Result<Arc<Vec<u8>>>;

/// What a blob turned out to be.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    /// Digest and size of the blob.
    pub blob: (Digest, u64),
    /// Digest and size of the archive in it.
    pub diff_id: Digest,
    pub tar_size: u64,
    pub compression: Compression,
    /// None where nothing was to be applied.
    pub applied: Option<Applied>,
}

/// What to do with a blob.
pub(crate) struct Job<'a> {
    /// The blob.
    pub source: Box<dyn Read + Send + 'a>,
    /// Gets a copy of the blob, told first how it is packed.
    pub keep: Option<Box<dyn Keep + 'a>>,
    /// Where to apply it.
    pub root: Option<(BorrowedFd<'a>, XattrNamespace)>,
    /// Algorithms of the blob's digest and of the DiffID.
    pub hashers: (Hasher, Hasher),
    pub limits: &'a Limits,
}

/// Keeps a copy of a blob.
pub(crate) trait Keep: Send {
    fn write(&mut self, data: &[u8]) -> io::Result<()>;
}

/// Does the job.
pub(crate) fn unpack(job: Job<'_>) -> Result<Unpacked> {
    let Job {
        source,
        keep,
        root,
        hashers,
        limits,
    } = job;
    thread::scope(|scope| {
        let (to_hash, hash) = sync_channel::<Arc<Vec<u8>>>(ON_THE_WAY);
        let (to_apply, applying) = sync_channel::<Piece>(ON_THE_WAY);
        let hasher = hashers.1;
        let hashing = scope.spawn(move || hash_pieces(hash, hasher));
        let applier = root.map(|(root, ns)| {
            scope.spawn(move || -> Result<Applied> {
                let (applied, mut rest) = apply(root, ns, Pieces::new(applying), limits)?;
                // What follows the end of the archive belongs to the digest.
                io::copy(&mut rest, &mut io::sink())
                    .map_err(|e| ImageError::stream("reading the layer", e))?;
                Ok(applied)
            })
        });
        let to_apply = applier.is_some().then_some(to_apply);
        let read = read_blob(source, keep, hashers.0, limits, &to_hash, to_apply.as_ref());
        drop((to_hash, to_apply));
        let applied = applier.map(|t| t.join().unwrap_or_else(|_| Err(died())));
        let hashed = hashing.join().unwrap_or_else(|_| Err(died()))?;
        // Where both failed the applier knows more: the reader only lost its reader.
        let applied = applied.transpose()?;
        let (blob, compression) = read?;
        Ok(Unpacked {
            blob,
            diff_id: hashed.0,
            tar_size: hashed.1,
            compression,
            applied,
        })
    })
}

fn died() -> ImageError {
    ImageError::Refused("a thread that unpacked the layer has died: this is a bug".to_owned())
}

fn hash_pieces(pieces: Receiver<Arc<Vec<u8>>>, mut hasher: Hasher) -> Result<(Digest, u64)> {
    let mut size = 0;
    for piece in pieces {
        hasher.update(&piece);
        size += piece.len() as u64;
    }
    Ok((hasher.finish()?, size))
}

type Read_ = ((Digest, u64), Compression);

fn read_blob(
    source: Box<dyn Read + Send + '_>,
    keep: Option<Box<dyn Keep + '_>>,
    hasher: Hasher,
    limits: &Limits,
    to_hash: &SyncSender<Arc<Vec<u8>>>,
    to_apply: Option<&SyncSender<Piece>>,
) -> Result<Read_> {
    let broken = |e| ImageError::stream("reading the layer", e);
    let mut blob = HashingReader::new(Tee { source, keep }, hasher);
    let counted = std::sync::atomic::AtomicU64::new(0);
    let outcome = (|| -> io::Result<Compression> {
        let counting = Counting {
            inner: &mut blob,
            count: &counted,
        };
        let (compression, mut tar) = unpacked(counting)?;
        let mut size = 0u64;
        loop {
            let piece = piece_of(&mut *tar)?;
            if piece.is_empty() {
                return Ok(compression);
            }
            size += piece.len() as u64;
            check_expansion(
                size,
                counted.load(std::sync::atomic::Ordering::Relaxed),
                limits,
            )?;
            let piece = Arc::new(piece);
            let sent = to_hash.send(Arc::clone(&piece)).is_ok();
            let sent = sent && to_apply.is_none_or(|t| t.send(Ok(piece)).is_ok());
            if !sent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    })();
    match outcome {
        Ok(compression) => Ok((blob.finish()?, compression)),
        Err(e) => {
            // The applier must not take the end of the pieces for the end of the archive.
            let told = io::Error::new(e.kind(), e.to_string());
            if let Some(to_apply) = to_apply {
                drop(to_apply.send(Err(told)));
            }
            Err(broken(e))
        }
    }
}

/// Reads a full piece, or what is left.
fn piece_of(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    source.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

fn check_expansion(size: u64, packed: u64, limits: &Limits) -> io::Result<()> {
    let refused = |why: String| Err(io::Error::other(ImageError::BadLayer(why)));
    if size > limits.stream {
        return refused(format!("it unpacks to more than {} bytes", limits.stream));
    }
    if size > limits.free_expansion && size / limits.ratio > packed {
        return refused(format!(
            "{packed} bytes have unpacked to {size}: more than {} times as much, which no \
             honest layer does",
            limits.ratio
        ));
    }
    Ok(())
}

struct Tee<'a> {
    source: Box<dyn Read + Send + 'a>,
    keep: Option<Box<dyn Keep + 'a>>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        if let Some(keep) = &mut self.keep {
            keep.write(&buf[..n])?;
        }
        Ok(n)
    }
}

struct Counting<'a, R> {
    inner: &'a mut R,
    count: &'a std::sync::atomic::AtomicU64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count
            .fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

/// The pieces as one stream.
struct Pieces {
    pieces: Receiver<Piece>,
    now: Arc<Vec<u8>>,
    at: usize,
}

impl Pieces {
    fn new(pieces: Receiver<Piece>) -> Self {
        Self {
            pieces,
            now: Arc::default(),
            at: 0,
        }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.now.len() {
            match self.pieces.recv() {
                Ok(piece) => {
                    self.now = piece?;
                    self.at = 0;
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.now.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

/// Keeps a blob in a file as it is, or packed by zstd where it is not packed at all.
pub(crate) struct BlobFile<W: Write> {
    out: Option<Out<W>>,
    raw: Option<W>,
}

enum Out<W: Write> {
    Raw(W),
    Packed(zstd::stream::write::Encoder<'static, W>),
}

/// Level by which plain archives are packed: as fast as it goes.
const REST_LEVEL: i32 = 1;

impl<W: Write> BlobFile<W> {
    /// Writes to `out`; how is decided by the first bytes.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out: None,
            raw: Some(out),
        }
    }

    /// The file, and whether what it holds is packed.
    pub(crate) fn finish(self) -> io::Result<(Option<W>, bool)> {
        match self.out {
            None => Ok((self.raw, false)),
            Some(Out::Raw(w)) => Ok((Some(w), false)),
            Some(Out::Packed(encoder)) => Ok((Some(encoder.finish()?), true)),
        }
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if let Some(raw) = self.raw.take() {
            self.out = Some(match Compression::sniff(data) {
                Compression::Plain => {
                    Out::Packed(zstd::stream::write::Encoder::new(raw, REST_LEVEL)?)
                }
                _ => Out::Raw(raw),
            });
        }
        match &mut self.out {
            Some(Out::Raw(w)) => w.write_all(data),
            Some(Out::Packed(w)) => w.write_all(data),
            None => Ok(()),
        }
    }
}

impl<W: Write + Send> Keep for &mut BlobFile<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        BlobFile::write(self, data)
    }
}
