//! What the measurements of this package share: clients that write and how long each write took, processor time, memory.
//!
//! Each example brings in what it needs of it. Not here: what is written, and to whom.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// User and system time of this process.
pub(crate) fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    );
    Duration::new(seconds, nanos)
}

/// The argument at this place, or what stands for it.
pub(crate) fn argument<T: std::str::FromStr>(at: usize, default: T) -> T {
    std::env::args()
        .nth(at)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// How long the writes of a load took.
pub(crate) struct Times {
    /// Shortest first.
    sorted: Vec<Duration>,
    /// From the first to the last.
    pub(crate) span: Duration,
}

impl Times {
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// Writes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() as f64 / self.span.as_secs_f64()
    }

    /// Milliseconds that this share of the writes, in percent, did not pass.
    pub(crate) fn at(&self, share: usize) -> f64 {
        let place = (self.count() * share / 100).min(self.count() - 1);
        self.sorted[place].as_secs_f64() * 1e3
    }
}

/// Clients that write, each its next one when the one before is answered.
pub(crate) struct Load {
    begun: Instant,
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Duration>>>,
}

impl Load {
    /// `clients` that do `write` over and over, with a pause between two.
    pub(crate) fn start<F, W>(clients: usize, pause: Duration, write: F) -> Self
    where
        F: Fn() -> W + Clone + Send + 'static,
        W: Future<Output = ()> + Send,
    {
        let is_over = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (write, is_over) = (write.clone(), is_over.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    write().await;
                    times.push(begun.elapsed());
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                times
            })
        };
        Self {
            begun: Instant::now(),
            clients: (0..clients).map(client).collect(),
            is_over,
        }
    }

    /// Lets every client end its write.
    pub(crate) async fn end(self) -> Times {
        self.is_over.store(true, Ordering::Relaxed);
        let mut sorted = Vec::new();
        for client in self.clients {
            sorted.extend(client.await.unwrap());
        }
        sorted.sort_unstable();
        let span = self.begun.elapsed();
        Times { sorted, span }
    }
}

/// Lets `clients` do `work` over and over for `span`, and prints how many there were a second, how long one took and the CPU time of
/// one. `one` and `many` are its names.
pub(crate) async fn show<F, W>(clients: usize, span: Duration, (one, many): (&str, &str), work: F)
where
    F: Fn() -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    let before = cpu();
    let load = Load::start(clients, Duration::ZERO, work);
    tokio::time::sleep(span).await;
    let times = load.end().await;
    let used = cpu() - before;
    println!(
        "{clients:>4} at once: {:>7.0} {many}/s  p50 {:>6.3} ms  p99 {:>6.3} ms  cpu {:>6.1} us a {one}",
        times.rate(),
        times.at(50),
        times.at(99),
        used.as_secs_f64() * 1e6 / times.count() as f64
    );
}
