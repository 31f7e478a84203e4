//! All writing of one disk: commits, replay and compaction, in one owner that never waits.
//!
//! Place in the picture: the writer thread (`mod.rs`) owns a `Core` and calls it with one batch at a time; readers see the
//! index and the segments only. Everything is synchronous, so the crash suite drives it step by step.
//! Invariants: a record is in the index only after it was synced; the checkpoint lies in the batch that it covers; of two records
//! of a name the higher sequence wins, of equal ones the place outside limbo, then the newer segment; a `Core` exists only after
//! replay, so nothing is compacted before it.
//! Not here: the damaged list (`damaged.rs`), reading (`read.rs`), replay's loop (`replay.rs`), compaction (`compact.rs`).

use super::compact::Inspection;
use super::place_row::{self, Checkpoint, Held, PlaceRow, SegmentRow};
use super::{StoreError, Tally, record};
use bytes::Bytes;
use codec::fragment::FragmentHeader;
use disk::{Draft, Journal, JournalError, JournalReader, Place, Purpose, SegmentNumber};
use kv::seam::{Batch, Change, Kv, Scan};
use model::stripe::FragmentName;
use protocol::node::PayloadHash;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Rows of one index scan.
pub(super) const SCAN_ROWS: usize = 4096;

/// What looks at a page of rows, with the store that they lie in.
type SeePage<'a, C> = dyn FnMut(&mut C, Vec<(FragmentName, PlaceRow)>) -> Result<(), StoreError> + 'a;

/// A change of a disk.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Store a fragment; its header was made from the payload.
    Store {
        /// Describes the payload.
        header: FragmentHeader,
        /// The bytes.
        payload: Bytes,
    },
    /// Remove a fragment.
    Remove {
        /// Which.
        name: FragmentName,
    },
}

impl Write {
    pub(crate) fn name(&self) -> FragmentName {
        match self {
            Self::Store { header, .. } => header.name(),
            Self::Remove { name } => *name,
        }
    }

    /// Bytes that it adds to a batch, without headers.
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Self::Store { payload, .. } => payload.len(),
            Self::Remove { .. } => 0,
        }
    }
}

/// What a write did; durable in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A new record.
    Stored,
    /// The same fragment was there already.
    Repeated,
    /// It was there and is removed.
    Removed,
    /// It was not there.
    WasAbsent,
}

/// A mistake made on purpose, so that tests can show that they would see it. Production code never sets one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// None.
    #[default]
    None,
    /// The checkpoint is written ahead of the records and rows that it covers, and synced.
    CheckpointBeforeSync,
    /// Compaction gives copies new sequences.
    CopyWithNewSequence,
    /// Compaction drops tombstones while lower records of their names may be elsewhere.
    TombstoneDroppedEarly,
}

/// What is known of a segment's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentUse {
    /// Bytes of records that the index points to.
    pub(super) living_bytes: u64,
    /// How many.
    pub(super) living: u64,
    /// Bytes of all its records, dead ones too.
    pub(super) record_bytes: u64,
    /// The lowest sequence of all its records, `u64::MAX` without one; `None`: some do not read, so any.
    pub(super) sequence_min: Option<u64>,
}

/// The one owner of a disk's writing.
pub(crate) struct Core {
    pub(super) journal: Journal,
    /// What readers see of the journal.
    pub(super) view: JournalReader,
    pub(super) index: Arc<dyn Kv>,
    pub(super) tally: Arc<Tally>,
    pub(super) segments: BTreeMap<SegmentNumber, SegmentUse>,
    /// When each segment came into limbo, on the running clock; unknown ones count from the start.
    pub(super) limbo_since: BTreeMap<SegmentNumber, std::time::Duration>,
    /// Segments that could not be emptied, with the living records that they had then; tried again when something changed.
    pub(super) stuck: BTreeMap<SegmentNumber, u64>,
    /// The segment that is being emptied, and the byte in it up to which that is done.
    pub(super) emptying: Option<(SegmentNumber, u64)>,
    /// Whether every entry of the damaged list was synced.
    pub(super) is_list_synced: bool,
    /// The look through the index for rows that point to segments that are to be unlinked.
    pub(super) inspection: Inspection,
    pub(super) batch_bytes_max: usize,
    pub(super) segment_bytes: u64,
    pub(super) flaw: Flaw,
}

