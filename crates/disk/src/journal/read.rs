//! Reading records while others are appended.
//!
//! Place in the picture: the fragment store serves reads with this, indexes are rebuilt and segments compacted with its visits.
//! Invariants: nothing above a segment's synced length is ever answered; a payload's checked part has passed its checksum.
//! Not here: checksums inside payloads; their owner has them.

use crate::journal::handles::{SegmentState, Shared};
use crate::journal::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::journal::scan::{Found, Scanner};
use crate::journal::segment::SEGMENT_HEADER_BYTES;
use crate::journal::types::{
    Damage, JournalError, JournalHealth, LimboScope, Place, Position, Record, SegmentInfo, SegmentNumber,
};
use crate::seam::{DiskError, DiskFile, Space};
use bytes::Bytes;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

const HEADER_BYTES: u64 = RECORD_HEADER_BYTES as u64;

/// A view of a journal that any thread may read through, at any time; clones are cheap.
#[derive(Clone)]
pub struct JournalReader {
    pub(super) shared: Arc<Shared>,
}

impl JournalReader {
    /// The whole payload of the record at `place`, its checked part verified.
    ///
    /// `NotFound` for an unknown segment or a place beyond what is synced; `Corrupt` when another record or none lies there.
    pub fn payload(&self, place: Place) -> Result<Bytes, JournalError> {
        self.read(place).map(|(_, payload)| payload)
    }

    /// The record at `place` (kind, sequence, checked part) and its whole payload; errors as for `payload`.
    pub fn read(&self, place: Place) -> Result<(Record, Bytes), JournalError> {
        let (state, file) = self.locate(place)?;
        let length = RECORD_HEADER_BYTES + place.len_bytes as usize;
        let bytes = read_at(file.as_ref(), place, place.offset, length)?;
        let header = check_header(&bytes, place, &state)?;
        let payload = bytes.slice(RECORD_HEADER_BYTES..);
        let checked = payload.slice(..header.checked_bytes as usize);
        if crc32c::crc32c(&checked) != header.payload_crc {
            return Err(corrupt(place));
        }
        Ok((
            Record {
                place,
                kind: header.kind,
                sequence: header.sequence,
                checked,
            },
            payload,
        ))
    }

    /// The bytes `range` of the payload of the record at `place`. Only the record's header is verified: the caller has checksums
    /// for the bytes. `Corrupt` too when the range leaves the payload.
    pub fn payload_range(&self, place: Place, range: Range<u32>) -> Result<Bytes, JournalError> {
        let (state, file) = self.locate(place)?;
        if range.start > range.end || range.end > place.len_bytes {
            return Err(corrupt(place));
        }
        let header = read_at(file.as_ref(), place, place.offset, RECORD_HEADER_BYTES)?;
        check_header(&header, place, &state)?;
        read_at(
            file.as_ref(),
            place,
            place.offset + HEADER_BYTES + u64::from(range.start),
            (range.end - range.start) as usize,
        )
    }

    /// Shows `visitor` every synced record at or after `from` (a batch's or a record's beginning; `None`: all), in the order of
    /// segments and offsets, until it breaks. Answers the damage that it met, in order.
    ///
    /// Segments that begin later, and batches that are synced later, are not visited. A segment that is unlinked meanwhile is
    /// left out. Reads one segment's records once; cost as its headers and checked parts.
    pub fn visit(
        &self,
        from: Option<Position>,
        limbo: LimboScope,
        visitor: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<Vec<Damage>, JournalError> {
        let mut damage = Vec::new();
        for state in self.shared.segments() {
            if state.info.is_in_limbo && limbo == LimboScope::Without {
                continue;
            }
            let start = match from {
                Some(from) if state.info.number < from.segment => continue,
                Some(from) if state.info.number == from.segment => from.offset,
                _ => 0,
            };
            match self.visit_from(&state, start, &mut damage, visitor) {
                Ok(ControlFlow::Break(())) => break,
                Ok(ControlFlow::Continue(())) => {}
                Err(JournalError::NotFound { .. }) if self.shared.segment(state.info.number).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(damage)
    }

    /// As `visit`, for one segment, in limbo or not, from byte `offset` on (a batch's or a record's beginning; 0: all).
    /// `NotFound` when there is none.
    pub fn visit_segment(
        &self,
        number: SegmentNumber,
        offset: u64,
        visitor: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<Vec<Damage>, JournalError> {
        let state = self.shared.segment(number).ok_or(JournalError::NotFound {
            segment: number,
            offset: 0,
        })?;
        let mut damage = Vec::new();
        let _ = self.visit_from(&state, offset, &mut damage, visitor)?;
        Ok(damage)
    }

    fn visit_from(
        &self,
        state: &SegmentState,
        start: u64,
        damage: &mut Vec<Damage>,
        visitor: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, JournalError> {
        let number = state.info.number;
        let mut note = |offset: u64, end: u64, sequence| {
            damage.push(Damage {
                position: Position {
                    segment: number,
                    offset,
                },
                len_bytes: end - offset,
                sequence,
            });
        };
        let start = start.max(SEGMENT_HEADER_BYTES);
        let synced = state.info.synced_bytes;
        if start >= synced {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(salt) = state.salt else {
            note(start, synced, None);
            return Ok(ControlFlow::Continue(()));
        };
        let file = self.shared.file(number)?;
        let len_bytes = file.len_bytes()?;
        let mut scanner = Scanner::new(file.as_ref(), number, salt, start, synced.min(len_bytes));
        while let Some(found) = scanner.next()? {
            match found {
                Found::Batch { .. } => {}
                Found::Bad { offset, end, sequence } => note(offset, end, sequence),
                Found::Record(record) => {
                    if visitor(record).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        if len_bytes < synced {
            note(len_bytes.max(start), synced, None);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// All segments, those in limbo too, by number.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments().into_iter().map(|state| state.info).collect()
    }

    /// Capacity of the disk and what is left of it.
    pub fn space(&self) -> Result<Space, JournalError> {
        Ok(self.shared.disk.space()?)
    }

    /// Whether the journal takes writes.
    #[must_use]
    pub fn health(&self) -> JournalHealth {
        self.shared.health()
    }

    fn locate(&self, place: Place) -> Result<(SegmentState, Arc<dyn DiskFile>), JournalError> {
        let absent = JournalError::NotFound {
            segment: place.segment,
            offset: place.offset,
        };
        let Some(state) = self.shared.segment(place.segment) else {
            return Err(absent);
        };
        let end = place
            .offset
            .saturating_add(HEADER_BYTES)
            .saturating_add(u64::from(place.len_bytes));
        if end > state.info.synced_bytes {
            return Err(absent);
        }
        Ok((state, self.shared.file(place.segment)?))
    }
}

fn read_at(file: &dyn DiskFile, place: Place, offset: u64, length: usize) -> Result<Bytes, JournalError> {
    match file.read_at(offset, length) {
        Err(DiskError::ShortRead { .. }) => Err(corrupt(place)),
        answer => Ok(answer?),
    }
}

fn check_header(bytes: &[u8], place: Place, state: &SegmentState) -> Result<RecordHeader, JournalError> {
    RecordHeader::decode(bytes, place.segment, place.offset, state.salt)
        .filter(|header| header.len_bytes == place.len_bytes)
        .ok_or_else(|| corrupt(place))
}

fn corrupt(place: Place) -> JournalError {
    JournalError::Corrupt {
        segment: place.segment,
        offset: place.offset,
    }
}
