//! The damaged list of a disk: fragments that did not read, until they are whole again, replaced or removed.
//!
//! Invariants: an entry is durable before it is answered; it names a fragment that still lies where it did not read, and goes in the
//! same batch as that fragment's row; the tally counts the entries of the index.
//! Not here: who finds damage (`scrub.rs`, `replay.rs`, `compact.rs`) and who repairs it.

use super::core::{Core, SCAN_ROWS};
use super::{StoreError, place_row};
use disk::Place;
use kv::seam::{Batch, Change, Kv, Scan};
use model::stripe::FragmentName;
use protocol::node::{Damage, DamagedFragment};
use std::sync::atomic::Ordering;

impl Core {
    /// Puts a fragment on the damaged list, durably, where it still lies at `place`; whether it was put there now.
    pub(crate) fn list_damage(
        &mut self,
        name: &FragmentName,
        place: Place,
        damage: Damage,
    ) -> Result<bool, StoreError> {
        self.tally.corrupt.fetch_add(1, Ordering::Relaxed);
        let key = place_row::damaged_key(name);
        if self.row(name)?.is_none_or(|row| row.place != place) {
            return Ok(false);
        }
        let is_new = self.index.get(&key)?.is_none();
        if is_new {
            self.index
                .write(vec![Change::Put(key, place_row::encode_damage(damage))])?;
            self.tally.damaged.fetch_add(1, Ordering::Relaxed);
            self.is_list_synced = false;
        }
        // An entry that is there already may be one whose sync failed.
        if !self.is_list_synced {
            self.index.sync()?;
            self.is_list_synced = true;
        }
        Ok(is_new)
    }

    /// Takes a fragment off the list: a later check found it whole where it lies.
    pub(crate) fn clear_damage(&mut self, name: &FragmentName, place: Place) -> Result<(), StoreError> {
        let is_there = self.row(name)?.is_some_and(|row| row.place == place);
        // What a compaction could not read before can be read now.
        self.stuck.remove(&place.segment);
        let mut batch = Batch::new();
        if is_there && self.unlist(name, &mut batch)? > 0 {
            self.index.write(batch)?;
            self.tally.damaged.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes `name` off the damaged list with `batch`; how many entries that is. Mostly the list is empty, and nothing is read.
    pub(super) fn unlist(&self, name: &FragmentName, batch: &mut Batch) -> Result<u64, StoreError> {
        let key = place_row::damaged_key(name);
        if self.tally.damaged.load(Ordering::Relaxed) == 0 || self.index.get(&key)?.is_none() {
            return Ok(0);
        }
        batch.push(Change::Delete(key));
        Ok(1)
    }
}

/// How many entries the damaged list of an index has.
pub(super) fn damaged_count(index: &dyn Kv) -> Result<u64, StoreError> {
    let (mut scan, mut count) = (Scan::prefix(place_row::damaged_prefix(), SCAN_ROWS), 0);
    loop {
        let rows = index.scan(&scan)?;
        count += rows.len() as u64;
        match rows.last() {
            Some((key, _)) if rows.len() == SCAN_ROWS => scan = scan.after(key),
            _ => return Ok(count),
        }
    }
}

/// The damaged list of an index, at most `entries_max` of it.
pub(crate) fn damaged_list(index: &dyn Kv, entries_max: usize) -> Result<Vec<DamagedFragment>, StoreError> {
    let rows = index.scan(&Scan::prefix(place_row::damaged_prefix(), entries_max))?;
    rows.iter()
        .map(|(key, value)| {
            let name = place_row::name_of(key)
                .ok_or_else(|| StoreError::IndexDamaged("key of the damaged list does not read".to_owned()))?;
            Ok(DamagedFragment {
                name,
                damage: place_row::decode_damage(value)?,
            })
        })
        .collect()
}