enum Decision {
    Done(Result<Written, StoreError>),
    Append {
        draft: Draft,
        name: FragmentName,
        /// Its row, which stays the same until the record is indexed: there is one writer, and a name is decided once a run.
        before: Option<Box<PlaceRow>>,
        held: Held,
        outcome: Written,
    },
}

impl Core {
    /// Does `writes`, all durable on return where the answer is positive; answers in their order.
    pub(crate) fn commit(&mut self, writes: Vec<Write>) -> Vec<Result<Written, StoreError>> {
        let mut answers = Vec::with_capacity(writes.len());
        let mut run = Vec::new();
        let mut names = BTreeSet::new();
        for write in writes {
            // A name may be decided only after the earlier write of the same name is in the index.
            if !names.insert(write.name()) {
                answers.extend(self.commit_run(std::mem::take(&mut run)));
                names = BTreeSet::from([write.name()]);
            }
            run.push(write);
        }
        answers.extend(self.commit_run(run));
        answers
    }

    fn commit_run(&mut self, writes: Vec<Write>) -> Vec<Result<Written, StoreError>> {
        if let Some(cause) = self.tally.read_only_cause() {
            return writes
                .iter()
                .map(|_| Err(StoreError::ReadOnly(cause.clone())))
                .collect();
        }
        let decisions: Vec<Decision> = writes
            .into_iter()
            .map(|write| self.decide(write).unwrap_or_else(|error| Decision::Done(Err(error))))
            .collect();
        let mut answers: Vec<Option<Result<Written, StoreError>>> = Vec::new();
        let (mut removals, mut stores) = (Vec::new(), Vec::new());
        for (number, decision) in decisions.into_iter().enumerate() {
            match decision {
                Decision::Done(answer) => answers.push(Some(answer)),
                Decision::Append {
                    draft,
                    name,
                    before,
                    held,
                    outcome,
                } => {
                    answers.push(None);
                    let group = if held == Held::Tombstone {
                        &mut removals
                    } else {
                        &mut stores
                    };
                    group.push((number, draft, (name, before.as_deref().copied(), held), outcome));
                }
            }
        }
        // Removals let space go, so they may use the reserve, and a full disk must not refuse them with the stores.
        for (purpose, group) in [(Purpose::Compaction, removals), (Purpose::Foreground, stores)] {
            if group.is_empty() {
                continue;
            }
            let (mut drafts, mut rows, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
            for (number, draft, row, outcome) in group {
                drafts.push(draft);
                rows.push(row);
                outcomes.push((number, outcome));
            }
            let result = self
                .check_reserve(purpose)
                .and_then(|()| self.append_and_index(drafts, &rows, purpose));
            for (number, outcome) in outcomes {
                answers[number] = Some(result.clone().map(|()| outcome));
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.expect("every decision is answered or appended"))
            .collect()
    }

    /// Tombstones may use one of the two reserved segments; the other is left for the copies that make room.
    fn check_reserve(&self, purpose: Purpose) -> Result<(), StoreError> {
        if purpose == Purpose::Compaction && self.view.space()?.free_bytes < self.segment_bytes {
            self.tally.is_full.store(true, Ordering::Relaxed);
            return Err(StoreError::Full);
        }
        Ok(())
    }

    fn decide(&self, write: Write) -> Result<Decision, StoreError> {
        let name = write.name();
        let known = self.row(&name)?;
        match write {
            Write::Store { header, payload } => {
                let held = Held::Fragment {
                    form: *header.form(),
                    payload_hash: PayloadHash(*header.payload_hash()),
                };
                match known {
                    Some(row) if row.held == held => {
                        // A damaged fragment is replaced by the same bytes: this is how it is repaired in place.
                        if self.index.get(&place_row::damaged_key(&name))?.is_none() {
                            return Ok(Decision::Done(Ok(Written::Repeated)));
                        }
                    }
                    Some(PlaceRow {
                        held: Held::Fragment { .. },
                        ..
                    }) => {
                        return Ok(Decision::Done(Err(StoreError::OtherContent)));
                    }
                    Some(PlaceRow {
                        held: Held::Tombstone, ..
                    })
                    | None => {}
                }
                let draft = record::fragment_draft(&header, payload)?;
                Ok(Decision::Append {
                    draft,
                    name,
                    before: known.map(Box::new),
                    held,
                    outcome: Written::Stored,
                })
            }
            Write::Remove { .. } => match known {
                Some(PlaceRow {
                    held: Held::Fragment { .. },
                    ..
                }) => {
                    let draft = record::tombstone_draft(&name)?;
                    Ok(Decision::Append {
                        draft,
                        name,
                        before: known.map(Box::new),
                        held: Held::Tombstone,
                        outcome: Written::Removed,
                    })
                }
                _ => Ok(Decision::Done(Ok(Written::WasAbsent))),
            },
        }
    }

    /// 1. append and sync, 2. index with the checkpoint. A crash between them leaves records that replay finds.
    fn append_and_index(
        &mut self,
        drafts: Vec<Draft>,
        rows: &[(FragmentName, Option<PlaceRow>, Held)],
        purpose: Purpose,
    ) -> Result<(), StoreError> {
        if self.flaw == Flaw::CheckpointBeforeSync {
            self.plant_early_checkpoint(&drafts)?;
        }
        let records = self.append(drafts, purpose)?;
        let mut newest = Newest::default();
        for ((name, before, held), (place, sequence)) in rows.iter().zip(records) {
            newest.rows.push((
                *name,
                *before,
                PlaceRow {
                    place,
                    sequence,
                    held: *held,
                },
            ));
        }
        self.apply(newest)
            .inspect_err(|error| self.tally.set_read_only(&error.to_string()))
    }

    pub(super) fn append(&mut self, drafts: Vec<Draft>, purpose: Purpose) -> Result<Vec<(Place, u64)>, StoreError> {
        let mut next = self.journal.next_sequence();
        match self.journal.append(&drafts, purpose) {
            Ok(places) => {
                if purpose == Purpose::Foreground {
                    self.tally.is_full.store(false, Ordering::Relaxed);
                }
                let with_sequence = |(draft, place): (&Draft, Place)| {
                    let sequence = draft.sequence.unwrap_or_else(|| {
                        next += 1;
                        next - 1
                    });
                    (place, sequence)
                };
                let records: Vec<(Place, u64)> = drafts.iter().zip(places).map(with_sequence).collect();
                assert_eq!(
                    next,
                    self.journal.next_sequence(),
                    "the journal gives sequences in the order of the drafts"
                );
                Ok(records)
            }
            Err(error) => {
                match &error {
                    JournalError::Full => self.tally.is_full.store(true, Ordering::Relaxed),
                    JournalError::Failed { .. } | JournalError::ReadOnly { .. } => {
                        self.tally.set_read_only(&error.to_string());
                    }
                    _ => {}
                }
                Err(error.into())
            }
        }
    }

    /// Points the index to synced records, in one batch with the checkpoint that covers them.
    fn apply(&mut self, newest: Newest) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        let (mut unlisted, mut came, mut went) = (0, Vec::new(), Vec::new());
        for (name, before, row) in &newest.rows {
            self.note_record(&row.place, row.sequence, &mut batch)?;
            batch.push(Change::Put(place_row::fragment_key(name), place_row::encode(row)?));
            unlisted += self.unlist(name, &mut batch)?;
            self.count_out(before.as_ref());
            self.count_in(row);
            match (before.is_some_and(|before| before.is_fragment()), row.is_fragment()) {
                (false, true) => came.push(*name),
                (true, false) => went.push(*name),
                _ => {}
            }
        }
        batch.push(self.checkpoint()?);
        self.index.write(batch)?;
        self.note_cells(&came, &went);
        self.tally.damaged.fetch_sub(unlisted, Ordering::Relaxed);
        self.tally.note_segments(&self.segments);
        Ok(())
    }

    /// Behind the index, which they follow: a batch that was not written changes no sum.
    fn note_cells(&self, came: &[FragmentName], went: &[FragmentName]) {
        let mut cells = self.tally.cells();
        came.iter().for_each(|name| cells.add(name));
        went.iter().for_each(|name| cells.take(name));
    }

    /// The change that says that every synced record is in the index with it; for the batch that makes it so.
    pub(super) fn checkpoint(&self) -> Result<Change, StoreError> {
        let checkpoint = Checkpoint {
            position: self.journal.synced_position(),
        };
        Ok(Change::Put(
            Bytes::from_static(place_row::CHECKPOINT_KEY),
            place_row::encode(&checkpoint)?,
        ))
    }

    /// Remembers the lowest sequence of a segment, in `batch` when it changed.
    pub(super) fn note_record(&mut self, place: &Place, sequence: u64, batch: &mut Batch) -> Result<(), StoreError> {
        let fresh = SegmentUse {
            sequence_min: Some(u64::MAX),
            ..SegmentUse::default()
        };
        let known = self.segments.entry(place.segment).or_insert(fresh);
        known.record_bytes += u64::from(place.len_bytes) + disk::journal::RECORD_HEADER_BYTES as u64;
        known.sequence_min = known.sequence_min.map(|lowest| lowest.min(sequence));
        if let Some(sequence_min) = known.sequence_min {
            let row = SegmentRow {
                sequence_min,
                record_bytes: known.record_bytes,
            };
            batch.push(Change::Put(
                place_row::segment_key(place.segment),
                place_row::encode(&row)?,
            ));
        }
        Ok(())
    }

    pub(super) fn count_in(&mut self, row: &PlaceRow) {
        let segment = self.segments.entry(row.place.segment).or_default();
        segment.living += 1;
        segment.living_bytes += record_bytes(row);
        if matches!(row.held, Held::Fragment { .. }) {
            self.tally.fragments.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_out(&mut self, row: Option<&PlaceRow>) {
        let Some(row) = row else { return };
        if let Some(segment) = self.segments.get_mut(&row.place.segment) {
            segment.living = segment.living.saturating_sub(1);
            segment.living_bytes = segment.living_bytes.saturating_sub(record_bytes(row));
        }
        if matches!(row.held, Held::Fragment { .. }) {
            self.tally.fragments.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The row of `name`.
    pub(super) fn row(&self, name: &FragmentName) -> Result<Option<PlaceRow>, StoreError> {
        self.index
            .get(&place_row::fragment_key(name))?
            .map(|bytes| place_row::decode(&bytes))
            .transpose()
    }

    /// Up to `SCAN_ROWS` rows behind `after`, in the order of names; fewer only at the end.
    pub(super) fn rows_after(&self, after: Option<&FragmentName>) -> Result<Vec<(FragmentName, PlaceRow)>, StoreError> {
        let mut scan = Scan::prefix(place_row::fragment_prefix(), SCAN_ROWS);
        if let Some(name) = after {
            scan = scan.after(&place_row::fragment_key(name));
        }
        let rows = self.index.scan(&scan)?;
        let read = |(key, value): &(Bytes, Bytes)| {
            let name = place_row::name_of(key)
                .ok_or_else(|| StoreError::IndexDamaged("key of a fragment does not read".to_owned()))?;
            Ok((name, place_row::decode(value)?))
        };
        rows.iter().map(read).collect()
    }

    /// Shows `see` every row, a page at a time: a disk has more rows than memory should hold.
    pub(super) fn each_page(&mut self, see: &mut SeePage<'_, Self>) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let rows = self.rows_after(after.as_ref())?;
            let is_last = rows.len() < SCAN_ROWS;
            after = rows.last().map(|(name, _)| *name);
            see(self, rows)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Keeps rows of layouts, durably.
    pub(crate) fn keep_rows(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.index.write(batch)?;
        Ok(self.index.sync()?)
    }

    /// Makes the index durable at a clean stop, so that the next start replays little.
    pub(crate) fn close(&mut self) {
        if let Err(error) = self.journal.mark_idle() {
            tracing::warn!(%error, "segment not marked at stop; the next start reads its tail");
        }
        if let Err(error) = self.index.sync() {
            tracing::warn!(%error, "index not synced at stop; the next start replays more");
        }
    }

    fn plant_early_checkpoint(&mut self, drafts: &[Draft]) -> Result<(), StoreError> {
        let records: usize = drafts
            .iter()
            .map(|draft| draft.len_bytes() + disk::journal::RECORD_HEADER_BYTES)
            .sum();
        let mut position = self.journal.synced_position();
        position.offset += (records as u64).next_multiple_of(disk::journal::BLOCK_BYTES);
        let checkpoint = place_row::encode(&Checkpoint { position })?;
        self.index.write(vec![Change::Put(
            Bytes::from_static(place_row::CHECKPOINT_KEY),
            checkpoint,
        )])?;
        self.index.sync()?;
        Ok(())
    }
}

#[derive(Default)]
struct Newest {
    /// Each name with its row before and its row now.
    rows: Vec<(FragmentName, Option<PlaceRow>, PlaceRow)>,
}

/// Bytes of a record with its header.
pub(super) fn record_bytes(row: &PlaceRow) -> u64 {
    u64::from(row.place.len_bytes) + disk::journal::RECORD_HEADER_BYTES as u64
}
