//! What an earlier release left without rows that this one keeps: its tables are looked at once, a bounded part of them a command.
//!
//! Invariants: slots are looked at in ascending order and the rows of each in the order of their keys; what lies before a place was
//! looked at, and nothing behind it.
//! Not here: what is made of a row (`packing`, `inline_bytes`, `repacking`), rows that are made drive by drive (`waiting`).

use crate::state::age;
use crate::state::keys::Key;
use crate::state::store::{Outcome, load};
use crate::state::waiting;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use serde::{Deserialize, Serialize};

/// How far a table was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilledTo {
    pub(crate) slot: u16,
    /// The end of the key of the last row that was looked at in this slot; nothing before the first.
    pub(crate) after: Bytes,
}

impl FilledTo {
    /// Before the first row of a slot.
    pub(crate) fn begin_of(slot: u16) -> Self {
        let after = Bytes::new();
        Self { slot, after }
    }
}

/// How far a table was looked at, or that it was as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Filled {
    /// All before this place.
    UpTo(FilledTo),
    /// All.
    Whole,
}

impl Filled {
    /// What stands under a key; nothing stands there where an earlier release began.
    pub(crate) fn under(kv: &dyn KvRead, key: &[u8]) -> Outcome<Self> {
        Ok(load(kv, key)?.unwrap_or(Self::UpTo(FilledTo::begin_of(0))))
    }
}

/// Shows `each` the keys and values of at most `rows_max` rows of a table from a place on. Answers where to go on, or nothing when all
/// were looked at.
pub(crate) fn go_on(
    tx: &mut Overlay<'_>,
    from: FilledTo,
    table: u8,
    rows_max: usize,
    mut each: impl FnMut(&mut Overlay<'_>, &[u8], &[u8]) -> Outcome<()>,
) -> Outcome<Option<FilledTo>> {
    let (mut at, mut left) = (from, rows_max);
    for slot in age::owned_slots(&*tx)? {
        if slot.number() < at.slot {
            continue;
        }
        if slot.number() > at.slot {
            at = FilledTo::begin_of(slot.number());
        }
        let prefix = Key::of_slot(slot, table).done();
        let rows = tx.scan(&waiting::behind(&prefix, &at.after, left))?;
        let looked_at = rows.len();
        for (key, value) in rows {
            each(tx, &key, &value)?;
            at.after = key.slice(prefix.len()..);
        }
        // A slot counts as one more, so that many without rows are no long command either.
        left = left.saturating_sub(looked_at + 1);
        if left == 0 {
            // Perhaps this slot has no more: then the next command finds nothing behind that place and goes on.
            return Ok(Some(at));
        }
    }
    Ok(None)
}
