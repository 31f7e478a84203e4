//! Opening a journal: what is durable, what is damaged, what was torn off, and a new segment on top.
//!
//! Place in the picture: decisions 0009 and 0010. Nothing is served or counted before it is done.
//! Order, and what a cut between leaves: 1 remove files without a whole header (they come back at worst); 2 begin a new segment
//! (empty: removed by the next recovery); 3 copy into it what is kept above the marks and sync (copies above that segment's own
//! mark: the next recovery meets originals and copies and keeps each once); 4 write and sync, in one record, the mark of the new
//! segment and the ends of the old ones (from here on the old tails do not exist); 5 unlink closed segments without records.
//! Invariants: old segments are never written to; doing it again changes nothing that was kept.
//! Not here: replaying records into an index (`read`).

use crate::journal::append::{Journal, batch_bytes, begin_segment};
use crate::journal::handles::{SegmentState, Shared};
use crate::journal::record::BatchMark;
use crate::journal::scan::{Found, Scanner, find_salt};
use crate::journal::segment::{
    BLOCK_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, align, file_name, limbo_dir, parse_file_name,
};
use crate::journal::types::{
    Damage, Draft, JournalError, JournalOptions, Place, Position, Record, Recovery, SegmentInfo, SegmentNumber,
    TailPolicy,
};
use crate::seam::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A segment whose end no other segment tells: its tail has to be looked at.
struct Unended {
    number: SegmentNumber,
    is_in_limbo: bool,
    durable: BTreeSet<u64>,
    /// Above the mark, in order; `None` is a bad stretch.
    tail: Vec<Option<Record>>,
}

struct Recoverer {
    shared: Arc<Shared>,
    options: JournalOptions,
    report: Recovery,
    ends: BTreeMap<SegmentNumber, u64>,
    unended: Vec<Unended>,
    next_segment: u64,
    has_older: bool,
}

impl Journal {
    /// Recovers the journal in directory `dir` of `disk` (made when it is missing) and begins a new segment.
    ///
    /// Blocks; cost as reading the segments that were not ended, usually one. Damage below a mark is reported and is no error. An
    /// error of reading is one: a tail that cannot be read now may have been acknowledged. `Full` when not even the reserve is
    /// left. After an error nothing was lost, and it may be tried again.
    pub fn open(disk: Arc<dyn Disk>, dir: &str, options: JournalOptions) -> Result<(Self, Recovery), JournalError> {
        disk.make_dir(&limbo_dir(dir))?;
        let mut recoverer = Recoverer {
            shared: Arc::new(Shared::new(disk, dir)),
            options,
            report: Recovery {
                next_sequence: 1,
                ..Recovery::default()
            },
            ends: BTreeMap::new(),
            unended: Vec::new(),
            next_segment: 1,
            has_older: false,
        };
        let found = recoverer.find_segments()?;
        // From the newest to the oldest: each tells where older ones end.
        for (state, len_bytes) in found.into_iter().rev() {
            recoverer.take_segment(state, len_bytes)?;
        }
        recoverer.report.damage.sort();
        recoverer.finish()
    }
}

