//! Compaction: living records move on, segments go to limbo, and from there away.
//!
//! Steps of emptying a segment: 1. copy what the index points to, with its sequence, and sync; 2. point the index to the copies
//! where the old place is unchanged; 3. when nothing in the index points there, move the segment to limbo. A crash after 1 leaves
//! two records of equal sequence, after 2 an empty segment: both are what replay expects, and the next step goes on.
//! A segment leaves limbo only after the index was synced and a look through all of it found nothing that points there. The look
//! goes on over many steps, with stores between them: no row comes to point into a closed segment, so what was seen stays true.
//! Invariants: what cannot be read is never counted as dead, and keeps its segment; a tombstone is dropped only when no other
//! segment, limbo included, can hold a record with a lower sequence.
//! Not here: when to run (`mod.rs` and the worker).

use super::core::{Core, Flaw, SCAN_ROWS};
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

/// Pages of the index that a step looks through: some milliseconds, and more where room is wanted.
const INSPECTED_PAGES: usize = 1;
const INSPECTED_PAGES_SHORT: usize = 16;

/// What a step of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// Some of this segment's living records were copied; there are more.
    Copied(SegmentNumber),
    /// This segment went to limbo.
    Emptied(SegmentNumber),
    /// A part of the index was looked through for rows that point to this segment; there is more.
    Inspected(SegmentNumber),
    /// This segment left limbo for good.
    Unlinked(SegmentNumber),
    /// There was nothing to do.
    Idle,
}

/// How far the index was looked through for rows that point to segments in limbo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Being looked for: in limbo, without living records, and the index was synced since.
    candidates: BTreeSet<SegmentNumber>,
    /// The last row that was looked at.
    after: Option<FragmentName>,
    /// Nothing points to these.
    cleared: BTreeSet<SegmentNumber>,
}

enum Copying {
    Empty,
    Begun,
    Stuck,
}

#[derive(Default)]
struct Copies {
    drafts: Vec<Draft>,
    rows: Vec<(FragmentName, PlaceRow)>,
}

#[derive(Default)]
struct Living {
    rows: Vec<(FragmentName, PlaceRow)>,
    /// Where there is more.
    next: Option<u64>,
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
            return self.unlink(number, INSPECTED_PAGES_SHORT);
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
            Some(number) => self.unlink(number, INSPECTED_PAGES),
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

