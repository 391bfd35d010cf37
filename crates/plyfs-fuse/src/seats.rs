//! Which threads wait for requests: one, the one that served last, as long as that is enough.
//!
//! The kernel wakes those who read the connection first in, first out: with many readers always
//! the one whose caches are coldest, often on another processor. So a thread that has replied
//! reads on only if nobody else reads, and else parks; who is called back is who parked last.
//!
//! A request may block for any reason (a disk, a copy, a lock), and the queue must be served
//! meanwhile. Requests that take long by nature call the next reader before they begin. For all
//! others there is the watch: a thread that looks every millisecond, while requests come,
//! whether somebody reads or the requests in progress at least advance.
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plyfs_sys::{alloc, io, process};

/// How long requests may wait at most while nobody reads.
const TICK: Duration = Duration::from_millis(1);
/// How rarely the watch looks when there is nobody left to call.
const LONGEST_TICK: Duration = Duration::from_millis(64);
/// After so many ticks without a request the watch sleeps until there is one.
const QUIET_TICKS: u32 = 3;

/// How long a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Some microseconds, unless it has to wait for a disk.
    Short,
    /// Long enough that another should serve what else is in the queue.
    Bulky,
    /// Waits for a disk or copies much: another reads meanwhile.
    Long,
    /// Short, and one of several that come to the file system as one read request.
    Part,
}

/// A parked thread.
#[derive(Debug)]
struct Seat {
    thread: Thread,
    called: AtomicBool,
}

/// The threads of one connection.
#[derive(Debug)]
pub(crate) struct Seats {
    dev_fuse: OwnedFd,
    /// Threads in read(2) or on the way, of those that have served before.
    readers: AtomicUsize,
    /// Threads that have served a request.
    known: AtomicUsize,
    /// Threads that wait to be called, the one that parked last at the end.
    parked: Mutex<Vec<Arc<Seat>>>,
    /// Requests that have begun.
    begun: AtomicU64,
    /// The watch sleeps; who begins a request wakes it.
    asleep: AtomicBool,
    /// A thread has ended: the connection is gone, nobody may park any more.
    closed: AtomicBool,
    /// The watch; nobody parks without it.
    watch: Mutex<Option<Thread>>,
    watched: AtomicBool,
    processors: usize,
}

/// What a thread of a connection knows about itself. Its end, which is the thread's, is how the
/// others learn that the connection is gone: fuser joins all threads and calls none of them.
struct Own {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.seats.close();
    }
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

