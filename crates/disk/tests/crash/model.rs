//! The list that the journal is compared with, and the comparison.

use bytes::Bytes;
use disk::{Disk, Draft, Journal, JournalOptions, LimboScope, Place, Purpose, Record, SegmentNumber, TailPolicy};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was submitted and what was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// Content of each sequence, and how many records of it may exist.
    submitted: BTreeMap<u64, (Bytes, u64)>,
    /// Acknowledged records by place.
    acknowledged: BTreeMap<Place, (u64, Bytes)>,
    /// The highest sequence that was ever acknowledged, unlinked or not.
    highest: u64,
    /// Appends refused for want of space.
    pub(crate) refused: u64,
}

impl Model {
    pub(crate) fn submit(&mut self, written: &[(u64, Bytes)]) {
        for (sequence, bytes) in written {
            let entry = self.submitted.entry(*sequence).or_insert_with(|| (bytes.clone(), 0));
            assert!(entry.0 == *bytes, "a sequence is never given to another content");
            entry.1 += 1;
        }
    }

    pub(crate) fn withdraw(&mut self, written: &[(u64, Bytes)]) {
        for (sequence, _) in written {
            self.submitted.remove(sequence);
        }
    }

    pub(crate) fn acknowledge(&mut self, places: &[Place], written: &[(u64, Bytes)]) {
        assert_eq!(places.len(), written.len());
        self.highest = written
            .iter()
            .map(|(sequence, _)| *sequence)
            .max()
            .unwrap_or(0)
            .max(self.highest);
        self.acknowledged
            .extend(places.iter().copied().zip(written.iter().cloned()));
    }

    /// Recovery has copied records from old places to new ones.
    pub(crate) fn moved(&mut self, kept: &[(Place, Place)]) {
        for (old, new) in kept {
            if let Some(record) = self.acknowledged.remove(old) {
                self.acknowledged.insert(*new, record);
            }
        }
    }

    pub(crate) fn living(&self, rank: usize) -> Option<(u64, Bytes)> {
        let count = self.acknowledged.len();
        (count > 0)
            .then(|| self.acknowledged.values().nth(rank % count).cloned())
            .flatten()
    }

    /// From now on the records of this segment may be gone; answers their sequences.
    pub(crate) fn begin_unlink(&mut self, number: SegmentNumber) -> Vec<u64> {
        let gone: Vec<Place> = self
            .acknowledged
            .keys()
            .filter(|place| place.segment == number)
            .copied()
            .collect();
        gone.iter()
            .filter_map(|place| self.acknowledged.remove(place))
            .map(|(sequence, _)| sequence)
            .collect()
    }

    /// From now on they must be gone.
    pub(crate) fn end_unlink(&mut self, gone: &[u64]) {
        for sequence in gone {
            if let Some((_, count)) = self.submitted.get_mut(sequence) {
                *count -= 1;
            }
        }
    }
}

pub(crate) fn options(policy: TailPolicy) -> JournalOptions {
    static SALT: AtomicU64 = AtomicU64::new(1);
    let mut options = JournalOptions::new(policy, Arc::new(|| SALT.fetch_add(0x9e37_79b9, Ordering::Relaxed)));
    options.segment_bytes = 32 << 10;
    options.batch_bytes_max = 64 << 10;
    options.tail_check = Some(Arc::new(|_, payload: &Bytes| {
        payload.len() >= 8 && payload[4..8] == crc32c::crc32c(&payload[8..]).to_le_bytes()
    }));
    options
}

fn collect(journal: &Journal) -> Result<(Vec<(Record, Bytes)>, bool), String> {
    let reader = journal.reader();
    let mut records = Vec::new();
    let damage = reader
        .visit(None, LimboScope::With, &mut |record| {
            records.push(record);
            ControlFlow::Continue(())
        })
        .map_err(|error| format!("visit: {error}"))?;
    let mut found = Vec::new();
    for record in records {
        let payload = reader
            .payload(record.place)
            .map_err(|error| format!("read {:?}: {error}", record.place))?;
        found.push((record, payload));
    }
    Ok((found, !damage.is_empty()))
}

