//! The two times: wall time, which is for showing, and age, which is for destroying.
//!
//! Wall time may jump; nothing is ever removed by it except links and tokens, which expire.
//! Age is a slot's own counter that can lag the world and never outrun it, so a wrong clock empties nothing.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z on somebody's wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Milliseconds of a slot's age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Age(pub u64);

impl Age {
    /// The age one `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How far `self` lies behind `now`; zero when it does not.
    #[must_use]
    pub fn elapsed(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }

    /// The birth epoch that this age lies in, for epochs of length `epoch`.
    #[must_use]
    pub fn epoch(self, epoch: Duration) -> BirthEpoch {
        let epoch_ms = u64::try_from(epoch.as_millis()).unwrap_or(u64::MAX).max(1);
        BirthEpoch(u32::try_from(self.0 / epoch_ms).unwrap_or(u32::MAX) & BirthEpoch::MAX.0)
    }
}

/// A slot's age counted in epochs (one hour; dev two seconds): 28 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BirthEpoch(pub u32);

impl BirthEpoch {
    /// The greatest epoch that fits a stripe id.
    pub const MAX: Self = Self((1 << 28) - 1);
    /// A stripe may be introduced while its epoch is at most this many behind the present one.
    pub const OPEN_EPOCHS: u32 = 24;

    /// Whether a stripe born in this epoch may still become known when the slot is in epoch `now`.
    #[must_use]
    pub fn is_open(self, now: Self) -> bool {
        self <= now && now.0 - self.0 <= Self::OPEN_EPOCHS
    }

    /// The newest epoch of which no stripe can become known any more when the slot is in this one; `None` while all are open.
    #[must_use]
    pub fn newest_closed(self) -> Option<Self> {
        self.0.checked_sub(Self::OPEN_EPOCHS + 1).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::BirthEpoch;

    #[test]
    fn the_newest_closed_epoch_is_the_last_before_those_that_are_open() {
        assert_eq!(BirthEpoch(BirthEpoch::OPEN_EPOCHS).newest_closed(), None);
        for now in [25, 26, 1_000] {
            let closed = BirthEpoch(now).newest_closed().unwrap();
            assert!(!closed.is_open(BirthEpoch(now)));
            assert!(BirthEpoch(closed.0 + 1).is_open(BirthEpoch(now)));
        }
    }
}
