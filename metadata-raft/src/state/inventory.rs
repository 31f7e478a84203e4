//! What disks should hold of the group's stripes: sums of ids by placement group, and the stripes themselves where sums differ.
//!
//! Counted from the stripes when it is asked for, a bounded part at a time, and kept nowhere: a turn over all of them is one walk
//! through a table in two days, where counters would cost every stripe a row more. Between two parts stripes may go and never come, since
//! only closed birth epochs are counted; whoever compares takes a difference as a reason to look closer and as nothing else.
//! Invariants: only slots that the group owns are counted; a stripe that may still be named is in no answer, nor one without a living
//! byte, which is being removed.
//! Not here: rows and disks (the gateway's collector), which stripes are orphans (`collection`).

use crate::state::age::{self, Times};
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, list, require};
use crate::state::stripe::{self, StripeRecord};
use kv::seam::KvRead;
use model::id::Slot;
use model::inventory::{self, IdSum};
use model::layout::{PG_BITS_MAX, PG_BITS_MIN};
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::{BirthEpoch, WallTime};
use protocol::codes;
use protocol::metadata::inventory::{
    AstraySum, ListStripes, ListedStripe, ListedStripes, PgSum, STRIPES_LISTED_MAX, STRIPES_SUMMED_MAX, StripeSums,
    SumStripes, SummedTo,
};
use std::collections::BTreeMap;

/// `Query::SumStripes`.
pub(crate) fn sums(kv: &dyn KvRead, times: &mut Times, ask: &SumStripes) -> Outcome<StripeSums> {
    let is_size = |(_, bits): &(ProfileId, u8)| (PG_BITS_MIN..=PG_BITS_MAX).contains(bits);
    require(ask.pg_bits.iter().all(is_size), &codes::MALFORMED_COMMAND)?;
    if let Some(after) = &ask.after {
        require_closed(kv, times, after.stripe.slot(), after.born_by)?;
    }
    let begun = ask.after.map(|after| (after.stripe.slot(), after));
    let pg_bits: BTreeMap<ProfileId, u8> = ask.pg_bits.iter().copied().collect();
    let mut found = StripeSums::default();
    let mut left = STRIPES_SUMMED_MAX;
    for slot in age::owned_slots(kv)? {
        let (born_by, behind) = match begun {
            Some((at, _)) if slot < at => continue,
            Some((at, after)) if slot == at => (after.born_by, Some(keys::stripe(after.profile, after.stripe))),
            _ => {
                let Some(closed) = newest_closed(kv, times, slot)? else {
                    continue;
                };
                found.slots.push((slot, closed));
                (closed, None)
            }
        };
        let table = Key::of_slot(slot, keys::STRIPE).done();
        let rows = list::<StripeRecord>(kv, &table, behind.as_deref(), left)?;
        left = left.saturating_sub(rows.len());
        for (key, record) in &rows {
            let (profile, id) = named(key)?;
            if is_counted(id, record, born_by) {
                let bits = pg_bits.get(&profile).copied().unwrap_or(PG_BITS_MIN);
                add(&mut found.sums, (slot, profile, id.pg(bits)), id, record);
            }
            found.next = Some(SummedTo {
                born_by,
                profile,
                stripe: id,
            });
        }
        if left == 0 {
            return Ok(found);
        }
    }
    found.next = None;
    Ok(found)
}

/// `Query::ListStripes`.
pub(crate) fn stripes(kv: &dyn KvRead, times: &mut Times, ask: &ListStripes) -> Outcome<ListedStripes> {
    let is_inside = |after: StripeId| inventory::leading(after) == ask.leading;
    require(ask.after.is_none_or(is_inside), &codes::MALFORMED_COMMAND)?;
    let slots: BTreeMap<Slot, BirthEpoch> = ask.slots.iter().copied().collect();
    let mut found = ListedStripes::default();
    let mut left = STRIPES_LISTED_MAX;
    for (slot, born_by) in slots {
        require_closed(kv, times, slot, born_by)?;
        if ask.after.is_some_and(|after| slot < after.slot()) {
            continue;
        }
        let behind = ask.after.filter(|after| after.slot() == slot);
        let behind = behind.map(|after| keys::stripe(ask.profile, after));
        let cell = Key::of_slot(slot, keys::STRIPE)
            .u8(ask.profile.number())
            .u8(ask.leading);
        let rows = list::<StripeRecord>(kv, &cell.done(), behind.as_deref(), left)?;
        left = left.saturating_sub(rows.len());
        for (key, record) in rows {
            let (_, id) = named(&key)?;
            if is_counted(id, &record, born_by) {
                found.stripes.push(ListedStripe {
                    stripe: id,
                    astray: record.astray,
                });
            }
            found.next = Some(id);
        }
        if left == 0 {
            return Ok(found);
        }
    }
    found.next = None;
    Ok(found)
}

fn newest_closed(kv: &dyn KvRead, times: &mut Times, slot: Slot) -> Outcome<Option<BirthEpoch>> {
    let now = times.now(kv, slot, WallTime(0))?;
    Ok(now.time.birth_epoch.newest_closed())
}

/// Refuses a slot of another group, which cannot be counted here, and an epoch of which stripes are in flight.
fn require_closed(kv: &dyn KvRead, times: &mut Times, slot: Slot, born_by: BirthEpoch) -> Outcome<()> {
    let closed = newest_closed(kv, times, slot)?;
    require(
        closed.is_some_and(|closed| born_by <= closed),
        &codes::MALFORMED_COMMAND,
    )
}

fn is_counted(id: StripeId, record: &StripeRecord, born_by: BirthEpoch) -> bool {
    id.born() <= born_by && record.living_bytes > 0
}

fn named(key: &[u8]) -> Outcome<(ProfileId, StripeId)> {
    stripe::name_at_end(key).ok_or_else(|| broken("a stripe has no name"))
}

/// Adds a stripe to the last sum, or to a new one behind it: stripes come in the order of the sums.
fn add(sums: &mut Vec<PgSum>, at: (Slot, ProfileId, u32), id: StripeId, record: &StripeRecord) {
    let one = IdSum::of(id);
    let (slot, profile, pg) = at;
    let mut sum = match sums.pop() {
        Some(last) if (last.slot, last.profile, last.pg) == at => last,
        other => {
            sums.extend(other);
            PgSum {
                slot,
                profile,
                pg,
                all: IdSum::ZERO,
                astray: Vec::new(),
            }
        }
    };
    sum.all = sum.all.plus(one);
    for astray in &record.astray {
        let is_same = |known: &&mut AstraySum| (known.index, known.disk) == (astray.index, astray.disk);
        match sum.astray.iter_mut().find(is_same) {
            Some(known) => known.sum = known.sum.plus(one),
            None => sum.astray.push(AstraySum {
                index: astray.index,
                disk: astray.disk,
                sum: one,
            }),
        }
    }
    sums.push(sum);
}
