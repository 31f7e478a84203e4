//! The locks and the blocking work of the replicated state, in one place.
//!
//! Place in the picture: `state_machine` takes them from its parent module. `state::tests::schedules` is its parent a second time, and
//! gives it locks whose every schedule can be tried; so the same source runs there, unchanged.
//! Not here: anything of our own.

pub(super) use daemon::blocking::run as blocking;
pub(super) use std::sync::{Mutex, RwLock, RwLockReadGuard};
