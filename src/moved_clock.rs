//! The machine's clock with its wall time moved by what a file says, so that tests can set one process's clock wrong while it runs.
//!
//! Invariant: monotonic time is the machine's; a file that is missing or holds no whole number of seconds moves nothing.
//! Not here: production has no such file; only a hidden argument of `holdfast serve` names one.

use async_trait::async_trait;
use daemon::clock::{Clock, SystemClock};
use model::time::WallTime;
use std::path::PathBuf;
use std::time::Duration;

/// The moved clock.
pub(crate) struct MovedClock {
    machine: SystemClock,
    offset_file: PathBuf,
}

impl MovedClock {
    /// Moved by the seconds in `offset_file`, which is read at each look.
    pub(crate) fn new(offset_file: PathBuf) -> Self {
        Self {
            machine: SystemClock::new(),
            offset_file,
        }
    }

    fn offset_ms(&self) -> i64 {
        let text = std::fs::read_to_string(&self.offset_file).unwrap_or_default();
        text.trim().parse::<i64>().unwrap_or(0).saturating_mul(1_000)
    }
}

#[async_trait]
impl Clock for MovedClock {
    fn wall(&self) -> WallTime {
        WallTime(self.machine.wall().0.saturating_add_signed(self.offset_ms()))
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn suspended(&self) -> Duration {
        self.machine.suspended()
    }

    async fn sleep(&self, span: Duration) {
        self.machine.sleep(span).await;
    }
}

#[cfg(test)]
mod tests {
    use super::MovedClock;
    use daemon::clock::{Clock, SystemClock};

    #[test]
    fn wall_time_is_moved_both_ways_and_monotonic_time_never() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offset");
        let clock = MovedClock::new(file.clone());
        let begun = clock.monotonic();
        for (text, days) in [("", 0), ("no number", 0), ("-86400\n", -1), ("5184000", 60)] {
            std::fs::write(&file, text).unwrap();
            let before = SystemClock::new().wall().0;
            let moved = clock.wall().0;
            let day_ms = 86_400_000;
            let off = moved.cast_signed() - before.cast_signed() - days * day_ms;
            assert!((0..day_ms / 2).contains(&off), "{text}: off by {off}");
        }
        assert!(clock.monotonic() >= begun);
    }
}
