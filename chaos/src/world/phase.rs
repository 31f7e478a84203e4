//! Where a world stands: coming up, under attack, or left in peace to show that it recovers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The cluster comes up.
    Rise,
    /// Clients and nemesis work.
    Faults,
    /// Faults have ended.
    Peace,
}

/// The present phase; clones are the same.
#[derive(Clone, Default)]
pub struct Phases {
    now: Arc<AtomicU8>,
}

impl Phases {
    /// Where the world stands.
    #[must_use]
    pub fn now(&self) -> Phase {
        match self.now.load(Ordering::Relaxed) {
            0 => Phase::Rise,
            1 => Phase::Faults,
            _ => Phase::Peace,
        }
    }

    /// The world goes on to `phase`.
    pub fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Rise => 0,
            Phase::Faults => 1,
            Phase::Peace => 2,
        };
        self.now.store(number, Ordering::Relaxed);
    }
}
