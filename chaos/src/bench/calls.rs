//! Calls of the load: each on a task of its own, sent again when the server says so, and counted on the terminal.
//!
//! Invariant: only answers that the server calls repeatable are sent again, and how often is told.

use super::figure::Figure;
use client_sdk::error::ClientError;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const TRIES: u32 = 8;
/// Doubled from try to try, up to sixteen times; a Busy gateway frees a stripe's memory in some ten milliseconds. Guess.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const SHOW_EACH: Duration = Duration::from_millis(500);

/// On a task of its own, so that the load uses every core as the cluster does.
pub(super) async fn spawned<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    counter: &Counter,
) -> anyhow::Result<T> {
    let outcome = tokio::spawn(work).await?;
    counter.count();
    outcome
}

/// Makes a call until it is answered or refused for good; also says how often it was sent again.
pub(crate) async fn repeated<T, F: Future<Output = Result<T, ClientError>>>(
    mut call: impl FnMut() -> F,
) -> Result<(T, usize), ClientError> {
    let mut repeats = 0;
    loop {
        match call().await {
            Ok(answer) => return Ok((answer, repeats as usize)),
            Err(error) if error.is_retryable() && repeats + 1 < TRIES => {
                tokio::time::sleep(FIRST_PAUSE * (1 << repeats.min(4))).await;
                repeats += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The line of a phase under way.
pub(super) struct Counter {
    done: Arc<AtomicUsize>,
    shown: tokio::task::JoinHandle<()>,
}

impl Counter {
    pub(super) fn start(name: &str, total: usize) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let (name, counted) = (name.to_owned(), done.clone());
        let shown = tokio::spawn(async move {
            // A log file gets the finished line alone.
            while std::io::stdout().is_terminal() {
                print!("\r{name}: {} of {total}", counted.load(Ordering::Relaxed));
                // A terminal that is gone is no reason to fail.
                drop(std::io::stdout().flush());
                tokio::time::sleep(SHOW_EACH).await;
            }
        });
        Self { done, shown }
    }

    pub(super) fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stop(self, figure: &Figure) {
        let rate = figure.operations_per_s;
        let (name, lead) = (&figure.name, if std::io::stdout().is_terminal() { "\r" } else { "" });
        println!(
            "{lead}{name}: {} in {:.1} s, {rate:.1} a second",
            figure.operations, figure.wall_s
        );
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.shown.abort();
    }
}
