//! How many bytes the contents of a slot take and wait to be given back, as counters: a gauge must not cost a scan.
//!
//! Invariants: the counters say what a scan of the slot's pages, drives and stripes would; `check` counts both. They are kept by slot,
//! so that they move with it, and are added up over a group's slots when asked for.
//! Not here: what one drive holds against its quota (`usage`).

use crate::state::age;
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, load, save};
use crate::state::stripe::StripeRecord;
use crate::state::usage::UsageRecord;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::Slot;
use serde::{Deserialize, Serialize};

/// The counters, all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentCounts {
    /// Plain, of all pages, each as often as versions and sessions hold it.
    pub logical_bytes: u64,
    /// Plain, what counts against quotas: blocks each once.
    pub charged_bytes: u64,
    /// Plain, of blocks that lost their last reference and wait their grace.
    pub released_bytes: u64,
    /// Sealed, of all stripes before they are cut into fragments.
    pub stripe_bytes: u64,
    /// The part of these that living blocks and tails take; the rest is dead.
    pub living_bytes: u64,
    /// Of all fragments of these stripes, those that are missing too.
    pub stored_bytes: u64,
}

impl ContentCounts {
    fn fields(&mut self) -> [&mut u64; 6] {
        [
            &mut self.logical_bytes,
            &mut self.charged_bytes,
            &mut self.released_bytes,
            &mut self.stripe_bytes,
            &mut self.living_bytes,
            &mut self.stored_bytes,
        ]
    }

    /// Both together; a sum beyond 64 bits stays at the greatest number.
    pub(crate) fn plus(mut self, mut other: Self) -> Self {
        for (own, more) in self.fields().into_iter().zip(other.fields()) {
            *own = own.saturating_add(*more);
        }
        self
    }

    fn minus(mut self, mut other: Self) -> Option<Self> {
        for (own, less) in self.fields().into_iter().zip(other.fields()) {
            *own = own.checked_sub(*less)?;
        }
        Some(self)
    }

    /// What so many sealed bytes of all that lives are of its plain ones, in percent, rounded up; zero where nothing is.
    pub(crate) fn compression_percent(&self, sealed_bytes: u64) -> u64 {
        match self.charged_bytes.saturating_add(self.released_bytes) {
            0 => 0,
            plain_bytes => sealed_bytes.saturating_mul(100).div_ceil(plain_bytes),
        }
    }

    /// What a drive adds.
    pub(crate) fn of_drive(usage: &UsageRecord) -> Self {
        Self {
            charged_bytes: usage.charged_bytes,
            released_bytes: usage.released_bytes,
            ..Self::default()
        }
    }

    /// What a stripe adds.
    pub(crate) fn of_stripe(record: &StripeRecord) -> Self {
        let fragments = u64::from(record.form.k) + u64::from(record.form.m);
        Self {
            stripe_bytes: u64::from(record.form.stripe_bytes),
            living_bytes: u64::from(record.living_bytes),
            stored_bytes: record.form.fragment_bytes() as u64 * fragments,
            ..Self::default()
        }
    }

    /// What a page adds each time that it is held.
    pub(crate) fn of_page(plain_bytes: u64) -> Self {
        Self {
            logical_bytes: plain_bytes,
            ..Self::default()
        }
    }
}

fn key(slot: Slot) -> Bytes {
    Key::of_slot(slot, keys::CONTENT_COUNTS).done()
}

/// The counters of a slot.
pub(crate) fn of_slot(kv: &dyn KvRead, slot: Slot) -> Outcome<ContentCounts> {
    Ok(load(kv, &key(slot))?.unwrap_or_default())
}

/// The counters of all slots that the group owns. Costs a look at each.
pub(crate) fn of_group(kv: &dyn KvRead) -> Outcome<ContentCounts> {
    let mut sum = ContentCounts::default();
    for slot in age::owned_slots(kv)? {
        sum = sum.plus(of_slot(kv, slot)?);
    }
    Ok(sum)
}

/// Counts that something of `slot` added `before` and adds `after` by now.
pub(crate) fn replace(tx: &mut Overlay<'_>, slot: Slot, before: ContentCounts, after: ContentCounts) -> Outcome<()> {
    if before == after {
        return Ok(());
    }
    let counted = of_slot(&*tx, slot)?
        .plus(after)
        .minus(before)
        .ok_or_else(|| broken("a counter of contents would fall below zero"))?;
    save(tx, key(slot), &counted)
}

/// Counts that a stripe was `old` and is `new` (`None`: not there).
pub(crate) fn replace_stripe(
    tx: &mut Overlay<'_>,
    slot: Slot,
    old: Option<&StripeRecord>,
    new: Option<&StripeRecord>,
) -> Outcome<()> {
    let count = |record: Option<&StripeRecord>| record.map(ContentCounts::of_stripe).unwrap_or_default();
    replace(tx, slot, count(old), count(new))
}
