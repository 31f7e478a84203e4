//! Blocking work of async code: on threads of its own, or inline where one thread is the whole of a simulated world.
//!
//! Place in the picture: what reads disks and stores off the async threads asks here, as it would ask `spawn_blocking`. Like that
//! one it is found through the thread and not handed in: it belongs to whatever runtime the caller runs on.
//! Invariants: inline is chosen once for a thread, before its world starts, and never by production; there work begins after a
//! short simulated wait drawn from the world's seed, so that what was asked at the same time does not always end in the same order.
//! Not here: CPU work (`pool`), and who writes a disk: that is an owner of its own (node's writer, the journal's group commit).

use crate::random::Random;
use std::cell::RefCell;
use std::time::Duration;

/// Longest wait of inline work: about what a read of a busy disk takes.
const INLINE_WAIT_MAX: Duration = Duration::from_millis(3);

thread_local! {
    static INLINE: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// Blocking work that panicked.
#[derive(Debug, thiserror::Error)]
#[error("blocking work panicked: {0}")]
pub struct WorkPanicked(String);

/// From now on this thread, and every runtime that it drives, does blocking work inline; waits are drawn from `random`.
pub fn inline_on_this_thread(random: Random) {
    INLINE.with(|inline| *inline.borrow_mut() = Some(random));
}

/// Whether this thread does blocking work inline: then nothing may be given to another thread.
#[must_use]
pub fn is_inline() -> bool {
    INLINE.with(|inline| inline.borrow().is_some())
}

/// Runs `work` where it may block, and returns what it returns.
///
/// May be dropped midway: work that has begun runs to its end unobserved.
/// Errors: the work panicked.
#[allow(clippy::disallowed_methods, reason = "the one place that waits for a simulated read")]
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkPanicked> {
    let inline = INLINE.with(|inline| inline.borrow().clone());
    match inline {
        None => tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| WorkPanicked(error.to_string())),
        Some(random) => {
            tokio::time::sleep(random.up_to(INLINE_WAIT_MAX)).await;
            Ok(work())
        }
    }
}

/// Runs `work` where it may block and tells nobody of its end, also when it panics: whoever waits for what it does is told by the
/// work itself. No task waits for it, so that its end wakes none. Must be called inside a tokio runtime.
pub fn start(work: impl FnOnce() + Send + 'static) {
    if is_inline() {
        tokio::spawn(async move { drop(run(work).await) });
    } else {
        drop(tokio::task::spawn_blocking(work));
    }
}

#[cfg(test)]
mod tests {
    use super::{inline_on_this_thread, is_inline, run, start};
    use crate::random::Random;

    #[tokio::test]
    async fn work_runs_elsewhere_until_its_thread_is_told_otherwise() {
        let here = std::thread::current().id();
        assert!(!is_inline());
        assert_ne!(run(|| std::thread::current().id()).await.unwrap(), here);
        inline_on_this_thread(Random::seeded(1));
        assert!(is_inline());
        assert_eq!(run(|| std::thread::current().id()).await.unwrap(), here);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_runs_to_its_end() {
        for seed in [None, Some(1)] {
            if let Some(seed) = seed {
                inline_on_this_thread(Random::seeded(seed));
            }
            let (send, receive) = tokio::sync::oneshot::channel();
            start(move || send.send(std::thread::current().id()).unwrap());
            let is_here = receive.await.unwrap() == std::thread::current().id();
            assert_eq!(is_here, seed.is_some());
        }
    }

    #[tokio::test]
    async fn a_panic_of_the_work_is_told_and_the_caller_goes_on() {
        let error = run(|| panic!("planted")).await.unwrap_err();
        assert!(error.to_string().starts_with("blocking work panicked"), "{error}");
    }
}
