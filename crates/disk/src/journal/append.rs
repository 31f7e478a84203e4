//! Appending: one batch, one write, one sync, and only then an answer.
//!
//! Place in the picture: the group commit's thread owns a `Journal`; tests and tools may own one without it.
//! Invariants: bytes once written are never written again; the synced length moves only after a sync succeeded; a failed write or
//! sync (other than a full disk) ends writing for good.
//! Not here: batching of several callers (`group_commit`), opening (`recover`).

use crate::journal::handles::{SegmentState, Shared};
use crate::journal::read::JournalReader;
use crate::journal::record::{BATCH_KIND, BatchMark, RECORD_HEADER_BYTES, RecordHeader};
use crate::journal::segment::{BLOCK_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, align, file_name};
use crate::journal::types::{
    Draft, FIRST_USER_KIND, JournalError, JournalOptions, Place, Position, Purpose, SegmentInfo, SegmentNumber,
};
use crate::seam::{DiskError, DiskFile};
use bytes::Bytes;
use std::sync::Arc;

/// Segments' worth of space that only compaction may use: one to copy into, one for what is begun meanwhile.
const RESERVED_SEGMENTS: u64 = 2;
const PADDING: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// A journal that is open for appending; the only writer of its directory.
pub struct Journal {
    pub(super) shared: Arc<Shared>,
    pub(super) options: JournalOptions,
    pub(super) active: Active,
    pub(super) next_segment: u64,
    pub(super) next_sequence: u64,
}

/// The segment that grows.
pub(super) struct Active {
    pub(super) number: SegmentNumber,
    salt: u64,
    file: Arc<dyn DiskFile>,
    /// Where the next batch begins; everything before is synced, unless batches were written without a sync.
    end: u64,
    /// What the next batch may call synced.
    synced: u64,
    /// Ends of older segments that the next batch carries; never left so between two calls.
    pending_ends: Vec<(SegmentNumber, u64)>,
    /// Whether it tells on disk where older segments end.
    tells_ends: bool,
    /// Whether a mark on disk covers every record.
    is_marked: bool,
    /// A write ended half-way in a full disk: nothing more is written here.
    is_abandoned: bool,
}

impl Journal {
    /// Writes all drafts as one batch and syncs it; answers their places in the order of the drafts.
    ///
    /// Durable and readable on return. `Full` (of `Foreground` also when only the reserve is left), `TooLarge`, `BadDraft`: not
    /// acknowledged and the journal goes on. `Failed`: perhaps written, and the journal is read-only from now on; `ReadOnly`
    /// afterwards. No drafts: no write, no places.
    pub fn append(&mut self, drafts: &[Draft], purpose: Purpose) -> Result<Vec<Place>, JournalError> {
        self.shared.check_writable()?;
        self.check_drafts(drafts)?;
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let batch_bytes = batch_bytes(drafts);
        if purpose == Purpose::Foreground {
            let reserve = self.options.segment_bytes.saturating_mul(RESERVED_SEGMENTS);
            if self.shared.disk.space()?.free_bytes < reserve.saturating_add(batch_bytes) {
                return Err(JournalError::Full);
            }
        }
        let is_fresh = self.active.end <= SEGMENT_HEADER_BYTES;
        if self.active.is_abandoned || (!is_fresh && self.active.end + batch_bytes > self.options.segment_bytes) {
            self.roll()?;
        }
        let places = self.write_batch(drafts)?;
        self.sync()?;
        self.active.is_marked = false;
        Ok(places)
    }

    /// Makes the journal read-only because of `cause`, for whoever can do without no record; answers as what failed.
    pub(super) fn end_writing(&self, cause: DiskError) -> JournalError {
        self.shared.poison(self.active.number, cause)
    }

    /// Refuses drafts that break a rule, before anything is written: so one caller's fault never fails another's batch.
    pub(super) fn check_drafts(&self, drafts: &[Draft]) -> Result<(), JournalError> {
        check_limits(drafts, self.options.batch_bytes_max)?;
        if drafts
            .iter()
            .any(|draft| draft.sequence.is_some_and(|sequence| sequence >= self.next_sequence))
        {
            return Err(JournalError::BadDraft("a copy's sequence was never given"));
        }
        Ok(())
    }

    /// Writes that everything so far is synced, in a batch without records, so that later damage cannot pass for a torn tail.
    ///
    /// For a segment that goes idle. Nothing is done when it is on disk already. Errors as for `append`.
    pub fn mark_idle(&mut self) -> Result<(), JournalError> {
        self.shared.check_writable()?;
        if self.is_marked() || self.active.is_abandoned {
            return Ok(());
        }
        self.write_batch(&[])?;
        self.sync()?;
        self.active.is_marked = true;
        Ok(())
    }

