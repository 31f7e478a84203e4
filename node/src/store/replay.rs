//! Opening a disk's store: the index is brought up to the journal, or made anew from it.
//!
//! Invariants: nothing on the disk is removed or renamed here, whatever fails; a disk that cannot be replayed is not served.
//! Of two records of a name the higher sequence wins, of equal ones the place outside limbo, then the newer segment.
//! Not here: identity (`identity.rs`), the journal's own recovery (disk).

use super::compact::Inspection;
use super::core::{Core, Flaw, SCAN_ROWS, SegmentUse};
use super::damaged::damaged_count;
use super::place_row::{self, Checkpoint, Held, PlaceRow, SegmentRow};
use super::{StoreError, StoreOptions, Tally, record};
use bytes::Bytes;
use disk::{
    Damage as JournalDamage, Disk, Journal, JournalOptions, JournalReader, LimboScope, Position, Record, SegmentNumber,
    TailPolicy,
};
use kv::seam::{Batch, Change, Kv, Scan};
use model::stripe::FragmentName;
use protocol::node::Damage;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The directory of the journal on its disk.
pub(crate) const JOURNAL_DIR: &str = "journal";
/// Records of one index batch of a replay.
const BATCH_RECORDS: usize = 1024;

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The index had to be made anew from the segments.
    pub index_was_rebuilt: bool,
    /// Records that replay looked at.
    pub records_replayed: u64,
    /// Fragments put on the damaged list.
    pub damaged_found: u64,
    /// Damaged stretches of segments that no row of the index explains.
    pub damage_without_name: u64,
}

struct Replay<'a> {
    index: &'a dyn Kv,
    limbo: BTreeSet<SegmentNumber>,
    rows: BTreeMap<FragmentName, PlaceRow>,
    /// Names whose row of the index gave way to a newer record: what was listed as damaged is not what they point to any more. A
    /// copy of the same record leaves the list to the scrub.
    renewed: BTreeSet<FragmentName>,
    /// The index is made anew: a row that moves did not stand there before, and the list is all that is left of what was known.
    is_from_nothing: bool,
    segments: BTreeMap<SegmentNumber, SegmentRow>,
    segments_changed: BTreeSet<SegmentNumber>,
    last: Option<Position>,
    seen_in_batch: usize,
    records: u64,
}

