//! The bytes of a record's header and of the batch record.
//!
//! Place in the picture: docs/format/journal.md is the page of this format; golden bytes lie in golden/.
//! Invariants: a header is bound by its checksum to its segment's salt and number and to its own offset, so neither bytes from
//! outside nor a block written to a wrong place can pose as a record; all integers are little-endian.
//! Not here: where records stand (`segment`, `scan`), payloads.

use crate::journal::types::SegmentNumber;

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 40;
/// The kind of the record that begins each batch.
pub(super) const BATCH_KIND: u8 = 0;
pub(super) const RECORD_MAGIC: [u8; 4] = *b"HFR1";

const _: () = assert!(
    BATCH_KIND < crate::journal::FIRST_USER_KIND,
    "no owner's record may pass for the journal's own"
);
const BATCH_FIXED_BYTES: usize = 16;
const END_BYTES: usize = 16;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) salt: u64,
    pub(super) sequence: u64,
    pub(super) kind: u8,
    pub(super) len_bytes: u32,
    /// So many bytes of the payload, from its beginning, are covered by `payload_crc`.
    pub(super) checked_bytes: u32,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    /// The header as it stands at `offset` of segment `segment`.
    pub(super) fn encode(&self, segment: SegmentNumber, offset: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0_u8; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4..12].copy_from_slice(&self.salt.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[20] = self.kind;
        bytes[24..28].copy_from_slice(&self.len_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.checked_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = header_crc(&bytes[..36], segment, offset);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that begins `bytes`; `None` unless every field fits. `salt` is `None` only to find a lost salt again.
    pub(super) fn decode(bytes: &[u8], segment: SegmentNumber, offset: u64, salt: Option<u64>) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if bytes[..4] != RECORD_MAGIC
            || bytes[21..24] != [0; 3]
            || u32_at(bytes, 36)? != header_crc(&bytes[..36], segment, offset)
        {
            return None;
        }
        let header = Self {
            salt: u64_at(bytes, 4)?,
            sequence: u64_at(bytes, 12)?,
            kind: bytes[20],
            len_bytes: u32_at(bytes, 24)?,
            checked_bytes: u32_at(bytes, 28)?,
            payload_crc: u32_at(bytes, 32)?,
        };
        let is_ours = salt.is_none_or(|salt| salt == header.salt);
        (is_ours && header.checked_bytes <= header.len_bytes).then_some(header)
    }

    /// Bytes of header and payload.
    pub(super) fn total_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.len_bytes)
    }
}

/// The payload of the record that begins each batch: how far the segment was synced, and where older segments end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchMark {
    /// Everything of this segment before this byte was synced when the batch was written.
    pub(super) synced_bytes: u64,
    /// Bytes of the batch without its padding, this record included.
    pub(super) batch_bytes: u32,
    /// Older segments and their durable marks: nothing above these is ever looked at again.
    pub(super) ends: Vec<(SegmentNumber, u64)>,
}

impl BatchMark {
    /// Bytes of the payload with so many ends.
    pub(super) fn payload_bytes(ends: usize) -> usize {
        BATCH_FIXED_BYTES + ends * END_BYTES
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::payload_bytes(self.ends.len()));
        bytes.extend_from_slice(&self.synced_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.batch_bytes.to_le_bytes());
        let count = u32::try_from(self.ends.len()).expect("segments of one disk are far fewer than 2^32");
        bytes.extend_from_slice(&count.to_le_bytes());
        for (segment, end) in &self.ends {
            bytes.extend_from_slice(&segment.0.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let count = usize::try_from(u32_at(bytes, 12)?).ok()?;
        let rest = bytes.get(BATCH_FIXED_BYTES..)?;
        if rest.len() != count.checked_mul(END_BYTES)? {
            return None;
        }
        let ends = rest
            .chunks_exact(END_BYTES)
            .map(|end| Some((SegmentNumber(u64_at(end, 0)?), u64_at(end, 8)?)));
        Some(Self {
            synced_bytes: u64_at(bytes, 0)?,
            batch_bytes: u32_at(bytes, 8)?,
            ends: ends.collect::<Option<_>>()?,
        })
    }
}

fn header_crc(bytes: &[u8], segment: SegmentNumber, offset: u64) -> u32 {
    let crc = crc32c::crc32c(bytes);
    let crc = crc32c::crc32c_append(crc, &segment.0.to_le_bytes());
    crc32c::crc32c_append(crc, &offset.to_le_bytes())
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::{BatchMark, RECORD_HEADER_BYTES, RecordHeader};
    use crate::journal::segment::SegmentHeader;
    use crate::journal::types::SegmentNumber;
    use proptest::prelude::{any, prop, proptest};

    const HEADER: RecordHeader = RecordHeader {
        salt: 0x0102_0304_0506_0708,
        sequence: 42,
        kind: 16,
        len_bytes: 5,
        checked_bytes: 5,
        payload_crc: 0x9a71_bb4c,
    };

    #[test]
    fn golden_bytes_of_headers_and_batch_record_never_change() {
        let check = |expected: &[u8], bytes: &[u8]| assert_eq!(bytes, expected);
        check(
            include_bytes!("../../golden/record-header-v1.bin"),
            &HEADER.encode(SegmentNumber(3), 8192),
        );
        let mark = BatchMark {
            synced_bytes: 8192,
            batch_bytes: 101,
            ends: vec![(SegmentNumber(2), 12_288)],
        };
        check(include_bytes!("../../golden/batch-payload-v1.bin"), &mark.encode());
        let segment = SegmentHeader {
            number: SegmentNumber(3),
            salt: HEADER.salt,
            next_sequence: 42,
        };
        check(include_bytes!("../../golden/segment-header-v1.bin"), &segment.encode());
    }

    #[test]
    fn a_header_is_bound_to_its_segment_offset_and_salt() {
        let bytes = HEADER.encode(SegmentNumber(3), 8192);
        let check = |segment, offset, salt| RecordHeader::decode(&bytes, SegmentNumber(segment), offset, Some(salt));
        assert_eq!(check(3, 8192, HEADER.salt), Some(HEADER));
        assert_eq!(check(4, 8192, HEADER.salt), None);
        assert_eq!(check(3, 4096, HEADER.salt), None);
        assert_eq!(check(3, 8192, 1), None);
    }

    /// shows: F8 scale=1/3
    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        for at in 0..RECORD_HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode(SegmentNumber(3), 8192);
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(
                RecordHeader::decode(&bytes, SegmentNumber(3), 8192, Some(HEADER.salt)),
                None,
                "bit {at}"
            );
        }
    }

    proptest! {
        /// shows: F42
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RecordHeader::decode(&bytes, SegmentNumber(1), 0, None);
            let _ = BatchMark::decode(&bytes);
            let _ = SegmentHeader::decode(&bytes, SegmentNumber(1));
        }

        #[test]
        fn batch_records_read_back(synced_bytes in any::<u64>(), batch_bytes in any::<u32>(), ends in prop::collection::vec(any::<(u64, u64)>(), 0..9)) {
            let ends = ends.into_iter().map(|(number, end)| (SegmentNumber(number), end)).collect();
            let mark = BatchMark { synced_bytes, batch_bytes, ends };
            assert_eq!(BatchMark::decode(&mark.encode()), Some(mark));
        }
    }
}
