//! The error of a failed system call, with the call in words.
use std::fmt;

pub use nix::errno::Errno;

/// Result of a system call.
pub type Result<T> = std::result::Result<T, SysError>;

/// A failed system call: which call, on what, and the errno.
#[derive(Clone)]
pub struct SysError {
    call: &'static str,
    subject: Option<Box<[u8]>>,
    errno: Errno,
}

impl SysError {
    /// A failure of `call` without a named subject.
    #[must_use]
    pub fn new(call: &'static str, errno: Errno) -> Self {
        Self {
            call,
            subject: None,
            errno,
        }
    }

    /// A failure of `call` on the object called `subject`.
    #[must_use]
    pub fn on(call: &'static str, subject: &[u8], errno: Errno) -> Self {
        Self {
            call,
            subject: Some(subject.into()),
            errno,
        }
    }

    /// The failure of the call that has just returned an error, from the thread's errno.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        Self::new(call, Errno::last())
    }

    /// The errno of the failure.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The system call that failed.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.call
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(s) => write!(
                f,
                "{}({:?}): {}",
                self.call,
                s.escape_ascii().to_string(),
                self.errno
            ),
            None => write!(f, "{}: {}", self.call, self.errno),
        }
    }
}

impl fmt::Debug for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SysError {}

impl From<SysError> for std::io::Error {
    fn from(e: SysError) -> Self {
        std::io::Error::from_raw_os_error(e.errno as i32)
    }
}