impl Recoverer {
    /// Reads the headers of all segments, by number, with the lengths of their files; removes torn creations.
    fn find_segments(&mut self) -> Result<Vec<(SegmentState, u64)>, JournalError> {
        let dir = self.shared.dir.clone();
        let mut found = BTreeMap::new();
        for (place, is_in_limbo) in [(limbo_dir(&dir), true), (dir, false)] {
            for name in self.shared.disk.list(&place)? {
                // What is not named as a segment is not ours and is left alone.
                let Some(number) = parse_file_name(&name) else { continue };
                self.next_segment = self.next_segment.max(number.0 + 1);
                let full_name = file_name(&place, number);
                let file = self.shared.disk.open(&full_name)?;
                let len_bytes = file.len_bytes()?;
                let header = self.read_header(file.as_ref(), number, len_bytes)?;
                if header.is_none() && len_bytes <= SEGMENT_HEADER_BYTES {
                    self.shared.disk.remove(&full_name)?;
                    continue;
                }
                let salt = match header {
                    Some(header) => {
                        self.report.next_sequence = self.report.next_sequence.max(header.next_sequence);
                        Some(header.salt)
                    }
                    None => {
                        let position = Position {
                            segment: number,
                            offset: 0,
                        };
                        self.report.damage.push(Damage {
                            position,
                            len_bytes: SEGMENT_HEADER_BYTES,
                            sequence: None,
                        });
                        find_salt(file.as_ref(), number, len_bytes)?
                    }
                };
                let info = SegmentInfo {
                    number,
                    synced_bytes: SEGMENT_HEADER_BYTES,
                    is_active: false,
                    is_in_limbo,
                };
                found.insert(number, (SegmentState { info, salt }, len_bytes));
            }
        }
        self.has_older = !found.is_empty();
        Ok(found.into_values().collect())
    }

    fn read_header(
        &self,
        file: &dyn DiskFile,
        number: SegmentNumber,
        len_bytes: u64,
    ) -> Result<Option<SegmentHeader>, JournalError> {
        if len_bytes < SEGMENT_HEADER_BYTES {
            return Ok(None);
        }
        let bytes = file.read_at(0, SEGMENT_HEADER_BYTES as usize)?;
        Ok(SegmentHeader::decode(&bytes, number))
    }

    /// Learns where one segment ends: from a newer one, or by reading it.
    fn take_segment(&mut self, mut state: SegmentState, len_bytes: u64) -> Result<(), JournalError> {
        let number = state.info.number;
        if let Some(end) = self.ends.get(&number) {
            state.info.synced_bytes = *end;
            self.shared.insert(state);
            return Ok(());
        }
        let known = self.options.known_synced.filter(|position| position.segment == number);
        let mut mark = known.map_or(SEGMENT_HEADER_BYTES, |position| {
            position.offset.max(SEGMENT_HEADER_BYTES)
        });
        let Some(salt) = state.salt else {
            // Nothing tells records from garbage: all of it is damage, kept for whoever wants to dig.
            state.info.synced_bytes = len_bytes;
            self.shared.insert(state);
            return Ok(());
        };
        let file = self.shared.file_in(number, state.info.is_in_limbo)?;
        let mut scanner = Scanner::new(file.as_ref(), number, salt, SEGMENT_HEADER_BYTES, len_bytes);
        let mut items: Vec<Found> = Vec::new();
        let mut below_mark = 0;
        while let Some(found) = scanner.next()? {
            if let Found::Batch {
                mark: batch,
                next_sequence,
            } = &found
            {
                mark = mark.max(batch.synced_bytes);
                below_mark += forget_payloads(&mut items[below_mark..], mark);
                self.report.next_sequence = self.report.next_sequence.max(*next_sequence);
                for (segment, end) in &batch.ends {
                    self.ends.entry(*segment).or_insert(*end);
                }
            }
            items.push(found);
        }
        state.info.synced_bytes = mark;
        self.shared.insert(state);
        let unended = self.split(number, state.info.is_in_limbo, mark, len_bytes, items);
        self.unended.push(unended);
        Ok(())
    }

