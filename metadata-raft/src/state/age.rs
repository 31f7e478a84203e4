//! A group's time, the slots that it owns and the row versions that it was told.
//!
//! Invariants: the counter only grows, by at most `AGE_STEP_MS_MAX` and `AGE_STEP_EPOCHS_MAX` epochs a command, so a wrong clock
//! empties nothing; a slot's age is the counter plus an offset set when the slot was adopted.

use crate::state::collection;
use crate::state::inline_bytes;
use crate::state::keys::{self, Key};
use crate::state::packing;
use crate::state::repacking;
use crate::state::store::{Outcome, load, require, save};
use crate::state::waiting;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::id::{RowVersion, Slot};
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::{Age, WallTime};
use protocol::codes;
use protocol::metadata::SlotTime;
use protocol::metadata::group::{AGE_STEP_EPOCHS_MAX, AGE_STEP_MS_MAX, GroupCommand, GroupSettings, GroupState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Row versions are kept in runs of this many, so that telling and checking one touches little.
const ROWS_RUN: usize = 256;
const HOUR_MS: u64 = 3_600_000;

/// The group's counter and how much of a leader's time it has taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupAge {
    pub(crate) counter_ms: u64,
    pub(crate) term: u64,
    pub(crate) led_ms: u64,
}

/// A slot that the group owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnedSlot {
    /// The slot's age minus the group's counter.
    pub(crate) offset_ms: i64,
}

/// The time at which a command runs: the sender's wall clock and the slot's own age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: WallTime,
    pub(crate) time: SlotTime,
}

impl Now {
    pub(crate) fn age(&self) -> Age {
        self.time.age
    }
}

fn age_key() -> bytes::Bytes {
    Key::of_group(keys::GROUP_AGE).done()
}

fn settings_key() -> bytes::Bytes {
    Key::of_group(keys::GROUP_SETTINGS).done()
}

fn slot_key(slot: Slot) -> bytes::Bytes {
    Key::of_group(keys::GROUP_SLOT).u16(slot.number()).done()
}

fn pg_bits_key(profile: ProfileId) -> bytes::Bytes {
    Key::of_group(keys::GROUP_PG_BITS).u8(profile.number()).done()
}

fn rows_key(profile: ProfileId, run: u32) -> bytes::Bytes {
    Key::of_group(keys::GROUP_ROWS).u8(profile.number()).u32(run).done()
}

/// The time of a slot; `not_mine` when the group does not own it, `not_configured` before it knows its epochs.
fn now(kv: &dyn KvRead, slot: Slot, wall: WallTime) -> Outcome<Now> {
    let age = of_slot(kv, slot)?;
    let settings = settings(kv)?;
    let birth_epoch = age.epoch(Duration::from_millis(settings.birth_epoch_ms));
    let age_hour = u32::try_from(age.0 / HOUR_MS).unwrap_or(u32::MAX);
    Ok(Now {
        wall,
        time: SlotTime {
            age,
            birth_epoch,
            age_hour,
        },
    })
}

/// The times of slots, remembered as long as no command of a group as a whole is applied: only those change them.
///
/// Three reads for each command and query would tell the same again.
#[derive(Debug, Default)]
pub(crate) struct Times {
    known: BTreeMap<Slot, SlotTime>,
}

impl Times {
    /// As `now`, which is asked once for each slot.
    pub(crate) fn now(&mut self, kv: &dyn KvRead, slot: Slot, wall: WallTime) -> Outcome<Now> {
        if let Some(time) = self.known.get(&slot) {
            return Ok(Now { wall, time: *time });
        }
        let now = now(kv, slot, wall)?;
        self.known.insert(slot, now.time);
        Ok(now)
    }