    /// Whether `mark_idle` would do nothing.
    pub(super) fn is_marked(&self) -> bool {
        self.active.is_marked && self.active.pending_ends.is_empty()
    }

    /// Closes the active segment and begins a new one, which tells on disk where all older ones end before this returns.
    ///
    /// That is why an older segment may be unlinked at any time: what it told is told by the active one. Errors as for `append`;
    /// after `Full` the next append tries again.
    pub fn roll(&mut self) -> Result<(), JournalError> {
        self.shared.check_writable()?;
        let number = SegmentNumber(self.next_segment);
        self.next_segment += 1;
        let ends = self.shared.segments().len();
        let first_bytes = align(batch_bytes(&[]) + BatchMark::payload_bytes(ends) as u64);
        let begun = begin_segment(
            &self.shared,
            number,
            (self.options.next_salt)(),
            self.next_sequence,
            first_bytes,
        )?;
        let closed = std::mem::replace(&mut self.active, begun);
        self.shared.update(closed.number, |info| info.is_active = false);
        self.active.pending_ends = self.ends();
        self.active.tells_ends = false;
        // Once its end may stand on disk, the old segment is never written again: when the disk is full just here, the new segment
        // is abandoned without records and the next append begins another.
        self.write_batch(&[])?;
        self.sync()?;
        self.active.tells_ends = true;
        Ok(())
    }

    /// Sees to it that the active segment tells where older ones end, without which none of those may be unlinked.
    pub(super) fn tell_ends(&mut self) -> Result<(), JournalError> {
        if self.active.tells_ends { Ok(()) } else { self.roll() }
    }

    /// Every closed segment with its durable mark.
    pub(super) fn ends(&self) -> Vec<(SegmentNumber, u64)> {
        let closed = self.shared.segments().into_iter().filter(|state| !state.info.is_active);
        closed
            .map(|state| (state.info.number, state.info.synced_bytes))
            .collect()
    }

    /// Writes a batch and does not sync it.
    pub(super) fn write_batch(&mut self, drafts: &[Draft]) -> Result<Vec<Place>, JournalError> {
        let active = &mut self.active;
        let start = active.end;
        let ends = std::mem::take(&mut active.pending_ends);
        let length =
            batch_bytes(drafts) + BatchMark::payload_bytes(ends.len()) as u64 - BatchMark::payload_bytes(0) as u64;
        let batch_bytes = u32::try_from(length).expect("limits keep a batch far below 4 GiB");
        let mark = BatchMark {
            synced_bytes: active.synced,
            batch_bytes,
            ends,
        };
        let mark_payload = Bytes::from(mark.encode());
        let mark_draft = Draft {
            kind: BATCH_KIND,
            sequence: Some(self.next_sequence),
            payload: vec![mark_payload],
            header_bytes: None,
        };

        let mut offset = start;
        let mut headers = Vec::with_capacity(drafts.len() + 1);
        let mut places = Vec::with_capacity(drafts.len());
        for draft in [&mark_draft].into_iter().chain(drafts) {
            let sequence = draft.sequence.unwrap_or_else(|| {
                self.next_sequence += 1;
                self.next_sequence - 1
            });
            let header = header(draft, active.salt, sequence);
            headers.push(header.encode(active.number, offset));
            places.push(Place {
                segment: active.number,
                offset,
                len_bytes: header.len_bytes,
            });
            offset += header.total_bytes();
        }
        assert_eq!(offset, start + length, "a batch is as long as its first record says");
        let end = align(offset);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * headers.len() + 1);
        for (draft, header) in [&mark_draft].into_iter().chain(drafts).zip(&headers) {
            parts.push(header);
            parts.extend(draft.payload.iter().map(Bytes::as_ref));
        }
        parts.push(&PADDING[..(end - offset) as usize]);
        places.remove(0);
        match active.file.write_at(start, &parts) {
            Ok(()) => {
                active.end = end;
                Ok(places)
            }
            Err(DiskError::Full(_)) => {
                // A part of the batch may stand there. Writing over it would be an in-place write, so the segment ends at its mark;
                // the next append begins a new one, whose first batch says so.
                active.is_abandoned = true;
                Err(JournalError::Full)
            }
            Err(cause) => Err(self.shared.poison(active.number, cause)),
        }
    }

    /// Syncs what was written; only here does the synced length grow.
    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        if let Err(cause) = self.active.file.sync() {
            return Err(self.shared.poison(self.active.number, cause));
        }
        let end = self.active.end;
        self.active.synced = end;
        self.shared.update(self.active.number, |info| info.synced_bytes = end);
        Ok(())
    }

    /// Lets the next batch carry the ends of all closed segments.
    pub(super) fn carry_ends(&mut self) {
        self.active.pending_ends = self.ends();
    }

    /// A view for reading from any thread.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        JournalReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// All segments, those in limbo too, by number.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.reader().segments()
    }

    /// The sequence that the next new record gets; all given so far are lower.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The end of what is durable: a checkpoint that covers every record so far names it, and a visit from it sees only newer ones.
    #[must_use]
    pub fn synced_position(&self) -> Position {
        Position {
            segment: self.active.number,
            offset: self.active.synced,
        }
    }

    /// The longest append that is taken, in bytes with headers.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        self.options.batch_bytes_max
    }

    /// Ends writing in order: marks what is synced. Errors as for `append`; acknowledged records are durable in any case.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.mark_idle()
    }
}

