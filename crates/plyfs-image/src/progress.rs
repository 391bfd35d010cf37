//! Telling whoever waits how far a transfer is.
use std::io::Read;

use crate::digest::Digest;

/// Shows progress; told of each transfer when it begins.
pub trait Progress: Send + Sync {
    /// A transfer of `total` bytes, if that is known, begins.
    fn begin(&self, label: &str, total: Option<u64>) -> Box<dyn Meter>;
}

/// Shows the progress of one transfer; dropped when it ends.
pub trait Meter: Send {
    /// So many more bytes.
    fn advance(&mut self, bytes: u64);
    /// It has ended well, with a word about how ("done", "already here").
    fn finish(&mut self, how: &str);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _label: &str, _total: Option<u64>) -> Box<dyn Meter> {
        Box::new(Self)
    }
}

impl Meter for Quiet {
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self, _how: &str) {}
}

/// Begins to show what becomes of a blob or layer.
pub(crate) fn begin(
    progress: &dyn Progress,
    digest: &Digest,
    total: Option<u64>,
) -> Box<dyn Meter> {
    let label: String = digest.digest().chars().take(12).collect();
    progress.begin(&label, total)
}

/// Tells a meter what is read.
pub(crate) struct Metered<R> {
    inner: R,
    meter: Box<dyn Meter>,
}

impl<R> Metered<R> {
    pub(crate) fn new(inner: R, meter: Box<dyn Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.meter.advance(n as u64);
        if n == 0 && !buf.is_empty() {
            self.meter.finish("done");
        }
        Ok(n)
    }
}
