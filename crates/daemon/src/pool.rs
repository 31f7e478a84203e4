//! The CPU pool seam: work of more than about 100 us leaves the async threads for a few threads of its own.
//!
//! `Pool::threads` is the real side, `Pool::inline` the simulated one: it runs the work at once, on the caller's thread.
//! Work over few bytes stays where it is (`run_by_length`): the way to a thread and back would cost more.
//! Invariants: at most `queue_max` pieces of each urgency wait, further callers wait for a place; foreground work starts first;
//! work of one urgency starts in the order in which its callers got their places.
//! Not here: blocking I/O (disk has its own threads), and what a request does with the result.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Which queue a piece of work waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody's request waits for it.
    Foreground,
    /// Scrub, repair, packing: runs when no foreground work waits.
    Background,
}

/// Work over so few bytes that reading them once takes less than 100 us: BLAKE3 and CRC together take some 40 us for them on one core
/// without AVX-512 (a guess from the figures of both libraries). Handing it over costs two wake-ups and two switches of threads.
pub const SHORT_BYTES_MAX: usize = 64 << 10;

type Work = Box<dyn FnOnce() + Send>;

/// Where CPU work runs; clones are the same pool. The threads end when the last clone is dropped and the queues are empty.
#[derive(Clone)]
pub struct Pool {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Inline,
    Threads(Arc<Threads>),
}

struct Threads {
    queues: Arc<Queues>,
    foreground_places: Semaphore,
    background_places: Semaphore,
    threads: usize,
}

struct Queues {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    foreground: VecDeque<Work>,
    background: VecDeque<Work>,
    is_closed: bool,
}

impl Pool {
    /// A pool that runs work on the caller's own thread, at once: deterministic, for simulation and tests.
    #[must_use]
    pub fn inline() -> Self {
        Self { kind: Kind::Inline }
    }

    /// A pool of `threads` threads (at least 1) with room for `queue_max` waiting pieces (at least 1) of each urgency.
    ///
    /// Errors: the operating system refuses a thread.
    pub fn threads(threads: usize, queue_max: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let queues = Arc::new(Queues {
            state: Mutex::new(QueueState::default()),
            changed: Condvar::new(),
        });
        let pool = Threads {
            queues: Arc::clone(&queues),
            foreground_places: Semaphore::new(queue_max.clamp(1, Semaphore::MAX_PERMITS)),
            background_places: Semaphore::new(queue_max.clamp(1, Semaphore::MAX_PERMITS)),
            threads,
        };
        for number in 0..threads {
            let queues = Arc::clone(&queues);
            // When a later thread is refused, dropping `pool` closes the queues and the earlier ones end.
            std::thread::Builder::new()
                .name(format!("cpu-{number}"))
                .spawn(move || queues.work_off())?;
        }
        Ok(Self {
            kind: Kind::Threads(Arc::new(pool)),
        })
    }

