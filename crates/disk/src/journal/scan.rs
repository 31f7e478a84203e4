//! Reading a segment from front to back: batches, records, and whatever is neither.
//!
//! Place in the picture: recovery and visits read segments with this, so both see the same records.
//! Invariants: every byte between the start and the end lies in a batch, a record, a padding or a bad stretch; offsets only grow;
//! never more memory than a window or one payload's checked part, and no payload longer than the file.
//! Not here: what a bad stretch means (`recover` knows the mark).

use crate::journal::record::{BATCH_KIND, BatchMark, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader};
use crate::journal::segment::{SEGMENT_HEADER_BYTES, align};
use crate::journal::types::{Place, Record, SegmentNumber};
use crate::seam::{DiskError, DiskFile};
use bytes::Bytes;

/// One read: long enough for many small records, short enough not to matter beside a fragment (guess).
const WINDOW_BYTES: u64 = 128 << 10;
const HEADER_BYTES: u64 = RECORD_HEADER_BYTES as u64;

/// What lies at a place of a segment.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// The record that begins a batch; the sequence is the next one at its writing.
    Batch { mark: BatchMark, next_sequence: u64 },
    /// An owner's record.
    Record(Record),
    /// Bytes from `offset` to `end` that are no record; the sequence where only the payload is bad.
    Bad {
        offset: u64,
        end: u64,
        sequence: Option<u64>,
    },
}

/// A walk through one segment.
pub(super) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    segment: SegmentNumber,
    salt: u64,
    offset: u64,
    end: u64,
    /// Where the current batch ends, without padding; `None` when its first record is bad or not yet met.
    batch_end: Option<u64>,
    window: Bytes,
    window_start: u64,
}

impl<'a> Scanner<'a> {
    /// Walks from byte `start` (a batch's or record's beginning) to `end`, which lies within the file.
    pub(super) fn new(file: &'a dyn DiskFile, segment: SegmentNumber, salt: u64, start: u64, end: u64) -> Self {
        let offset = start.max(SEGMENT_HEADER_BYTES);
        Self {
            file,
            segment,
            salt,
            offset,
            end,
            batch_end: None,
            window: Bytes::new(),
            window_start: 0,
        }
    }

    /// The next thing; `None` at the end. An error is one of reading, not of what is read.
    pub(super) fn next(&mut self) -> Result<Option<Found>, DiskError> {
        loop {
            if self.offset >= self.end {
                return Ok(None);
            }
            if let Some(header) = self.header_at(self.offset)? {
                return self.meet(header).map(Some);
            }
            if self.batch_end.is_none() && self.is_padding()? {
                self.offset = align(self.offset).min(self.end);
                continue;
            }
            return self.skip_bad().map(Some);
        }
    }

    fn meet(&mut self, header: RecordHeader) -> Result<Found, DiskError> {
        let offset = self.offset;
        let next = offset.saturating_add(header.total_bytes());
        if next > self.end {
            self.advance(self.end);
            return Ok(Found::Bad {
                offset,
                end: self.end,
                sequence: Some(header.sequence),
            });
        }
        let checked = self.bytes(offset + HEADER_BYTES, u64::from(header.checked_bytes))?;
        let mark = if header.kind == BATCH_KIND {
            BatchMark::decode(&checked)
        } else {
            None
        };
        if crc32c::crc32c(&checked) != header.payload_crc || (header.kind == BATCH_KIND && mark.is_none()) {
            self.advance(next);
            return Ok(Found::Bad {
                offset,
                end: next,
                sequence: (header.kind != BATCH_KIND).then_some(header.sequence),
            });
        }
        if let Some(mark) = mark {
            self.batch_end = Some(offset.saturating_add(u64::from(mark.batch_bytes)));
            self.advance(next);
            return Ok(Found::Batch {
                mark,
                next_sequence: header.sequence,
            });
        }
        self.advance(next);
        let place = Place {
            segment: self.segment,
            offset,
            len_bytes: header.len_bytes,
        };
        // A copy, so that a kept record does not hold the whole window.
        let checked = Bytes::copy_from_slice(&checked);
        Ok(Found::Record(Record {
            place,
            kind: header.kind,
            sequence: header.sequence,
            checked,
        }))
    }