/// Makes a segment: creates the file, sets space aside for its header and the `first_bytes` that must follow, writes and syncs the
/// header, syncs the name. A cut before the end leaves a file without batches, which recovery removes.
///
/// The space comes first so that a full disk refuses here, where nothing was said yet about where older segments end.
pub(super) fn begin_segment(
    shared: &Shared,
    number: SegmentNumber,
    salt: u64,
    next_sequence: u64,
    first_bytes: u64,
) -> Result<Active, JournalError> {
    let name = file_name(&shared.dir, number);
    let refine = |error| match error {
        DiskError::Full(_) => JournalError::Full,
        cause => shared.poison(number, cause),
    };
    let file: Arc<dyn DiskFile> = shared.disk.create(&name).map_err(refine)?.into();
    let header = SegmentHeader {
        number,
        salt,
        next_sequence,
    }
    .encode();
    let space = file.allocate(SEGMENT_HEADER_BYTES + first_bytes);
    if let Err(error) = space.and_then(|()| file.write_at(0, &[&header])) {
        // Only room is won by removing it: recovery would do the same, so an error here changes nothing.
        let _ = shared.disk.remove(&name);
        return Err(refine(error));
    }
    file.sync()
        .and_then(|()| shared.disk.sync_dir(&shared.dir))
        .map_err(|cause| shared.poison(number, cause))?;
    let synced = SEGMENT_HEADER_BYTES;
    let info = SegmentInfo {
        number,
        synced_bytes: synced,
        is_active: true,
        is_in_limbo: false,
    };
    shared.insert(SegmentState { info, salt: Some(salt) });
    shared.keep_open(number, Arc::clone(&file));
    Ok(Active {
        number,
        salt,
        file,
        end: synced,
        synced,
        pending_ends: Vec::new(),
        tells_ends: true,
        is_marked: true,
        is_abandoned: false,
    })
}

/// The rules of drafts that need no journal to check.
pub(super) fn check_limits(drafts: &[Draft], max_bytes: usize) -> Result<(), JournalError> {
    for draft in drafts {
        if draft.kind < FIRST_USER_KIND {
            return Err(JournalError::BadDraft("the kind is the journal's own"));
        }
        if draft
            .header_bytes
            .is_some_and(|bytes| bytes as usize > draft.len_bytes())
        {
            return Err(JournalError::BadDraft("more header than payload"));
        }
    }
    let len_bytes = batch_bytes(drafts);
    if len_bytes > max_bytes as u64 {
        return Err(JournalError::TooLarge {
            len_bytes,
            max_bytes: max_bytes as u64,
        });
    }
    Ok(())
}

/// Bytes of a batch of these drafts without padding and without ends.
pub(super) fn batch_bytes(drafts: &[Draft]) -> u64 {
    let first = RECORD_HEADER_BYTES + BatchMark::payload_bytes(0);
    first as u64
        + drafts
            .iter()
            .map(|draft| (RECORD_HEADER_BYTES + draft.len_bytes()) as u64)
            .sum::<u64>()
}

fn header(draft: &Draft, salt: u64, sequence: u64) -> RecordHeader {
    let len_bytes = u32::try_from(draft.len_bytes()).expect("limits keep a payload far below 4 GiB");
    let checked_bytes = draft.header_bytes.unwrap_or(len_bytes);
    let mut payload_crc = 0;
    let mut rest = checked_bytes as usize;
    for part in &draft.payload {
        let taken = part.len().min(rest);
        payload_crc = crc32c::crc32c_append(payload_crc, &part[..taken]);
        rest -= taken;
    }
    RecordHeader {
        salt,
        sequence,
        kind: draft.kind,
        len_bytes,
        checked_bytes,
        payload_crc,
    }
}