    /// A pool with a thread for each core of the machine and room for 64 waiting pieces a thread (a guess: at 1 MiB a piece
    /// about 25 ms of work, so whoever is refused room waits no longer than a disk would take).
    ///
    /// Errors: the operating system refuses a thread.
    pub fn of_machine() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::threads(cores, cores.saturating_mul(64))
    }

    /// Runs `work` and returns what it returns; waits for a place in the queue first.
    ///
    /// May be dropped midway: work that has not begun is then never begun, work that has begun runs to its end unobserved.
    ///
    /// # Panics
    /// With the panic of `work`, in the caller's task.
    pub async fn run<T, F>(&self, urgency: Urgency, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let threads = match &self.kind {
            Kind::Inline => return work(),
            Kind::Threads(threads) => threads,
        };
        let places = match urgency {
            Urgency::Foreground => &threads.foreground_places,
            Urgency::Background => &threads.background_places,
        };
        // The place is kept until the result is back or the caller gives up, so running work counts against the bound too.
        let _place = places.acquire().await.expect("the pool's semaphores are never closed");
        let (send, receive) = oneshot::channel();
        threads.queues.push(
            urgency,
            Box::new(move || {
                if !send.is_closed() {
                    // Whoever gave up in the meantime does not want the result.
                    let _ = send.send(catch_unwind(AssertUnwindSafe(work)));
                }
            }),
        );
        match receive
            .await
            .expect("a pool thread drops no work before running it while a caller holds the pool")
        {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs `work`, which reads `len_bytes` bytes about once: here and now when they are at most `SHORT_BYTES_MAX`, else as `run`.
    ///
    /// May be dropped midway, as `run`.
    ///
    /// # Panics
    /// With the panic of `work`, in the caller's task.
    pub async fn run_by_length<T, F>(&self, urgency: Urgency, len_bytes: usize, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if len_bytes <= SHORT_BYTES_MAX {
            work()
        } else {
            self.run(urgency, work).await
        }
    }

    /// How many threads work; 0 for the inline pool.
    #[must_use]
    pub fn width(&self) -> usize {
        match &self.kind {
            Kind::Inline => 0,
            Kind::Threads(threads) => threads.threads,
        }
    }

    /// How many pieces wait for a thread.
    #[must_use]
    pub fn backlog(&self) -> usize {
        match &self.kind {
            Kind::Inline => 0,
            Kind::Threads(threads) => {
                let state = threads.queues.state();
                state.foreground.len() + state.background.len()
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool(threads: {}, backlog: {})", self.width(), self.backlog())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queues.state().is_closed = true;
        self.queues.changed.notify_all();
    }
}

impl Queues {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        // Pushing and popping are whole operations of the deque, and no work runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, urgency: Urgency, work: Work) {
        let mut state = self.state();
        match urgency {
            Urgency::Foreground => state.foreground.push_back(work),
            Urgency::Background => state.background.push_back(work),
        }
        drop(state);
        self.changed.notify_one();
    }

    fn work_off(&self) {
        while let Some(work) = self.next() {
            work();
        }
    }

    /// The next piece, foreground first; `None` once the pool is closed and both queues are empty.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            let work = state.foreground.pop_front().or_else(|| state.background.pop_front());
            if work.is_some() || state.is_closed {
                return work;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pool, SHORT_BYTES_MAX, Urgency};
    use std::sync::mpsc;
    use std::sync::{Arc, Mutex};

    fn pools() -> [Pool; 2] {
        [Pool::inline(), Pool::threads(2, 4).unwrap()]
    }

    #[tokio::test]
    async fn both_pools_return_what_the_work_returns() {
        for pool in pools() {
            assert_eq!(pool.run(Urgency::Foreground, || 6 * 7).await, 42);
            assert_eq!(pool.run(Urgency::Background, || "done").await, "done");
        }
    }

    #[tokio::test]
    async fn a_panic_of_the_work_reaches_its_caller_and_the_pool_goes_on() {
        for pool in pools() {
            let clone = pool.clone();
            let task = tokio::spawn(async move { clone.run(Urgency::Foreground, || panic!("planted")).await });
            assert!(task.await.unwrap_err().is_panic());
            assert_eq!(pool.run(Urgency::Foreground, || 1).await, 1);
        }
    }

    #[tokio::test]
    async fn short_work_waits_for_no_thread_and_long_work_goes_to_one() {
        let pool = Pool::threads(1, 1).unwrap();
        let thread = || std::thread::current().name().map(str::to_owned);
        let short = pool.run_by_length(Urgency::Foreground, SHORT_BYTES_MAX, thread).await;
        assert_eq!(short, thread());
        let long = pool
            .run_by_length(Urgency::Foreground, SHORT_BYTES_MAX + 1, thread)
            .await;
        assert_eq!(long.as_deref(), Some("cpu-0"));
        // The only thread and the only place are taken, and short work is done all the same.
        let (release, gate) = mpsc::channel::<()>();
        let blocked = pool.run(Urgency::Foreground, move || gate.recv().unwrap());
        let short = async {
            assert_eq!(pool.run_by_length(Urgency::Foreground, 0, || 1).await, 1);
            release.send(()).unwrap();
        };
        tokio::join!(blocked, short);
    }

    #[tokio::test]
    async fn far_more_work_than_places_is_all_done() {
        let pool = Pool::threads(2, 1).unwrap();
        let tasks: Vec<_> = (0..100_u64)
            .map(|number| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.run(Urgency::Foreground, move || number).await })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        assert_eq!((sum, pool.backlog()), (4_950, 0));
    }

    #[tokio::test]
    async fn foreground_work_overtakes_background_work_that_has_not_begun() {
        let pool = Pool::threads(1, 8).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = pool.run(Urgency::Foreground, move || gate.recv().unwrap());
        let note = |name: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(name)
        };
        let background = pool.run(Urgency::Background, note("background"));
        let foreground = pool.run(Urgency::Foreground, note("foreground"));
        let releasing = async {
            // Joined futures are polled in order, so all three pieces are queued before this one runs.
            release.send(()).unwrap();
        };
        tokio::join!(first, background, foreground, releasing);
        assert_eq!(*order.lock().unwrap(), ["foreground", "background"]);
    }

    #[tokio::test]
    async fn work_whose_caller_gave_up_is_never_begun() {
        let pool = Pool::threads(1, 8).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let blocking = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(Urgency::Foreground, move || gate.recv().unwrap()).await }
        });
        let begun = Arc::new(Mutex::new(false));
        let abandoned = {
            let begun = Arc::clone(&begun);
            pool.run(Urgency::Foreground, move || *begun.lock().unwrap() = true)
        };
        let mut abandoned = Box::pin(abandoned);
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(abandoned.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        drop(abandoned);
        release.send(()).unwrap();
        blocking.await.unwrap();
        pool.run(Urgency::Background, || ()).await;
        assert!(!*begun.lock().unwrap());
    }
}