    /// Parts what was found at the mark: damage and durable records below, the tail above.
    fn split(
        &mut self,
        number: SegmentNumber,
        is_in_limbo: bool,
        mark: u64,
        len_bytes: u64,
        items: Vec<Found>,
    ) -> Unended {
        let mut unended = Unended {
            number,
            is_in_limbo,
            durable: BTreeSet::new(),
            tail: Vec::new(),
        };
        let mut note = |offset: u64, end: u64, sequence| {
            self.report.damage.push(Damage {
                position: Position {
                    segment: number,
                    offset,
                },
                len_bytes: end - offset,
                sequence,
            });
        };
        let mut highest = 0;
        for item in items {
            match item {
                Found::Batch { .. } => {}
                Found::Bad { offset, end, sequence } => {
                    highest = highest.max(sequence.unwrap_or(0));
                    if offset < mark {
                        note(offset, end.min(mark), sequence);
                    }
                    if end > mark {
                        unended.tail.push(None);
                    }
                }
                Found::Record(record) => {
                    highest = highest.max(record.sequence);
                    if record.place.offset < mark {
                        unended.durable.insert(record.sequence);
                    } else {
                        unended.tail.push(Some(record));
                    }
                }
            }
        }
        if len_bytes < mark {
            note(len_bytes, mark, None);
        }
        self.report.next_sequence = self.report.next_sequence.max(highest + 1);
        unended
    }

    /// Which records of the tails are kept, in order, each once.
    fn choose(&mut self, reader: &JournalTail) -> Result<Vec<(Record, Draft)>, JournalError> {
        let mut kept = Vec::new();
        let mut kept_before: BTreeSet<u64> = BTreeSet::new();
        let mut durable_later: Vec<u64> = self
            .unended
            .iter()
            .flat_map(|segment| segment.durable.iter().copied())
            .collect();
        durable_later.sort_unstable();
        let mut is_stopped = false;
        // Oldest first: `unended` was filled from the newest on.
        for segment in self.unended.iter().rev() {
            let mut kept_here = Vec::new();
            for item in &segment.tail {
                let draft = match item {
                    Some(record) => reader.draft(record, &self.options)?,
                    None => None,
                };
                let (Some(record), Some(draft)) = (item, draft) else {
                    self.report.torn_stretches += 1;
                    is_stopped |= self.options.tail_policy == TailPolicy::StopAtFirstBad;
                    continue;
                };
                // The same sequence in an older segment's tail: this one is the copy that a recovery cut off midway has made.
                let is_copy = kept_before.contains(&record.sequence);
                let is_durable_elsewhere = durable_later.binary_search(&record.sequence).is_ok()
                    && !segment.durable.contains(&record.sequence);
                if is_stopped || is_copy || is_durable_elsewhere {
                    continue;
                }
                kept_here.push(record.sequence);
                kept.push((record.clone(), draft));
            }
            kept_before.extend(kept_here);
        }
        Ok(kept)
    }

    fn finish(mut self) -> Result<(Journal, Recovery), JournalError> {
        let tail = JournalTail {
            shared: Arc::clone(&self.shared),
        };
        let kept = self.choose(&tail)?;
        let number = SegmentNumber(self.next_segment);
        // Copies, their batches' padding and the ends: all or nothing, so that tries on a full disk leave no litter.
        let copies: u64 = kept
            .iter()
            .map(|(_, draft)| batch_bytes(std::slice::from_ref(draft)))
            .sum();
        let ends = BatchMark::payload_bytes(self.shared.segments().len()) as u64 + batch_bytes(&[]);
        let batches = 2 + copies / (self.options.batch_bytes_max as u64 / 2).max(1);
        let first_bytes = align(copies + ends + batches * BLOCK_BYTES);
        let active = begin_segment(
            &self.shared,
            number,
            (self.options.next_salt)(),
            self.report.next_sequence,
            first_bytes,
        )?;
        let mut journal = Journal {
            shared: Arc::clone(&self.shared),
            options: self.options.clone(),
            active,
            next_segment: number.0 + 1,
            next_sequence: self.report.next_sequence,
        };
        let mut old_places = Vec::with_capacity(kept.len());
        let mut new_places = Vec::with_capacity(kept.len());
        let mut batch: Vec<Draft> = Vec::new();
        for (record, draft) in kept {
            old_places.push(record.place);
            let room = self.options.batch_bytes_max as u64;
            if !batch.is_empty() && batch_bytes(&batch) + batch_bytes(std::slice::from_ref(&draft)) > room {
                new_places.extend(journal.write_batch(&batch)?);
                batch.clear();
            }
            batch.push(draft);
        }
        if !batch.is_empty() {
            new_places.extend(journal.write_batch(&batch)?);
        }
        if !new_places.is_empty() {
            // One sync for all copies, and no mark before it: marked copies without the ends of their originals would count twice.
            journal.sync()?;
        }
        if self.has_older {
            journal.carry_ends();
            journal.mark_idle()?;
        }
        self.remove_empty(&journal)?;
        self.report.kept = old_places.into_iter().zip(new_places).collect();
        self.report.next_sequence = journal.next_sequence;
        if !self.report.damage.is_empty() {
            tracing::warn!(
                dir = self.shared.dir,
                stretches = self.report.damage.len(),
                "journal is damaged below its mark"
            );
        }
        Ok((journal, self.report))
    }