/// Opens the journal as it is after a crash and compares it with the model; answers the first broken property.
pub(crate) fn check(disk: &Arc<dyn Disk>, policy: TailPolicy, model: &Model) -> Result<(), String> {
    let (mut journal, recovery) =
        Journal::open(Arc::clone(disk), "j", options(policy)).map_err(|error| format!("open: {error}"))?;
    if !recovery.damage.is_empty() {
        return Err(format!("a crash was taken for damage: {:?}", recovery.damage));
    }
    let (found, is_damaged) = collect(&journal)?;
    if is_damaged {
        return Err("a visit met damage after a crash".to_owned());
    }
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for (record, payload) in &found {
        *counts.entry(record.sequence).or_default() += 1;
        match model.submitted.get(&record.sequence) {
            Some((bytes, count)) if bytes == payload && counts[&record.sequence] <= *count => {}
            Some((bytes, _)) if bytes != payload => return Err(format!("record {} is altered", record.sequence)),
            Some(_) => return Err(format!("record {} came too often", record.sequence)),
            None => return Err(format!("record {} was never submitted", record.sequence)),
        }
    }
    let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
    for (sequence, _) in model.acknowledged.values() {
        *needed.entry(*sequence).or_default() += 1;
    }
    for (sequence, count) in needed {
        if counts.get(&sequence).copied().unwrap_or(0) < count {
            return Err(format!("record {sequence} was acknowledged and is lost"));
        }
    }
    if policy == TailPolicy::StopAtFirstBad {
        check_prefix(&counts, model)?;
    }
    let highest = counts.keys().max().copied().unwrap_or(0).max(model.highest);
    if journal.next_sequence() <= highest {
        return Err(format!("sequence {} would be given again", journal.next_sequence()));
    }
    journal
        .append(&[Draft::new(17, Bytes::from_static(b"new"))], Purpose::Foreground)
        .map_err(|error| format!("append: {error}"))?;
    drop(journal);
    let (again, recovery) =
        Journal::open(Arc::clone(disk), "j", options(policy)).map_err(|error| format!("open again: {error}"))?;
    if recovery.kept.len() != 1 {
        return Err(format!(
            "opening again kept {:?}, not the one new record",
            recovery.kept
        ));
    }
    let (second, _) = collect(&again)?;
    let contents = |records: &[(Record, Bytes)]| -> Vec<(u64, Bytes)> {
        records
            .iter()
            .filter(|(record, _)| record.kind == 16)
            .map(|(record, payload)| (record.sequence, payload.clone()))
            .collect()
    };
    if contents(&found) != contents(&second) || second.len() != found.len() + 1 {
        return Err("opening again answers other records".to_owned());
    }
    Ok(())
}

/// Of the records that were submitted after the last acknowledged one, those found are the first ones.
fn check_prefix(counts: &BTreeMap<u64, u64>, model: &Model) -> Result<(), String> {
    let last = model.highest;
    let unknown: Vec<bool> = model
        .submitted
        .range(last + 1..)
        .map(|(sequence, _)| counts.contains_key(sequence))
        .collect();
    if model.refused == 0 && unknown.windows(2).any(|pair| !pair[0] && pair[1]) {
        return Err(format!("the tail has a hole: {unknown:?} after {last}"));
    }
    Ok(())
}

/// As `check` with a damaged disk: nothing is altered, and what is missing was reported. Answers whether damage was reported.
pub(crate) fn check_damaged(disk: &Arc<dyn Disk>, policy: TailPolicy, model: &Model) -> Result<bool, String> {
    let (journal, recovery) =
        Journal::open(Arc::clone(disk), "j", options(policy)).map_err(|error| format!("open: {error}"))?;
    let reader = journal.reader();
    let mut found = BTreeMap::new();
    let damage = reader
        .visit(None, LimboScope::With, &mut |record| {
            found.insert(record.sequence, record);
            ControlFlow::Continue(())
        })
        .map_err(|error| format!("visit: {error}"))?;
    let is_reported = !damage.is_empty() || !recovery.damage.is_empty();
    for (sequence, record) in &found {
        let (bytes, _) = model
            .submitted
            .get(sequence)
            .ok_or_else(|| format!("record {sequence} was never submitted"))?;
        if bytes.slice(..record.checked.len()) != record.checked {
            return Err(format!("record {sequence} is altered"));
        }
    }
    for (sequence, _) in model.acknowledged.values() {
        if !found.contains_key(sequence) && !is_reported {
            return Err(format!("record {sequence} is gone without a report"));
        }
    }
    Ok(is_reported)
}
