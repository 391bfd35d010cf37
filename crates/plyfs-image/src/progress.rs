//! Telling whoever waits how far a transfer is.

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