impl Core {
    /// Opens the store of a disk whose identity was checked.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        index: Arc<dyn Kv>,
        options: &StoreOptions,
        tally: Arc<Tally>,
    ) -> Result<(Self, OpenReport), StoreError> {
        let mut report = OpenReport::default();
        let checkpoint = read_checkpoint(index.as_ref());
        let mut journal_options = JournalOptions::new(TailPolicy::KeepValid, Arc::clone(&options.next_salt));
        journal_options.segment_bytes = options.segment_bytes;
        journal_options.batch_bytes_max = options.batch_bytes_max;
        journal_options.known_synced = checkpoint.clone().ok().flatten().map(|checkpoint| checkpoint.position);
        journal_options.tail_check = Some(Arc::new(record::is_whole));
        let (journal, recovery) = Journal::open(disk, JOURNAL_DIR, journal_options)?;
        let view = journal.reader();
        let newest = view.segments().iter().map(|segment| segment.number).max();
        let from = match checkpoint {
            Ok(Some(checkpoint)) if Some(checkpoint.position.segment) <= newest => Some(checkpoint.position),
            // No checkpoint, one that does not read, or one of segments that never were: the index is not this journal's.
            _ => None,
        };
        if from.is_none() {
            clear(index.as_ref())?;
            report.index_was_rebuilt = view.segments().len() > 1;
        }
        let mut damage = recovery.damage;
        damage.extend(replay(
            &view,
            index.as_ref(),
            from,
            journal.synced_position(),
            &mut report,
        )?);
        let mut core = Self {
            journal,
            view,
            index,
            tally,
            segments: BTreeMap::new(),
            limbo_since: BTreeMap::new(),
            stuck: BTreeMap::new(),
            emptying: None,
            is_list_synced: false,
            inspection: Inspection::default(),
            batch_bytes_max: options.batch_bytes_max,
            segment_bytes: options.segment_bytes,
            flaw: Flaw::None,
        };
        core.count_all(&damage)?;
        core.list_found_damage(&damage, &mut report)?;
        Ok((core, report))
    }

    /// Counts what lives where, from the index.
    fn count_all(&mut self, damage: &[JournalDamage]) -> Result<(), StoreError> {
        for segment in self.view.segments() {
            // What does not read may hold any sequence; a segment without a row holds no record.
            let is_damaged = damage.iter().any(|stretch| stretch.position.segment == segment.number);
            let sequence_min = if is_damaged { None } else { Some(u64::MAX) };
            self.segments.insert(
                segment.number,
                SegmentUse {
                    sequence_min,
                    ..SegmentUse::default()
                },
            );
        }
        for (key, value) in self
            .index
            .scan(&Scan::prefix(place_row::segment_prefix(), usize::MAX))?
        {
            let row: SegmentRow = place_row::decode(&value)?;
            if let Some(known) = place_row::segment_of(&key).and_then(|number| self.segments.get_mut(&number)) {
                known.sequence_min = known.sequence_min.map(|_| row.sequence_min);
                known.record_bytes = row.record_bytes;
            }
        }
        self.tally
            .damaged
            .store(damaged_count(self.index.as_ref())?, Ordering::Relaxed);
        self.each_page(&mut |core, rows| {
            for (name, row) in rows {
                if row.is_fragment() {
                    core.tally.cells().add(&name);
                }
                if core.segments.contains_key(&row.place.segment) {
                    core.count_in(&row);
                } else if matches!(row.held, Held::Fragment { .. }) {
                    // Its segment is gone: the row stays, so that the loss is told and listed instead of forgotten.
                    core.tally.fragments.fetch_add(1, Ordering::Relaxed);
                    core.list_damage(&name, row.place, Damage::Unreadable)?;
                }
            }
            Ok(())
        })?;
        self.tally.note_segments(&self.segments);
        Ok(())
    }

    /// Puts the fragments that lie in damaged stretches on the list.
    fn list_found_damage(&mut self, damage: &[JournalDamage], report: &mut OpenReport) -> Result<(), StoreError> {
        if damage.is_empty() {
            return Ok(());
        }
        let mut explained = BTreeSet::new();
        self.each_page(&mut |core, rows| {
            for (name, row) in rows {
                let place = row.place;
                let found = damage.iter().find(|stretch| {
                    stretch.position.segment == place.segment
                        && stretch.position.offset <= place.offset
                        && place.offset < stretch.position.offset.saturating_add(stretch.len_bytes.max(1))
                });
                if let Some(stretch) = found {
                    explained.insert(*stretch);
                    report.damaged_found += u64::from(core.list_damage(&name, place, Damage::Header)?);
                }
            }
            Ok(())
        })?;
        report.damage_without_name = damage.iter().filter(|stretch| !explained.contains(stretch)).count() as u64;
        Ok(())
    }
}

fn read_checkpoint(index: &dyn Kv) -> Result<Option<Checkpoint>, StoreError> {
    index
        .get(place_row::CHECKPOINT_KEY)?
        .map(|bytes| place_row::decode(&bytes))
        .transpose()
}

/// Forgets places, segments and the checkpoint; the damaged list and the rows of layouts stay.
fn clear(index: &dyn Kv) -> Result<(), StoreError> {
    let mut batch = vec![Change::Delete(Bytes::from_static(place_row::CHECKPOINT_KEY))];
    for prefix in [place_row::fragment_prefix(), place_row::segment_prefix()] {
        let end = kv::seam::prefix_end(prefix).expect("a prefix of one letter has an end");
        batch.push(Change::DeleteRange(Bytes::copy_from_slice(prefix), end));
    }
    Ok(index.write(batch)?)
}

