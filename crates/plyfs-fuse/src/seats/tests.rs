use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;

use super::*;

/// A test that waits longer than this has shown a request that nobody serves.
const PATIENCE: Duration = Duration::from_secs(60);

type Job = (Weight, Box<dyn FnOnce() + Send>);

/// Threads that serve jobs as fuser's serve requests; a channel stands in for the connection.
struct Loop {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    watch: Watch,
    /// The connection, on which nothing ever comes.
    _other_end: UnixStream,
}

impl Loop {
    fn start(threads: usize) -> Self {
        let (dev, other_end) = UnixStream::pair().unwrap();
        let seats = Seats::new(OwnedFd::from(dev));
        let watch = Watch::start(&seats, || ());
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let thread = |_| {
            let (seats, queue) = (Arc::clone(&seats), Arc::clone(&queue));
            std::thread::spawn(move || {
                loop {
                    let next = queue.lock().recv();
                    let Ok((weight, job)) = next else { return };
                    seats.serve(weight, job);
                }
            })
        };
        Self {
            jobs: Some(jobs),
            threads: (0..threads).map(thread).collect(),
            watch,
            _other_end: other_end,
        }
    }

    fn send(&self, weight: Weight, job: impl FnOnce() + Send + 'static) {
        let jobs = self.jobs.as_ref().unwrap();
        jobs.send((weight, Box::new(job))).unwrap();
    }

    /// Who serves a job.
    fn ask(&self, weight: Weight) -> ThreadId {
        let (answer, answered) = channel();
        self.send(weight, move || {
            answer.send(std::thread::current().id()).unwrap();
        });
        answered.recv_timeout(PATIENCE).unwrap()
    }

    /// Every thread has served and all that can have parked.
    fn warm_up(&self) {
        while self.watch.seats.known.load(Ordering::SeqCst) < self.threads.len() {
            self.ask(Weight::Short);
        }
        for _ in 0..100 {
            self.ask(Weight::Short);
        }
    }

    /// A job that is in progress until the answer is sent.
    fn hang(&self, weight: Weight) -> (Sender<()>, Receiver<()>) {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let (end, ended) = channel();
        self.send(weight, move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
            end.send(()).unwrap();
        });
        has_begun.recv_timeout(PATIENCE).unwrap();
        (release, ended)
    }

    fn finish(mut self) {
        drop(self.jobs.take());
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn one_after_the_other_is_served_by_few_threads() {
    let serving = Loop::start(16);
    serving.warm_up();
    let who: HashSet<ThreadId> = (0..100).map(|_| serving.ask(Weight::Short)).collect();
    // One, were it not for the moments in which it has answered and not yet returned; on a busy
    // machine they last long enough for the watch to call the one or two who parked last.
    assert!(who.len() <= 6, "{} threads served", who.len());
    serving.finish();
}

#[test]
fn requests_are_served_while_others_hang() {
    for weight in [Weight::Short, Weight::Bulky, Weight::Long, Weight::Part] {
        let serving = Loop::start(4);
        serving.warm_up();
        let mut hanging = Vec::new();
        for _ in 0..3 {
            hanging.push(serving.hang(weight));
            for _ in 0..20 {
                serving.ask(Weight::Short);
            }
        }
        for (release, ended) in hanging {
            release.send(()).unwrap();
            ended.recv_timeout(PATIENCE).unwrap();
        }
        serving.finish();
    }
}

#[test]
fn all_threads_end_with_the_connection() {
    // Before any thread has served, after one has, and after all have.
    Loop::start(4).finish();
    let serving = Loop::start(4);
    serving.ask(Weight::Short);
    serving.finish();
    let serving = Loop::start(4);
    serving.warm_up();
    serving.finish();
}

#[test]
fn parts_of_one_request_do_not_park_between_them() {
    let serving = Loop::start(4);
    serving.warm_up();
    let seats = Arc::clone(&serving.watch.seats);
    let (done, finished) = channel();
    std::thread::spawn(move || {
        for _ in 0..10 {
            seats.serve(Weight::Part, || ());
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).unwrap();
    serving.finish();
}