    /// Copies what lives in a segment, a batch at a time, so that no store waits longer for compaction than for another batch.
    ///
    /// `Stuck` when something of it cannot be read, so that the segment must stay.
    fn empty_segment(&mut self, segment: SegmentNumber) -> Result<Copying, StoreError> {
        let begin = match self.emptying.take() {
            Some((known, offset)) if known == segment => offset,
            _ => 0,
        };
        let living = self.living_from(segment, begin)?;
        let mut copies = Copies::default();
        let (mut dropped, mut gone) = (Batch::new(), Vec::new());
        for (name, row) in living.rows {
            if row.held == Held::Tombstone && self.is_needless(segment, &row) {
                dropped.push(Change::Delete(place_row::fragment_key(&name)));
                gone.push(row);
            } else if let Some(draft) = self.copy_of(&name, &row)? {
                copies.drafts.push(draft);
                copies.rows.push((name, row));
            }
        }
        self.write_copies(copies)?;
        if !dropped.is_empty() {
            self.index.write(dropped)?;
            for row in gone {
                self.count_out(Some(&row));
            }
        }
        if let Some(next) = living.next {
            self.emptying = Some((segment, next));
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

    /// What the index points to in a segment from byte `begin` on, as much as makes one batch.
    fn living_from(&self, segment: SegmentNumber, begin: u64) -> Result<Living, StoreError> {
        let mut living = Living::default();
        let (mut bytes, mut failure) = (0, None);
        self.view
            .visit_segment(segment, begin, &mut |found| match self.living_row(&found) {
                Ok(Some((name, row))) => {
                    let record_bytes = found.place.len_bytes as usize + 2 * disk::journal::RECORD_HEADER_BYTES;
                    if bytes + record_bytes > self.batch_bytes_max / 2 && !living.rows.is_empty() {
                        living.next = Some(found.place.offset);
                        return ControlFlow::Break(());
                    }
                    bytes += record_bytes;
                    living.rows.push((name, row));
                    ControlFlow::Continue(())
                }
                Ok(None) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            })?;
        failure.map_or(Ok(living), Err)
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
        if self.flaw == Flaw::TombstoneDroppedEarly {
            return true;
        }
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

    fn write_copies(&mut self, copies: Copies) -> Result<(), StoreError> {
        if copies.drafts.is_empty() {
            return Ok(());
        }
        let written = self.append(copies.drafts, Purpose::Compaction)?;
        let mut batch = Batch::new();
        let (mut swapped, mut unlisted) = (Vec::new(), 0);
        for ((name, old), (place, sequence)) in copies.rows.into_iter().zip(written) {
            self.note_record(&place, sequence, &mut batch)?;
            if self.row(&name)?.is_some_and(|row| row.place == old.place) {
                let new = PlaceRow {
                    place,
                    sequence,
                    held: old.held,
                };
                batch.push(Change::Put(place_row::fragment_key(&name), place_row::encode(&new)?));
                // It was read and checked for its copy, so what was listed is not so any more.
                unlisted += self.unlist(&name, &mut batch)?;
                swapped.push((old, new));
            }
        }
        batch.push(self.checkpoint()?);
        self.index
            .write(batch)
            .inspect_err(|error| self.tally.set_read_only(&error.to_string()))?;
        self.tally.damaged.fetch_sub(unlisted, Ordering::Relaxed);
        for (old, new) in swapped {
            self.count_out(Some(&old));
            self.count_in(&new);
        }
        Ok(())
    }

    /// In this order: empty it once more; sync the index; look through the index, over as many steps as that takes; unlink; forget
    /// it. A crash in between repeats the steps.
    fn unlink(&mut self, segment: SegmentNumber, pages_max: usize) -> Result<CompactionStep, StoreError> {
        if self.segments.get(&segment).is_some_and(|usage| usage.living > 0) {
            match self.empty_segment(segment)? {
                Copying::Empty => {}
                Copying::Begun => return Ok(CompactionStep::Copied(segment)),
                Copying::Stuck => return Ok(CompactionStep::Idle),
            }
        }
        if !self.inspection.cleared.contains(&segment) && !self.inspect(segment, pages_max)? {
            return Ok(CompactionStep::Inspected(segment));
        }
        self.journal.unlink(segment)?;
        self.inspection.cleared.remove(&segment);
        self.segments.remove(&segment);
        self.limbo_since.remove(&segment);
        self.index
            .write(vec![Change::Delete(place_row::segment_key(segment))])?;
        self.tally.note_segments(&self.segments);
        Ok(CompactionStep::Unlinked(segment))
    }

    /// Looks through some pages of the index; whether it is through and nothing points to `segment`.
    ///
    /// One look serves all segments that are empty in limbo when it begins, since it costs as much as the index is long.
    fn inspect(&mut self, segment: SegmentNumber, pages_max: usize) -> Result<bool, StoreError> {
        if !self.inspection.candidates.contains(&segment) {
            self.index
                .sync()
                .inspect_err(|error| self.tally.set_read_only(&error.to_string()))?;
            let is_empty = |number: &&SegmentNumber| self.segments.get(number).is_none_or(|usage| usage.living == 0);
            self.inspection.candidates = self.limbo_since.keys().filter(is_empty).copied().collect();
            self.inspection.after = None;
        }
        for _ in 0..pages_max {
            let rows = self.rows_after(self.inspection.after.as_ref())?;
            if let Some((name, row)) = rows
                .iter()
                .find(|(_, row)| self.inspection.candidates.contains(&row.place.segment))
            {
                let (stripe, found) = (name.stripe, row.place.segment);
                self.inspection = Inspection::default();
                return Err(StoreError::Bug(format!(
                    "a row of stripe {stripe} points to emptied segment {found}"
                )));
            }
            if rows.len() < SCAN_ROWS {
                let through = std::mem::take(&mut self.inspection.candidates);
                self.inspection.cleared.extend(through);
                return Ok(true);
            }
            self.inspection.after = rows.last().map(|(name, _)| *name);
        }
        Ok(false)
    }
}
