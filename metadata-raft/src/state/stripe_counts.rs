//! How the stripes of a slot stand, as counters: the status of a cluster must not cost a scan of its stripes.
//!
//! Invariant: the counters say what a scan of the slot's stripes would; `check` counts both. They are kept by slot, so that they
//! move with it, and are added up over a group's slots when asked for.
//! Not here: which stripes they are (the queues of `stripe`).

use crate::state::age;
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, load, save};
use crate::state::stripe::StripeRecord;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::Slot;
use protocol::metadata::query::StripeCounts;

fn key(slot: Slot) -> Bytes {
    Key::of_slot(slot, keys::STRIPE_COUNTS).done()
}

/// The counters of a slot.
pub(crate) fn of_slot(kv: &dyn KvRead, slot: Slot) -> Outcome<StripeCounts> {
    Ok(load(kv, &key(slot))?.unwrap_or_default())
}

/// The counters of all slots that the group owns. Costs a look at each.
pub(crate) fn of_group(kv: &dyn KvRead) -> Outcome<StripeCounts> {
    let mut sum = StripeCounts::default();
    for slot in age::owned_slots(kv)? {
        sum = sum.plus(&of_slot(kv, slot)?);
    }
    Ok(sum)
}

/// What one stripe adds to the counters.
pub(crate) fn of_stripe(record: &StripeRecord) -> StripeCounts {
    let missing = record.astray.iter().filter(|astray| astray.disk.is_none()).count();
    StripeCounts {
        total: 1,
        degraded: u64::from(!record.astray.is_empty()),
        astray: record.astray.len() as u64,
        missing: missing as u64,
        damaged: u64::from(record.is_damaged),
        dying: u64::from(record.living_bytes == 0),
    }
}

/// Counts that a stripe of `slot` was `old` and is `new` (`None`: not there). Most changes of a stripe change no counter.
pub(crate) fn replace(
    tx: &mut Overlay<'_>,
    slot: Slot,
    old: Option<&StripeRecord>,
    new: Option<&StripeRecord>,
) -> Outcome<()> {
    let count = |record: Option<&StripeRecord>| record.map(of_stripe).unwrap_or_default();
    let (before, after) = (count(old), count(new));
    if before == after {
        return Ok(());
    }
    let counted = of_slot(&*tx, slot)?
        .plus(&after)
        .minus(&before)
        .ok_or_else(|| broken("a counter of stripes would fall below zero"))?;
    save(tx, key(slot), &counted)
}
