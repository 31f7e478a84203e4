//! Compaction: living records move on, segments go to limbo, and from there away.
//!
//! Steps of emptying a segment: 1. copy what the index points to, with its sequence, and sync; 2. point the index to the copies
//! where the old place is unchanged; 3. when nothing in the index points there, move the segment to limbo. A crash after 1 leaves
//! two records of equal sequence, after 2 an empty segment: both are what replay expects, and the next step goes on.
//! A segment leaves limbo only after the index was synced and a scan of it found nothing that points there.
//! Invariants: what cannot be read is never counted as dead, and keeps its segment; a tombstone is dropped only when no other
//! segment, limbo included, can hold a record with a lower sequence.
//! Not here: when to run (`mod.rs` and the worker).

use super::core::{Core, Flaw};
use super::place_row::{self, Held, PlaceRow};
use super::{StoreError, record};
use bytes::Bytes;
use codec::fragment::FragmentHeader;
use disk::{Draft, Purpose, Record, SegmentInfo, SegmentNumber};
use kv::seam::{Batch, Change};
use model::stripe::FragmentName;
use protocol::node::Damage;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A closed segment with less than this share of living bytes is worth its copying: guess, as LevelDB-like stores use a half.
const LIVING_PERCENT: u64 = 50;
/// The same when space is short: what frees a quarter.
const LIVING_PERCENT_SHORT: u64 = 75;

/// What a step of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// Some of this segment's living records were copied; there are more.
    Copied(SegmentNumber),
    /// This segment went to limbo.
    Emptied(SegmentNumber),
    /// This segment left limbo for good.
    Unlinked(SegmentNumber),
    /// There was nothing to do.
    Idle,
}

enum Copying {
    Empty,
    Begun,
    Stuck,
}

struct Copies {
    drafts: Vec<Draft>,
    rows: Vec<(FragmentName, PlaceRow)>,
    bytes: usize,
}

impl Core {
    /// One step: a segment out of limbo when its time has come (or space is short), else a segment into limbo.
    ///
    /// `now` is time on the running clock, `limbo` how long a segment stays. An error leaves everything where it was.
    pub(crate) fn compact_step(
        &mut self,
        now: Duration,
        limbo: Duration,
        is_short: bool,
    ) -> Result<CompactionStep, StoreError> {
        if let Some(cause) = self.tally.read_only_cause() {
            return Err(StoreError::ReadOnly(cause));
        }
        let segments = self.view.segments();
        for segment in segments.iter().filter(|segment| segment.is_in_limbo) {
            self.limbo_since.entry(segment.number).or_insert(now);
        }
        // When space is short, room comes before more copies.
        if is_short && let Some(number) = self.due_in_limbo(now, limbo, is_short) {
            return self.unlink(number);
        }
        if let Some(chosen) = self.choose_sparse(&segments, is_short) {
            match self.empty_segment(chosen)? {
                Copying::Empty => {
                    self.journal.move_to_limbo(chosen)?;
                    self.limbo_since.insert(chosen, now);
                    self.tally.compactions.fetch_add(1, Ordering::Relaxed);
                    return Ok(CompactionStep::Emptied(chosen));
                }
                Copying::Begun => return Ok(CompactionStep::Copied(chosen)),
                Copying::Stuck => {}
            }
        }
        match self.due_in_limbo(now, limbo, is_short) {
            Some(number) => self.unlink(number),
            None => Ok(CompactionStep::Idle),
        }
    }

    /// The segment that has been in limbo longest, when its time has come; the lower number first among equals.
    fn due_in_limbo(&self, now: Duration, limbo: Duration, is_short: bool) -> Option<SegmentNumber> {
        self.limbo_since
            .iter()
            .filter(|(_, since)| is_short || now.saturating_sub(**since) >= limbo)
            .filter(|(number, _)| !self.stuck.contains_key(number))
            .min_by_key(|(number, since)| (**since, **number))
            .map(|(number, _)| *number)
    }

    /// The closed segment with the smallest share of living bytes, when that is small enough.
    fn choose_sparse(&mut self, segments: &[SegmentInfo], is_short: bool) -> Option<SegmentNumber> {
        let limit = if is_short { LIVING_PERCENT_SHORT } else { LIVING_PERCENT };
        let mut best: Option<(u64, SegmentNumber)> = None;
        for segment in segments
            .iter()
            .filter(|segment| !segment.is_active && !segment.is_in_limbo)
        {
            let usage = self.segments.get(&segment.number).copied().unwrap_or_default();
            if self.stuck.get(&segment.number) == Some(&usage.living) {
                continue;
            }
            // Of the records' bytes, not the segment's: padding does not go away by copying, and would be copied for ever.
            let percent = usage.living_bytes.saturating_mul(100) / usage.record_bytes.max(usage.living_bytes).max(1);
            if percent < limit && best.is_none_or(|best| (percent, segment.number) < best) {
                best = Some((percent, segment.number));
            }
        }
        best.map(|(_, number)| number)
    }