fn replay(
    journal: &JournalReader,
    index: &dyn Kv,
    from: Option<Position>,
    end: Position,
    report: &mut OpenReport,
) -> Result<Vec<JournalDamage>, StoreError> {
    let limbo = journal
        .segments()
        .into_iter()
        .filter(|segment| segment.is_in_limbo)
        .map(|segment| segment.number);
    let mut replay = Replay {
        index,
        limbo: limbo.collect(),
        rows: BTreeMap::new(),
        renewed: BTreeSet::new(),
        is_from_nothing: from.is_none(),
        segments: BTreeMap::new(),
        segments_changed: BTreeSet::new(),
        last: None,
        seen_in_batch: 0,
        records: 0,
    };
    for (key, value) in index.scan(&Scan::prefix(place_row::segment_prefix(), usize::MAX))? {
        if let Some(segment) = place_row::segment_of(&key) {
            replay.segments.insert(segment, place_row::decode(&value)?);
        }
    }
    let mut failure = None;
    let damage = journal.visit(from, LimboScope::With, &mut |record| match replay.see(&record) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    // The visit saw everything, so the next start begins behind it and counts nothing twice.
    replay.last = Some(end);
    replay.flush()?;
    report.records_replayed = replay.records;
    Ok(damage)
}

impl Replay<'_> {
    fn see(&mut self, found: &Record) -> Result<(), StoreError> {
        self.records += 1;
        let segment = found.place.segment;
        let fresh = SegmentRow {
            sequence_min: u64::MAX,
            record_bytes: 0,
        };
        let known = self.segments.entry(segment).or_insert(fresh);
        known.sequence_min = known.sequence_min.min(found.sequence);
        known.record_bytes += u64::from(found.place.len_bytes) + disk::journal::RECORD_HEADER_BYTES as u64;
        self.segments_changed.insert(segment);
        if let Some((name, held)) = record::read_record(found) {
            let row = PlaceRow {
                place: found.place,
                sequence: found.sequence,
                held,
            };
            let known = match self.rows.get(&name) {
                Some(known) => Some(*known),
                None => match self.index.get(&place_row::fragment_key(&name))? {
                    Some(bytes) => Some(place_row::decode(&bytes)?),
                    None => None,
                },
            };
            if known.is_none_or(|known| self.wins(&row, &known)) {
                if known.is_some_and(|known| known.sequence < row.sequence) && !self.is_from_nothing {
                    self.renewed.insert(name);
                }
                self.rows.insert(name, row);
            }
        }
        // Visits go by segment number, so the last record seen is the furthest one.
        self.last = self.last.max(Some(found.place.position()));
        self.seen_in_batch += 1;
        if self.seen_in_batch >= BATCH_RECORDS {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn wins(&self, row: &PlaceRow, known: &PlaceRow) -> bool {
        let rank = |row: &PlaceRow| {
            (
                row.sequence,
                !self.limbo.contains(&row.place.segment),
                row.place.segment,
            )
        };
        rank(row) > rank(known)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for (name, row) in std::mem::take(&mut self.rows) {
            batch.push(Change::Put(place_row::fragment_key(&name), place_row::encode(&row)?));
        }
        for name in std::mem::take(&mut self.renewed) {
            batch.push(Change::Delete(place_row::damaged_key(&name)));
        }
        for segment in std::mem::take(&mut self.segments_changed) {
            let row = self.segments[&segment];
            batch.push(Change::Put(place_row::segment_key(segment), place_row::encode(&row)?));
        }
        if let Some(position) = self.last {
            let checkpoint = place_row::encode(&Checkpoint { position })?;
            batch.push(Change::Put(Bytes::from_static(place_row::CHECKPOINT_KEY), checkpoint));
        }
        self.seen_in_batch = 0;
        if batch.is_empty() {
            Ok(())
        } else {
            Ok(self.index.write(batch)?)
        }
    }
}

const _: () = assert!(
    BATCH_RECORDS <= SCAN_ROWS,
    "a replay's batch is no larger than what a scan holds in memory"
);
