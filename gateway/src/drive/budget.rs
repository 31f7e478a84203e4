//! The byte budget of a gateway: what all uploads together, and stripes that are packed, may hold in memory.
//!
//! Invariants: an upload that was admitted always has its first share, so it always moves; further shares only while the budget
//! lasts; nobody waits for a share while holding none.
//! Not here: buffers of downloads (bounded by their read-ahead) and of connections (bounded by hyper).

use crate::codes;
use crate::metrics;
use daemon::metrics::Metrics;
use prometheus::{IntCounter, IntGauge};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one stripe in flight holds: its plain blocks, the sealed stripe, and its parity, at most as long as the stripe.
pub const STRIPE_SHARE_BYTES: u64 = 3 * model::stripe::STRIPE_BYTES_MAX as u64;
/// An upload of known length needs no more than three times that and what its smallest buffers take.
const SMALL_SHARE_BYTES: u64 = 64 << 10;
/// Stripes that one upload may have in flight.
pub const STRIPES_IN_FLIGHT_MAX: usize = 3;

/// The budget; clones share it.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    bytes: u64,
    free: AtomicU64,
    free_gauge: IntGauge,
    refused: IntCounter,
}

/// A part of the budget; given back when dropped.
pub struct Share {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64, registry: &Metrics) -> Self {
        registry
            .gauge(&metrics::BUDGET_BYTES)
            .with_label_values::<&str>(&[])
            .set(bytes as i64);
        let free_gauge = registry
            .gauge(&metrics::BUDGET_FREE_BYTES)
            .with_label_values::<&str>(&[]);
        free_gauge.set(bytes as i64);
        let refused = registry
            .counter(&metrics::BUDGET_REFUSED)
            .with_label_values::<&str>(&[]);
        Self {
            inner: Arc::new(Inner {
                bytes,
                free: AtomicU64::new(bytes),
                free_gauge,
                refused,
            }),
        }
    }

    /// The first share of an upload of `declared` bytes, or of unknown length; `too_busy` when there is none.
    pub fn admit(&self, declared: Option<u64>) -> Result<Share, Failure> {
        let needed = declared.map_or(STRIPE_SHARE_BYTES, |bytes| {
            bytes
                .saturating_mul(3)
                .saturating_add(SMALL_SHARE_BYTES)
                .min(STRIPE_SHARE_BYTES)
        });
        self.first(needed)
    }

    /// The first share of an upload of which `bytes` are held before the first of them goes in; `too_busy` when there is none. What
    /// its first stripe does not hold of them comes on top.
    pub fn admit_held(&self, bytes: u64) -> Result<Share, Failure> {
        let beside = bytes.saturating_sub(model::stripe::STRIPE_BYTES_MAX as u64);
        self.first(STRIPE_SHARE_BYTES.saturating_add(beside))
    }

    fn first(&self, bytes: u64) -> Result<Share, Failure> {
        self.take(bytes).ok_or_else(|| {
            self.inner.refused.inc();
            codes::TOO_BUSY.failure().with("retry_after_s", 1)
        })
    }

    /// One more stripe's share, when the budget has it.
    pub fn extend(&self) -> Option<Share> {
        self.take(STRIPE_SHARE_BYTES)
    }

    /// A stripe's share for work that nobody waits for: only while the budget has one more, for an upload. A budget that is too small
    /// for two gives one while nobody uploads.
    pub fn extend_idle(&self) -> Option<Share> {
        if self.inner.bytes < 2 * STRIPE_SHARE_BYTES {
            let is_unused = self.inner.free.load(Ordering::Acquire) == self.inner.bytes;
            return if is_unused { self.extend() } else { None };
        }
        let _kept = self.extend()?;
        self.extend()
    }

    fn take(&self, bytes: u64) -> Option<Share> {
        let less = |free: u64| free.checked_sub(bytes);
        self.inner
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .ok()?;
        self.inner.free_gauge.sub(bytes as i64);
        Some(Share {
            inner: Arc::clone(&self.inner),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.inner.free.fetch_add(self.bytes, Ordering::AcqRel);
        self.inner.free_gauge.add(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, STRIPE_SHARE_BYTES};
    use daemon::metrics::Metrics;

    #[test]
    fn a_share_comes_back_when_dropped_and_nothing_is_promised_twice() {
        let budget = Budget::new(STRIPE_SHARE_BYTES + (100 << 10), &Metrics::new());
        let first = budget.admit(None).ok().unwrap();
        assert!(budget.extend().is_none());
        assert_eq!(budget.admit(None).err().unwrap().code, "too_busy");
        let small = budget.admit(Some(1000)).ok().unwrap();
        drop((first, small));
        assert!(budget.admit(Some(10 << 30)).is_ok());
    }

    #[test]
    fn work_that_nobody_waits_for_leaves_a_share_for_an_upload() {
        let budget = Budget::new(2 * STRIPE_SHARE_BYTES, &Metrics::new());
        let idle = budget.extend_idle();
        assert!(idle.is_some() && budget.extend_idle().is_none());
        assert!(budget.admit(None).is_ok(), "looking for a share keeps none");
        let small = Budget::new(STRIPE_SHARE_BYTES + (100 << 10), &Metrics::new());
        let upload = small.admit(Some(1000)).ok().unwrap();
        assert!(small.extend_idle().is_none());
        drop(upload);
        assert!(small.extend_idle().is_some());
    }

    #[test]
    fn what_is_held_beside_the_first_stripe_comes_on_top() {
        let budget = Budget::new(STRIPE_SHARE_BYTES + (1 << 20), &Metrics::new());
        let most = STRIPE_SHARE_BYTES / 3 + (1 << 20);
        drop(budget.admit_held(most).unwrap());
        assert_eq!(budget.admit_held(most + 1).err().unwrap().code, "too_busy");
        assert_eq!(budget.admit_held(u64::MAX).err().unwrap().code, "too_busy");
        let short = budget.admit_held(1).unwrap();
        assert_eq!(budget.admit_held(0).err().unwrap().code, "too_busy");
        drop(short);
        assert!(budget.admit(None).is_ok());
    }
}