    /// Copies what lives in a segment; `Stuck` when something of it cannot be read, so that the segment must stay.
    fn empty_segment(&mut self, segment: SegmentNumber) -> Result<Copying, StoreError> {
        let mut living = Vec::new();
        let mut failure = None;
        self.view.visit_segment(segment, &mut |found| {
            match self.living_row(&found) {
                Ok(Some((name, row))) => living.push((name, row)),
                Ok(None) => {}
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut copies = Copies {
            drafts: Vec::new(),
            rows: Vec::new(),
            bytes: 0,
        };
        let mut dropped = Batch::new();
        let mut gone = Vec::new();
        let mut is_whole = true;
        for (name, row) in living {
            if row.held == Held::Tombstone && self.is_needless(segment, &row) {
                dropped.push(Change::Delete(place_row::fragment_key(&name)));
                gone.push(row);
                continue;
            }
            let Some(draft) = self.copy_of(&name, &row)? else {
                continue;
            };
            let len_bytes = draft.len_bytes() + 2 * disk::journal::RECORD_HEADER_BYTES;
            if copies.bytes + len_bytes > self.batch_bytes_max / 2 && !copies.drafts.is_empty() {
                // One batch a step, so that no store waits longer for compaction than for another batch.
                is_whole = false;
                break;
            }
            copies.bytes += len_bytes;
            copies.drafts.push(draft);
            copies.rows.push((name, row));
        }
        self.write_copies(&mut copies)?;
        if !dropped.is_empty() {
            self.index.write(dropped)?;
            for row in gone {
                self.count_out(Some(&row));
            }
        }
        if !is_whole {
            return Ok(Copying::Begun);
        }
        let left = self.segments.get(&segment).map_or(0, |usage| usage.living);
        if left == 0 {
            self.stuck.remove(&segment);
            return Ok(Copying::Empty);
        }
        // A record that the visit did not meet, or that could not be read: its place is not dead because it is unreadable.
        self.stuck.insert(segment, left);
        tracing::warn!(%segment, left, "segment keeps records that cannot be copied");
        Ok(Copying::Stuck)
    }

    /// The row of a record when the index points to that very record.
    fn living_row(&self, found: &Record) -> Result<Option<(FragmentName, PlaceRow)>, StoreError> {
        let Some((name, _)) = record::read_record(found) else {
            return Ok(None);
        };
        Ok(self
            .row(&name)?
            .filter(|row| row.place == found.place)
            .map(|row| (name, row)))
    }

    /// Whether no segment but this one can hold a record that the tombstone still hides.
    fn is_needless(&self, segment: SegmentNumber, tombstone: &PlaceRow) -> bool {
        self.segments
            .iter()
            .filter(|(number, _)| **number != segment)
            .all(|(_, usage)| usage.sequence_min.is_some_and(|lowest| lowest > tombstone.sequence))
    }

    /// The record anew with its own sequence; `None` when it cannot be read now.
    fn copy_of(&mut self, name: &FragmentName, row: &PlaceRow) -> Result<Option<Draft>, StoreError> {
        let payload = match self.view.payload(row.place) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(stripe = %name.stripe, index = name.index, %error, "record cannot be copied");
                return Ok(None);
            }
        };
        let sequence = if self.flaw == Flaw::CopyWithNewSequence {
            None
        } else {
            Some(row.sequence)
        };
        if row.held == Held::Tombstone {
            return Ok(Some(Draft {
                sequence,
                ..record::tombstone_draft(name)?
            }));
        }
        let Ok(header) = FragmentHeader::read_front(&payload) else {
            self.list_damage(name, row.place, Damage::Header)?;
            return Ok(None);
        };
        let content: Bytes = payload.slice(header.header_bytes()..);
        if header.name() != *name || header.verify(&content).is_err() {
            // A damaged fragment stays where it is, in its segment: a copy could only lose more of it.
            self.list_damage(name, row.place, Damage::Payload)?;
            return Ok(None);
        }
        Ok(Some(Draft {
            sequence,
            ..record::fragment_draft(&header, content)?
        }))
    }

    fn write_copies(&mut self, copies: &mut Copies) -> Result<(), StoreError> {
        if copies.drafts.is_empty() {
            return Ok(());
        }
        copies.bytes = 0;
        let rows = std::mem::take(&mut copies.rows);
        let written = self.append(std::mem::take(&mut copies.drafts), Purpose::Compaction)?;
        let mut batch = Batch::new();
        let mut swapped = Vec::new();
        for ((name, old), (place, sequence)) in rows.into_iter().zip(written) {
            self.note_record(&place, sequence, &mut batch)?;
            if self.row(&name)?.is_some_and(|row| row.place == old.place) {
                let new = PlaceRow {
                    place,
                    sequence,
                    held: old.held,
                };
                batch.push(Change::Put(place_row::fragment_key(&name), place_row::encode(&new)?));
                swapped.push((old, new));
            }
        }
        batch.push(self.checkpoint()?);
        self.index
            .write(batch)
            .inspect_err(|error| self.tally.set_read_only(&error.to_string()))?;
        for (old, new) in swapped {
            self.count_out(Some(&old));
            self.count_in(&new);
        }
        Ok(())
    }

    /// 1. empty it once more, 2. sync the index, 3. scan the index, 4. unlink, 5. forget it. A crash in between repeats the step.
    fn unlink(&mut self, segment: SegmentNumber) -> Result<CompactionStep, StoreError> {
        if self.segments.get(&segment).is_some_and(|usage| usage.living > 0) {
            match self.empty_segment(segment)? {
                Copying::Empty => {}
                Copying::Begun => return Ok(CompactionStep::Copied(segment)),
                Copying::Stuck => return Ok(CompactionStep::Idle),
            }
        }
        self.index
            .sync()
            .inspect_err(|error| self.tally.set_read_only(&error.to_string()))?;
        let mut pointing = BTreeSet::new();
        self.each_row(&mut |name, row| {
            if row.place.segment == segment {
                pointing.insert(name);
            }
            Ok(())
        })?;
        if !pointing.is_empty() {
            return Err(StoreError::Bug(format!(
                "{} rows point to emptied segment {segment}",
                pointing.len()
            )));
        }
        self.journal.unlink(segment)?;
        self.segments.remove(&segment);
        self.limbo_since.remove(&segment);
        self.index
            .write(vec![Change::Delete(place_row::segment_key(segment))])?;
        self.tally.note_segments(&self.segments);
        Ok(CompactionStep::Unlinked(segment))
    }
}
