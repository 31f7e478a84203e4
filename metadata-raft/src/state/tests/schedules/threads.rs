//! Shuttle's locks, for the source of the replicated state; blocking work runs on the thread of the schedule that asks for it.
//!
//! Not here: what must hold under them (`schedules`).

use daemon::blocking::WorkPanicked;

pub(super) use shuttle::sync::{Mutex, RwLock, RwLockReadGuard};

/// As `daemon::blocking::run`; a panic goes on to the schedule, which ends with it.
pub(super) async fn blocking<T>(work: impl FnOnce() -> T) -> Result<T, WorkPanicked> {
    Ok(work())
}
