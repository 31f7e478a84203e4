//! What happened in one schedule, as its threads write it down.
//!
//! Invariants: its lock is one of `std`, of which the scheduler knows nothing; so it is never held where threads are switched.
//! Not here: what is written down, which is for each suite.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happened in one schedule.
pub trait Ledger: Default + Send + 'static {
    /// What many schedules met: a suite in which this stays empty proves little.
    type Seen: Debug + Default + Send + 'static;

    /// Every promise that was broken, in words, the first one first.
    fn violations(&self) -> &[String];

    /// Adds what this schedule met to what was `seen` before.
    fn count(self, seen: &mut Self::Seen);
}

/// A ledger among the threads of its schedule.
pub type Shared<L> = Arc<Mutex<L>>;

/// What `mutex` guards, also when a thread panicked that had it: what was written down until then still counts.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
