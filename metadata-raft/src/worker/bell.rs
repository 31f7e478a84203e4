//! Wakes workers when something was applied that they wait for.
//!
//! Pulled while commands of a batch are applied, rung once the batch is written: whoever is woken finds what it was woken for.
//! Invariant: a pull that comes after a ring is rung by the next one; pulls of one batch are one ring.

use daemon::worker::Waker;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A group's bell. Its workers start after the group, so it is hung up later; what is pulled before is not lost on anybody, since a
/// worker looks once when it starts.
#[derive(Default)]
pub struct Bell {
    is_pulled: AtomicBool,
    wakers: OnceLock<Vec<Waker>>,
}

impl Bell {
    /// Says whom to wake. Only the first time counts.
    pub fn hang(&self, wakers: Vec<Waker>) {
        drop(self.wakers.set(wakers));
    }

    /// There will be something to look at.
    pub fn pull(&self) {
        self.is_pulled.store(true, Ordering::Release);
    }

    /// It is there now.
    pub fn ring(&self) {
        if self.is_pulled.swap(false, Ordering::AcqRel) {
            self.wakers.get().into_iter().flatten().for_each(Waker::wake);
        }
    }
}
