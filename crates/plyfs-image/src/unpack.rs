//! Taking in a layer's blob: read, keep, unpack, hash and apply at the same time.
//!
//! One thread reads the blob and unpacks it; one hashes what comes out; one applies it; one packs
//! it again where it came unpacked. The pieces between them are bounded, so memory does not grow
//! with the layer.
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use plyfs_format::names::XattrNamespace;

use crate::apply::{Applied, apply};
use crate::compression::{Compression, decoder, sniffed};
use crate::digest::{Digest, Hasher, HashingReader};
use crate::error::{ImageError, Result};
use crate::limits::Limits;
use crate::rest;

/// Bytes handed from thread to thread at a time.
const PIECE: usize = 256 << 10;
/// Pieces on their way to one thread.
const ON_THE_WAY: usize = 16;

type Piece = Arc<Vec<u8>>;

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
    /// Gets a copy of the blob: as it is, or packed where it comes unpacked (see [`rest`]).
    pub keep: Option<&'a File>,
    /// Where to apply it.
    pub root: Option<(BorrowedFd<'a>, XattrNamespace)>,
    /// Algorithms of the blob's digest and of the DiffID.
    pub hashers: (Hasher, Hasher),
    pub limits: &'a Limits,
}

/// Does the job.
pub(crate) fn unpack(job: Job<'_>) -> Result<Unpacked> {
    let (compression, source) =
        sniffed(job.source).map_err(|e| ImageError::stream("reading the layer", e))?;
    let is_plain = compression == Compression::Plain;
    // A plain blob is the archive: it is hashed once, unless two algorithms are asked for.
    let hashers = match job.hashers {
        (blob, diff_id) if is_plain && blob.is_like(&diff_id) => (None, diff_id),
        (blob, diff_id) => (Some(blob), diff_id),
    };
    thread::scope(|scope| {
        let (to_hash, hash) = sync_channel(ON_THE_WAY);
        let hasher = hashers.1;
        let hashing = scope.spawn(move || hash_pieces(hash, hasher));
        let mut outlets = Outlets {
            hash: to_hash,
            apply: None,
            pack: None,
        };
        let applier = job.root.map(|(root, ns)| {
            let (to_apply, pieces) = sync_channel(ON_THE_WAY);
            outlets.apply = Some(to_apply);
            scope.spawn(move || apply_pieces(pieces, root, ns, job.limits))
        });
        let packer = job.keep.filter(|_| is_plain).map(|file| {
            let (queue, pieces) = rest::queue(ON_THE_WAY);
            outlets.pack = Some(queue);
            scope.spawn(move || pieces.pack(file))
        });
        let blob = Source {
            compression,
            blob: Box::new(source),
            copy: job.keep.filter(|_| !is_plain),
            hasher: hashers.0,
        };
        let read = blob.read(&outlets, job.limits);
        drop(outlets);
        let packed = packer.map(|t| t.join().unwrap_or_else(|_| Err(died())));
        let applied = applier.map(|t| t.join().unwrap_or_else(|_| Err(died())));
        let hashed = hashing.join().unwrap_or_else(|_| Err(died()));
        // Who failed first knows why; the others have lost their reader or their source.
        packed.transpose()?;
        let applied = applied.transpose()?;
        let blob = read?;
        let (diff_id, tar_size) = hashed?;
        Ok(Unpacked {
            blob: blob.unwrap_or_else(|| (diff_id.clone(), tar_size)),
            diff_id,
            tar_size,
            compression,
            applied,
        })
    })
}

fn died() -> ImageError {
    ImageError::Refused("a thread that unpacked the layer has died: this is a bug".to_owned())
}

fn hash_pieces(pieces: Receiver<Piece>, mut hasher: Hasher) -> Result<(Digest, u64)> {
    let mut size = 0;
    for piece in pieces {
        hasher.update(&piece);
        size += piece.len() as u64;
    }
    Ok((hasher.finish()?, size))
}

fn apply_pieces(
    pieces: Receiver<io::Result<Piece>>,
    root: BorrowedFd<'_>,
    ns: XattrNamespace,
    limits: &Limits,
) -> Result<Applied> {
    let (applied, mut rest) = apply(root, ns, Pieces::new(pieces), limits)?;
    // What follows the end of the archive belongs to the digest.
    io::copy(&mut rest, &mut io::sink()).map_err(|e| ImageError::stream("reading the layer", e))?;
    Ok(applied)
}

/// Where the pieces of the archive go.
struct Outlets {
    hash: SyncSender<Piece>,
    apply: Option<SyncSender<io::Result<Piece>>>,
    pack: Option<rest::Queue>,
}

impl Outlets {
    /// False where somebody does not take any more.
    fn send(&self, piece: Piece) -> bool {
        self.pack
            .as_ref()
            .is_none_or(|to| to.send(Arc::clone(&piece)))
            && self.hash.send(Arc::clone(&piece)).is_ok()
            && self
                .apply
                .as_ref()
                .is_none_or(|to| to.send(Ok(piece)).is_ok())
    }
}

/// A blob that is read.
struct Source<'a, R> {
    compression: Compression,
    blob: R,
    copy: Option<&'a File>,
    /// None where the archive's digest is the blob's.
    hasher: Option<Hasher>,
}

impl<R: Read + Send> Source<'_, R> {
    /// Reads to the end; digest and size of the blob, where they are not those of the archive.
    fn read(self, outlets: &Outlets, limits: &Limits) -> Result<Option<(Digest, u64)>> {
        let counted = AtomicU64::new(0);
        let copied = Copied {
            source: self.blob,
            to: self.copy,
            count: &counted,
        };
        let outcome = match self.hasher {
            None => pass_on(copied, outlets, &counted, limits).map(|()| None),
            Some(hasher) => {
                let mut blob = HashingReader::new(copied, hasher);
                let passed = decoder(self.compression, &mut blob)
                    .and_then(|tar| pass_on(tar, outlets, &counted, limits));
                passed.map(|()| Some(blob))
            }
        };
        match outcome {
            Ok(blob) => blob.map(HashingReader::finish).transpose(),
            Err(e) => {
                // The applier must not take the end of the pieces for the end of the archive.
                let told = io::Error::new(e.kind(), e.to_string());
                if let Some(to_apply) = &outlets.apply {
                    drop(to_apply.send(Err(told)));
                }
                Err(ImageError::stream("reading the layer", e))
            }
        }
    }
}

/// Hands the archive on, piece by piece. `packed` is how much of the blob was read for it.
fn pass_on(
    mut tar: impl Read,
    outlets: &Outlets,
    packed: &AtomicU64,
    limits: &Limits,
) -> io::Result<()> {
    let mut size = 0u64;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut tar).take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        size += piece.len() as u64;
        check_expansion(size, packed.load(Ordering::Relaxed), limits)?;
        if !outlets.send(Arc::new(piece)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
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

/// Copies and counts what is read through it.
struct Copied<'a, R> {
    source: R,
    to: Option<&'a File>,
    count: &'a AtomicU64,
}

impl<R: Read> Read for Copied<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        if let Some(mut to) = self.to {
            to.write_all(&buf[..n])?;
        }
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The pieces as one stream.
struct Pieces {
    pieces: Receiver<io::Result<Piece>>,
    now: Piece,
    at: usize,
}

impl Pieces {
    fn new(pieces: Receiver<io::Result<Piece>>) -> Self {
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