    /// Forgets all: they may have changed, or the state is another one.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// The group's own counter.
pub(crate) fn counter_ms(kv: &dyn KvRead) -> Outcome<u64> {
    Ok(load::<GroupAge>(kv, &age_key())?.unwrap_or_default().counter_ms)
}

/// What a slot's age is ahead of the group's counter; `not_mine` when the group does not own it.
fn offset_ms(kv: &dyn KvRead, slot: Slot) -> Outcome<i64> {
    let owned = load::<OwnedSlot>(kv, &slot_key(slot))?.ok_or(&codes::NOT_MINE)?;
    Ok(owned.offset_ms)
}

/// A slot's own age; `not_mine` when the group does not own it.
pub(crate) fn of_slot(kv: &dyn KvRead, slot: Slot) -> Outcome<Age> {
    let offset_ms = offset_ms(kv, slot)?;
    Ok(Age(counter_ms(kv)?.saturating_add_signed(offset_ms)))
}

/// The group's counter when a slot is of this age; `not_mine` when the group does not own it.
pub(crate) fn counter_at(kv: &dyn KvRead, slot: Slot, age: Age) -> Outcome<u64> {
    Ok(age.0.saturating_sub_signed(offset_ms(kv, slot)?))
}

/// The group's settings; `not_configured` before it was told them.
pub(crate) fn settings(kv: &dyn KvRead) -> Outcome<GroupSettings> {
    load(kv, &settings_key())?.ok_or_else(|| (&codes::NOT_CONFIGURED).into())
}

/// Applies a command to the group as a whole.
pub(crate) fn apply(tx: &mut Overlay<'_>, command: &GroupCommand) -> Outcome<()> {
    match command {
        GroupCommand::Configure(settings) => configure(tx, settings),
        GroupCommand::AdoptSlots { slots } => {
            let group: GroupAge = load(&*tx, &age_key())?.unwrap_or_default();
            for adopted in slots {
                let key = slot_key(adopted.slot);
                if tx.get(&key)?.is_none() {
                    let offset_ms = adopted.age.0.wrapping_sub(group.counter_ms).cast_signed();
                    save(tx, key, &OwnedSlot { offset_ms })?;
                }
            }
            Ok(())
        }
        GroupCommand::Advance { term, led_ms } => {
            advance(tx, *term, *led_ms)?;
            waiting::fill(tx)?;
            packing::fill(tx)?;
            inline_bytes::fill(tx)?;
            repacking::fill(tx)
        }
        GroupCommand::TellRows {
            profile,
            pg_bits,
            versions,
        } => tell_rows(tx, *profile, *pg_bits, versions),
        GroupCommand::TakeLease { holder, lease, span_ms } => collection::take_lease(tx, *holder, *lease, *span_ms),
        GroupCommand::ForgetStripes { lease, stripes } => collection::forget_stripes(tx, *lease, stripes),
        GroupCommand::ForgetUntold { lease, disk, stripes } => collection::forget_untold(tx, *lease, *disk, stripes),
    }
}

fn configure(tx: &mut Overlay<'_>, settings: &GroupSettings) -> Outcome<()> {
    require(settings.birth_epoch_ms > 0, &codes::MALFORMED_COMMAND)?;
    if let Some(known) = load::<GroupSettings>(&*tx, &settings_key())? {
        // Stripe ids carry epochs: another length would reopen closed ones.
        require(
            known.birth_epoch_ms == settings.birth_epoch_ms,
            &codes::MALFORMED_COMMAND,
        )?;
        if known.block_grace_ms > settings.block_grace_ms {
            // Rows of the queue would come too late by what the grace is shorter now.
            waiting::fill_idle_again(tx);
        }
    } else {
        waiting::begin(tx)?;
        repacking::begin(tx)?;
        packing::begin(tx)?;
        inline_bytes::begin(tx)?;
    }
    save(tx, settings_key(), settings)
}

fn advance(tx: &mut Overlay<'_>, term: u64, led_ms: u64) -> Outcome<()> {
    let settings = settings(&*tx)?;
    let mut age: GroupAge = load(&*tx, &age_key())?.unwrap_or_default();
    // A late command of an older term, or one overtaken by a later one of its own, adds nothing.
    if term < age.term {
        return Ok(());
    }
    let seen_ms = if term == age.term { age.led_ms } else { 0 };
    let epochs_ms = settings.birth_epoch_ms.saturating_mul(AGE_STEP_EPOCHS_MAX);
    let grown_ms = led_ms.saturating_sub(seen_ms).min(AGE_STEP_MS_MAX).min(epochs_ms);
    age = GroupAge {
        counter_ms: age.counter_ms.saturating_add(grown_ms),
        term,
        led_ms: led_ms.max(seen_ms),
    };
    save(tx, age_key(), &age)
}

fn tell_rows(tx: &mut Overlay<'_>, profile: ProfileId, pg_bits: u8, versions: &[RowVersion]) -> Outcome<()> {
    let known: Option<u8> = load(&*tx, &pg_bits_key(profile))?;
    let is_whole = u32::from(pg_bits) < usize::BITS && versions.len() == 1_usize << pg_bits;
    require(
        is_whole && known.is_none_or(|bits| bits <= pg_bits),
        &codes::MALFORMED_COMMAND,
    )?;
    for (run, told) in (0_u32..).zip(versions.chunks(ROWS_RUN)) {
        let key = rows_key(profile, run);
        // After a doubling of the table the old runs stand for other groups; rows of new ones are newer anyway.
        let old: Vec<RowVersion> = if known == Some(pg_bits) {
            load(&*tx, &key)?.unwrap_or_default()
        } else {
            Vec::new()
        };
        let merged: Vec<RowVersion> = told
            .iter()
            .enumerate()
            .map(|(at, told)| old.get(at).map_or(*told, |old| *told.max(old)))
            .collect();
        if merged != old {
            save(tx, key, &merged)?;
        }
    }
    save(tx, pg_bits_key(profile), &pg_bits)
}

/// Refuses a stripe that was counted under an older row version than the group was told.
pub(crate) fn require_row(kv: &dyn KvRead, profile: ProfileId, stripe: StripeId, counted: RowVersion) -> Outcome<()> {
    let Some(pg_bits) = load::<u8>(kv, &pg_bits_key(profile))? else {
        return Ok(());
    };
    let pg = stripe.pg(pg_bits) as usize;
    let run = u32::try_from(pg / ROWS_RUN).unwrap_or(u32::MAX);
    let versions: Vec<RowVersion> = load(kv, &rows_key(profile, run))?.unwrap_or_default();
    match versions.get(pg % ROWS_RUN) {
        Some(known) if counted < *known => Err(codes::STALE_ROW
            .failure()
            .with("row_version", known)
            .with("stripe", stripe)
            .into()),
        _ => Ok(()),
    }
}

/// The slots that the group owns, ascending.
pub(crate) fn owned_slots(kv: &dyn KvRead) -> Outcome<Vec<Slot>> {
    let owned = kv.scan(&Scan::prefix(
        &Key::of_group(keys::GROUP_SLOT).done(),
        usize::from(model::id::SLOTS),
    ))?;
    let slots = owned.iter().filter_map(|(key, _)| {
        key.last_chunk::<2>()
            .and_then(|bytes| Slot::new(u16::from_be_bytes(*bytes)))
    });
    Ok(slots.collect())
}

/// The group as a whole.
pub(crate) fn describe(kv: &dyn KvRead) -> Outcome<GroupState> {
    let age: GroupAge = load(kv, &age_key())?.unwrap_or_default();
    let mut rows = Vec::new();
    for profile in ProfileId::ALL {
        let Some(pg_bits) = load::<u8>(kv, &pg_bits_key(profile))? else {
            continue;
        };
        let runs = (1_u32 << pg_bits.min(model::layout::PG_BITS_MAX)).div_ceil(ROWS_RUN as u32);
        let mut greatest = RowVersion(0);
        for run in 0..runs {
            let versions: Vec<RowVersion> = load(kv, &rows_key(profile, run))?.unwrap_or_default();
            greatest = versions.into_iter().fold(greatest, RowVersion::max);
        }
        rows.push((profile, greatest));
    }
    let settings = load(kv, &settings_key())?;
    Ok(GroupState {
        counter_ms: age.counter_ms,
        settings,
        slots: owned_slots(kv)?,
        rows,
    })
}
