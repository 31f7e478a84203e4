//! The threads, locks and queues of the group commit, in one place.
//!
//! Place in the picture: `group_commit` takes them from its parent module. `schedules` is its parent a second time, in tests, and
//! gives it threads whose every schedule can be tried; so the same source runs there, unchanged.
//! Not here: anything of our own. The semaphore and the one-shot answers need no twin: they are futures.

pub(super) use std::sync::Mutex;
pub(super) use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
pub(super) use std::thread::{Builder, JoinHandle, current};