    /// Unlinks old segments in which no record lies below the mark. The new segment tells their ends, should the unlink be lost.
    fn remove_empty(&self, journal: &Journal) -> Result<(), JournalError> {
        let damaged: BTreeSet<SegmentNumber> = self
            .report
            .damage
            .iter()
            .map(|damage| damage.position.segment)
            .collect();
        let empty = |segment: &&Unended| {
            segment.durable.is_empty() && !segment.is_in_limbo && !damaged.contains(&segment.number)
        };
        let mut is_changed = false;
        for segment in self.unended.iter().filter(empty) {
            self.shared.disk.remove(&file_name(&self.shared.dir, segment.number))?;
            journal.shared.forget(segment.number);
            is_changed = true;
        }
        if is_changed {
            self.shared.disk.sync_dir(&self.shared.dir)?;
        }
        Ok(())
    }
}

/// Drops the payloads of the first items, those below the mark, and answers how many they are: only the tail's are needed, and a
/// segment's would fill memory.
fn forget_payloads(items: &mut [Found], mark: u64) -> usize {
    let mut count = 0;
    for item in items {
        match item {
            Found::Record(record) if record.place.offset < mark => record.checked.clear(),
            Found::Record(_) => break,
            Found::Batch { .. } | Found::Bad { .. } => {}
        }
        count += 1;
    }
    count
}

/// Reads records above the marks, where readers do not look.
struct JournalTail {
    shared: Arc<Shared>,
}

impl JournalTail {
    /// The copy of a record above the mark; `None` when its payload is not whole.
    fn draft(&self, record: &Record, options: &JournalOptions) -> Result<Option<Draft>, JournalError> {
        let sequence = Some(record.sequence);
        if record.is_whole() {
            return Ok(Some(Draft {
                kind: record.kind,
                sequence,
                payload: vec![record.checked.clone()],
                header_bytes: None,
            }));
        }
        let Some(is_whole) = &options.tail_check else {
            return Ok(None);
        };
        let payload = self.payload(record.place)?;
        let header_bytes = u32::try_from(record.checked.len()).ok();
        Ok(is_whole(record.kind, &payload).then(|| Draft {
            kind: record.kind,
            sequence,
            payload: vec![payload],
            header_bytes,
        }))
    }

    fn payload(&self, place: Place) -> Result<bytes::Bytes, JournalError> {
        let file = self.shared.file(place.segment)?;
        let offset = place.offset + crate::journal::record::RECORD_HEADER_BYTES as u64;
        Ok(file.read_at(offset, place.len_bytes as usize)?)
    }
}

impl Shared {
    /// The open file of a segment that recovery has not yet entered.
    fn file_in(&self, number: SegmentNumber, is_in_limbo: bool) -> Result<Arc<dyn DiskFile>, JournalError> {
        let dir = if is_in_limbo {
            limbo_dir(&self.dir)
        } else {
            self.dir.clone()
        };
        let file: Arc<dyn DiskFile> = self.disk.open(&file_name(&dir, number))?.into();
        self.keep_open(number, Arc::clone(&file));
        Ok(file)
    }
}
