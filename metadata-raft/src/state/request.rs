//! Request ids: a repeat gets the first answer.
//!
//! Invariants: only commands that succeeded leave a row; a row lives the aged hours of its kind; an id whose row may already be gone is
//! `outcome_unknown`, never done again.

use crate::state::age::Now;
use crate::state::keys;
use crate::state::store::{Outcome, load, require, save};
use crate::state::waiting::{self, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::Slot;
use model::limits::COMMAND_OPERATIONS_MAX;
use protocol::codes;
use protocol::frame;
use protocol::metadata::drive::Swept;
use protocol::metadata::{CommandAnswer, RequestKey};
use serde::{Deserialize, Serialize};

/// Of an aged hour in a key.
const HOUR_BYTES: usize = 4;

/// The row of a request id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestRow {
    pub(crate) asked: [u8; 32],
    /// The first answer, encoded.
    pub(crate) answer: Bytes,
    /// First aged hour in which the row may go.
    pub(crate) end_hour: u32,
}

fn living(kv: &dyn KvRead, now: &Now, slot: Slot, key: &RequestKey) -> Outcome<Option<RequestRow>> {
    let row: Option<RequestRow> = load(kv, &keys::request(slot, key.source, key.id))?;
    Ok(row.filter(|row| now.time.age_hour < row.end_hour))
}

/// Refuses an id whose row may have come and gone, and one that was made in an hour which has not come yet: no answer told that hour.
fn require_in_time(now: &Now, key: &RequestKey) -> Outcome<()> {
    let hour = now.time.age_hour;
    let is_in_time = key
        .made_hour
        .is_none_or(|made| made <= hour && hour - made <= key.life.hours());
    require(is_in_time, &codes::OUTCOME_UNKNOWN)
}

/// Whether a first answer is kept under this id, whatever was asked under it; `outcome_unknown` where one may have been kept.
pub(crate) fn is_remembered(kv: &dyn KvRead, now: &Now, slot: Slot, key: &RequestKey) -> Outcome<bool> {
    let is_kept = living(kv, now, slot, key)?.is_some();
    if !is_kept {
        require_in_time(now, key)?;
    }
    Ok(is_kept)
}

/// The first answer to a repeat; `None` for a request that is new.
pub(crate) fn repeated(kv: &dyn KvRead, now: &Now, slot: Slot, key: &RequestKey) -> Outcome<Option<CommandAnswer>> {
    if let Some(row) = living(kv, now, slot, key)? {
        require(row.asked == key.asked, &codes::REQUEST_ID_REUSED)?;
        return Ok(Some(frame::decode(&row.answer)?));
    }
    require_in_time(now, key)?;
    Ok(None)
}

/// Keeps the first answer.
pub(crate) fn remember(
    tx: &mut Overlay<'_>,
    now: &Now,
    slot: Slot,
    key: &RequestKey,
    answer: &CommandAnswer,
) -> Outcome<()> {
    let row_key = keys::request(slot, key.source, key.id);
    if let Some(old) = load::<RequestRow>(&*tx, &row_key)? {
        tx.delete(keys::request_end(slot, old.end_hour, key.source, key.id));
    }
    // The hour of its application counts as begun, so the row outlives its life by up to one hour.
    let end_hour = now.time.age_hour.saturating_add(key.life.hours()).saturating_add(1);
    let row = RequestRow {
        asked: key.asked,
        answer: frame::encode(answer)?,
        end_hour,
    };
    tx.put(keys::request_end(slot, end_hour, key.source, key.id), Bytes::new());
    waiting::note(tx, Work::requests(slot), waiting::hours(end_hour))?;
    save(tx, row_key, &row)
}

/// `SweepRequests`, from where the last one ended: rows are only ever entered behind.
pub(crate) fn sweep(tx: &mut Overlay<'_>, now: &Now, slot: Slot) -> Outcome<Swept> {
    let work = Work::requests(slot);
    let prefix = keys::Key::of_slot(slot, keys::REQUEST_END).done();
    let mut after = waiting::after(&*tx, work)?;
    let mut operations = 0;
    for (key, _) in tx.scan(&waiting::behind(&prefix, &after, COMMAND_OPERATIONS_MAX))? {
        if waiting::due_of(Sweep::Requests, &key) > now.age() {
            break;
        }
        let name = key.get(prefix.len() + HOUR_BYTES..).unwrap_or_default();
        tx.delete(keys::Key::of_slot(slot, keys::REQUEST).bytes(name).done());
        tx.delete(key.clone());
        after = key.slice(prefix.len()..);
        operations += 1;
    }
    let next = waiting::first(&*tx, &prefix, &after)?;
    let due = next.map(|key| waiting::due_of(Sweep::Requests, &key));
    waiting::settle(tx, work, due.map(|due| (due, after)))?;
    Ok(Swept {
        operations,
        is_done: due.is_none_or(|due| due > now.age()),
    })
}