impl Seats {
    pub(crate) fn new(dev_fuse: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            dev_fuse,
            readers: AtomicUsize::new(0),
            known: AtomicUsize::new(0),
            parked: Mutex::default(),
            begun: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            watch: Mutex::new(None),
            watched: AtomicBool::new(false),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// Runs one request on a thread that has read it; may park the thread afterwards.
    pub(crate) fn serve(self: &Arc<Self>, weight: Weight, request: impl FnOnce()) {
        if !self.watched.load(Ordering::Relaxed) {
            request();
        } else {
            self.begin(weight);
            request();
            self.end(weight);
        }
        // It is going to read again, so it may get a long request.
        alloc::fetch_rest();
    }

    fn begin(self: &Arc<Self>, weight: Weight) {
        if self.enrol() {
            self.known.fetch_add(1, Ordering::SeqCst);
        } else {
            self.readers.fetch_sub(1, Ordering::SeqCst);
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake_watch();
        }
        let alone = weight != Weight::Short && self.readers.load(Ordering::SeqCst) == 0;
        if alone && (weight == Weight::Long || (weight == Weight::Bulky && self.queue_waits())) {
            self.call_reader();
        }
    }

    fn end(&self, weight: Weight) {
        let enough = || {
            weight != Weight::Part
                && self.readers.load(Ordering::SeqCst) > 0
                && !self.closed.load(Ordering::SeqCst)
        };
        if enough() {
            // Again under the lock: a reader that has just got a long request looks here for
            // somebody to call, and either finds this thread or is not counted any more.
            let mut parked = self.parked.lock();
            if enough()
                && let Some(seat) = own_seat()
            {
                parked.push(Arc::clone(&seat));
                drop(parked);
                while !seat.called.swap(false, Ordering::SeqCst) {
                    std::thread::park();
                }
                return;
            }
        }
        self.readers.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether this thread serves its first request.
    fn enrol(self: &Arc<Self>) -> bool {
        OWN.with_borrow_mut(|own| {
            if own.is_some() {
                return false;
            }
            *own = Some(Own {
                seats: Arc::clone(self),
                seat: Arc::new(Seat {
                    thread: std::thread::current(),
                    called: AtomicBool::new(false),
                }),
            });
            true
        })
    }

    /// Lets the thread that parked last read again; false when none is parked.
    fn call_reader(&self) -> bool {
        let Some(seat) = self.parked.lock().pop() else {
            return false;
        };
        self.readers.fetch_add(1, Ordering::SeqCst);
        seat.called.store(true, Ordering::SeqCst);
        seat.thread.unpark();
        true
    }

    fn queue_waits(&self) -> bool {
        // What cannot be told counts as waiting: one reader too many does no harm.
        io::has_input(self.dev_fuse.as_fd()).unwrap_or(true)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.call_reader() {}
        self.wake_watch();
    }

    fn wake_watch(&self) {
        if let Some(watch) = &*self.watch.lock() {
            watch.unpark();
        }
    }
}

fn own_seat() -> Option<Arc<Seat>> {
    OWN.with_borrow(|own| own.as_ref().map(|own| Arc::clone(&own.seat)))
}

/// The watch of a connection; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    seats: Arc<Seats>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the watch. Without one (no thread to be had) all threads read, as ever.
    ///
    /// `quiet` is called whenever requests have stopped coming.
    pub(crate) fn start(seats: &Arc<Seats>, quiet: impl FnMut() + Send + 'static) -> Self {
        let (own, ready) = (Arc::clone(seats), Arc::clone(seats));
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .stack_size(64 << 10)
            .spawn(move || own.watch(quiet));
        match thread {
            Ok(thread) => {
                *ready.watch.lock() = Some(thread.thread().clone());
                ready.watched.store(true, Ordering::SeqCst);
                Self {
                    seats: ready,
                    thread: Some(thread),
                }
            }
            Err(e) => {
                tracing::warn!("all threads wait for requests, as none can watch them: {e}");
                Self {
                    seats: ready,
                    thread: None,
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seats.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watch over the serving threads panicked");
        }
    }
}

/// What the watch saw last.
struct Sight {
    begun: u64,
    at: Instant,
    cpu: Duration,
}

impl Seats {
    fn watch(&self, mut on_quiet: impl FnMut()) {
        let mut tick = TICK;
        let mut quiet = 0;
        let mut before = self.look();
        while !self.closed.load(Ordering::SeqCst) {
            std::thread::park_timeout(tick);
            let now = self.look();
            tick = if self.needs_reader(&before, &now) && !self.call_reader() {
                (tick * 2).min(LONGEST_TICK)
            } else {
                TICK
            };
            quiet = if now.begun == before.begun {
                quiet + 1
            } else {
                0
            };
            before = now;
            if quiet >= QUIET_TICKS && self.readers.load(Ordering::SeqCst) > 0 {
                on_quiet();
                self.sleep(before.begun);
                before = self.look();
                quiet = 0;
            }
        }
    }

    fn look(&self) -> Sight {
        Sight {
            begun: self.begun.load(Ordering::SeqCst),
            at: Instant::now(),
            cpu: process::cpu_time().unwrap_or_default(),
        }
    }

    /// Nobody reads. That is no harm while requests are short and the processors busy with them;
    /// it is where they stand still, or mostly wait for something else than a processor.
    fn needs_reader(&self, before: &Sight, now: &Sight) -> bool {
        if self.readers.load(Ordering::SeqCst) > 0 {
            return false;
        }
        if now.begun == before.begun {
            return true;
        }
        let busy = self
            .known
            .load(Ordering::SeqCst)
            .saturating_sub(self.parked.lock().len());
        let used = now.cpu.saturating_sub(before.cpu);
        let room = busy < self.processors || used * 2 < now.at.duration_since(before.at);
        room && self.queue_waits()
    }

    /// Sleeps until a request begins. Who begins one counts it before looking whether the watch
    /// sleeps, and the watch says that it sleeps before looking at the count.
    fn sleep(&self, begun: u64) {
        self.asleep.store(true, Ordering::SeqCst);
        if self.begun.load(Ordering::SeqCst) != begun {
            self.asleep.store(false, Ordering::SeqCst);
        }
        while self.asleep.load(Ordering::SeqCst) && !self.closed.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests;