    fn advance(&mut self, to: u64) {
        self.offset = to;
        if self.batch_end.is_some_and(|end| to >= end) {
            self.offset = align(to).min(self.end.max(to));
            self.batch_end = None;
        }
    }

    /// Whether only zeros follow up to the next block boundary, which is not here: what ends a batch of unknown length.
    fn is_padding(&mut self) -> Result<bool, DiskError> {
        let boundary = align(self.offset).min(self.end);
        if boundary == self.offset {
            return Ok(false);
        }
        Ok(self
            .bytes(self.offset, boundary - self.offset)?
            .iter()
            .all(|byte| *byte == 0))
    }

    fn skip_bad(&mut self) -> Result<Found, DiskError> {
        let offset = self.offset;
        let limit = self.batch_end.unwrap_or(self.end).min(self.end);
        let mut at = offset + 1;
        let mut end = limit;
        while at < limit {
            let length = (limit - at).min(WINDOW_BYTES);
            let bytes = self.bytes(at, length)?;
            let hits = bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == RECORD_MAGIC[0])
                .map(|(index, _)| at + index as u64);
            let mut hit = None;
            for candidate in hits.collect::<Vec<u64>>() {
                if self.header_at(candidate)?.is_some() {
                    hit = Some(candidate);
                    break;
                }
            }
            if let Some(hit) = hit {
                end = hit;
                break;
            }
            at += length;
        }
        self.advance(end);
        Ok(Found::Bad {
            offset,
            end,
            sequence: None,
        })
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<RecordHeader>, DiskError> {
        if self.end.saturating_sub(offset) < HEADER_BYTES {
            return Ok(None);
        }
        let bytes = self.bytes(offset, HEADER_BYTES)?;
        Ok(RecordHeader::decode(&bytes, self.segment, offset, Some(self.salt)))
    }

    fn bytes(&mut self, offset: u64, length: u64) -> Result<Bytes, DiskError> {
        let is_inside = offset >= self.window_start && offset + length <= self.window_start + self.window.len() as u64;
        if !is_inside {
            let wanted = length.max(WINDOW_BYTES).min(self.end - offset);
            self.window = self
                .file
                .read_at(offset, usize::try_from(wanted).unwrap_or(usize::MAX))?;
            self.window_start = offset;
        }
        let start = usize::try_from(offset - self.window_start).unwrap_or(usize::MAX);
        Ok(self
            .window
            .slice(start..start + usize::try_from(length).unwrap_or(usize::MAX)))
    }
}

/// Finds the salt of a segment whose header block is damaged: that of the first record whose checksum holds.
pub(super) fn find_salt(file: &dyn DiskFile, segment: SegmentNumber, len_bytes: u64) -> Result<Option<u64>, DiskError> {
    let mut offset = SEGMENT_HEADER_BYTES;
    while offset + HEADER_BYTES <= len_bytes {
        let bytes = file.read_at(offset, RECORD_HEADER_BYTES)?;
        if let Some(header) = RecordHeader::decode(&bytes, segment, offset, None) {
            return Ok(Some(header.salt));
        }
        offset += SEGMENT_HEADER_BYTES;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::Scanner;
    use crate::journal::types::SegmentNumber;
    use crate::seam::Disk;
    use crate::sim::SimDisk;
    use proptest::prelude::{any, prop, proptest};

    proptest! {
        /// shows: F42
        #[test]
        fn any_bytes_after_a_header_are_walked_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let disk = SimDisk::new(1 << 20);
            let file = disk.create("f").unwrap();
            file.write_at(4096, &[&bytes]).unwrap();
            let end = 4096 + bytes.len() as u64;
            let mut scanner = Scanner::new(file.as_ref(), SegmentNumber(1), 7, 4096, if bytes.is_empty() { 0 } else { end });
            let mut steps = 0;
            while scanner.next().unwrap().is_some() {
                steps += 1;
                assert!(steps <= 9000);
            }
        }
    }
}
