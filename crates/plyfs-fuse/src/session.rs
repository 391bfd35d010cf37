//! A FUSE connection: INIT, the threads that serve it, and its end.
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use plyfs_sys::{Errno, SysError, alloc, process};
use plyfs_union::Union;

use crate::backings::KernelBackings;
use crate::counts::{Op, RequestCounts};
use crate::hello::{self, Connection};
use crate::notify::KernelListener;
use crate::ops::Adapter;
use crate::raw_reply::RawReply;
use crate::seats::{Seats, Watch};

/// How data of files is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// By the page cache of the mount. Opens cost no request, and all see every change at once.
    Cached,
    /// By the kernel from the files of the layers, whose page cache it is. Each open is a request.
    Passthrough,
}

/// How requests are served.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Number of threads that serve requests.
    pub threads: usize,
    /// How long the kernel may keep entries and attributes; `Duration::MAX` = until told otherwise.
    pub timeout: Duration,
    /// Largest WRITE request in bytes.
    pub max_write: u32,
    /// A request that takes this long is named in the log; `Duration::MAX` = none is.
    pub slow: Duration,
    /// Whether the kernel may cache writes and store them later.
    pub writeback: bool,
    /// How data is read and written; passthrough has no cached writes.
    pub data: Data,
    /// Passthrough: on how many file systems deep the mount stands. Its layers must be less deep.
    pub stack_depth: u32,
}

/// Threads mostly wait for a disk, so there are more of them than processors: a few long copies
/// must not stop requests on other files.
const DEFAULT_THREADS: usize = 16;
/// 1 MiB is the most the kernel sends unless fs.fuse.max_pages_limit is raised.
const DEFAULT_MAX_WRITE: u32 = 1 << 20;
/// Longer than copying a large file takes: a disk that hangs, or a network that does.
const DEFAULT_SLOW: Duration = Duration::from_secs(10);

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            threads: DEFAULT_THREADS,
            timeout: Duration::MAX,
            max_write: DEFAULT_MAX_WRITE,
            slow: DEFAULT_SLOW,
            writeback: true,
            data: Data::Cached,
            stack_depth: 1,
        }
    }
}

/// A FUSE connection that serves a merged view.
#[derive(Debug)]
pub struct Session {
    inner: fuser::Session<Adapter>,
    union: Arc<Union>,
    counts: Arc<RequestCounts>,
    seats: Arc<Seats>,
    threads: usize,
}

/// Bytes of any request but a long WRITE: an xattr has 64 KiB.
const USUAL_REQUEST: usize = (64 << 10) + 8192;

/// Bytes of the longest request that comes.
fn longest_request(union: &Union, max_write: usize) -> usize {
    if union.is_read_only() {
        USUAL_REQUEST
    } else {
        USUAL_REQUEST.max(max_write + 8192)
    }
}

/// So many inodes that were let go are worth looking for memory to give back.
const MANY_FORGETS: u64 = 10_000;

/// Gives memory back once many inodes have been forgotten since the last time.
fn trim_after_forgets(counts: &Arc<RequestCounts>) -> impl FnMut() + Send + use<> {
    let counts = Arc::clone(counts);
    let mut trimmed = 0;
    move || {
        let forgotten = counts.of(Op::Forget).count();
        if forgotten >= trimmed + MANY_FORGETS {
            trimmed = forgotten;
            process::trim_heap();
        }
    }
}

fn no_passthrough(e: SysError) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, e)
}

impl Session {
    /// Answers FUSE_INIT on an already mounted `dev_fuse`.
    ///
    /// # Errors
    /// When the kernel closes the connection or speaks an unsupported protocol; `Unsupported` where
    /// data is to be passed through and the kernel does not let this process.
    pub fn start(union: Arc<Union>, dev_fuse: OwnedFd, config: SessionConfig) -> io::Result<Self> {
        Self::on(Connection::New, union, dev_fuse, config)
    }

    /// Goes on with the connection of a daemon that died, from whose journal `union` comes.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn take_over(
        union: Arc<Union>,
        dev_fuse: OwnedFd,
        config: SessionConfig,
    ) -> io::Result<Self> {
        Self::on(Connection::Inherited, union, dev_fuse, config)
    }

    fn on(
        connection: Connection,
        union: Arc<Union>,
        dev_fuse: OwnedFd,
        config: SessionConfig,
    ) -> io::Result<Self> {
        let max_write = config.max_write as usize;
        let raw = RawReply::new(dev_fuse.try_clone()?);
        let threads = config.threads.max(1);
        let data = config.data;
        let for_backings = dev_fuse.try_clone()?;
        let seats = Seats::new(dev_fuse.try_clone()?);
        let adapter = Adapter::new(Arc::clone(&union), raw, config, Arc::clone(&seats));
        let counts = Arc::clone(adapter.counts());
        let mut fuser_config = fuser::Config::default();
        fuser_config.acl = fuser::SessionACL::All;
        fuser_config.n_threads = Some(threads);
        let inner = match union.journal() {
            Some(journal) => {
                let longest = longest_request(&union, max_write);
                // One daemon has died: should another do so soon, no request is to be lost.
                let at_once = match connection {
                    Connection::New => longest.min(USUAL_REQUEST),
                    Connection::Inherited => longest,
                };
                alloc::fetch_ahead(at_once, longest);
                hello::shake_hands(adapter, &dev_fuse, fuser_config, journal, connection)?
            }
            None => {
                let acl = fuser::SessionACL::All;
                fuser::Session::from_fd(adapter, dev_fuse, acl, fuser_config)?
            }
        };
        if data == Data::Passthrough {
            let backings = KernelBackings::try_on(for_backings).map_err(no_passthrough)?;
            union.pass_through(Box::new(backings));
        }
        union.set_listener(Box::new(KernelListener::new(inner.notifier())));
        Ok(Self {
            inner,
            union,
            counts,
            seats,
            threads,
        })
    }

    /// The counters of the requests of this connection; they go on while it is served.
    #[must_use]
    pub fn counts(&self) -> Arc<RequestCounts> {
        Arc::clone(&self.counts)
    }

    /// Serves requests until the file system is unmounted or the connection is aborted, then closes
    /// the view.
    ///
    /// # Errors
    /// When reading requests fails for another reason, or closing fails.
    pub fn run(self) -> io::Result<Ended> {
        process::share_heap();
        let watch =
            (self.threads > 1).then(|| Watch::start(&self.seats, trim_after_forgets(&self.counts)));
        let served = self.inner.run();
        drop(watch);
        let ended = match served {
            Ok(()) => Ended::Unmounted,
            Err(e) if e.raw_os_error() == Some(Errno::ECONNABORTED as i32) => Ended::Aborted,
            Err(e) => return Err(e),
        };
        self.union
            .close()
            .map_err(|e| io::Error::from_raw_os_error(e.errno() as i32))?;
        Ok(ended)
    }
}

/// Why there are no more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody can reach the file system any more.
    Unmounted,
    /// Somebody ended the connection; the mount is still there and answers with errors.
    Aborted,
}
