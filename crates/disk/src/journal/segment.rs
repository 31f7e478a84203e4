//! A segment file: its name, its header block, and the alignment of batches.
//!
//! Invariants: the header is synced before the first batch is written, so a bad header in a file longer than a header is damage
//! and never a torn creation; batches start on block boundaries.
//! Not here: what follows the header (`record`, `scan`).

use crate::journal::record::{u32_at, u64_at};
use crate::journal::types::SegmentNumber;

/// Batches start on multiples of this, in bytes: two batches never share a block that a cut could tear.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes before the first batch: one block.
pub const SEGMENT_HEADER_BYTES: u64 = BLOCK_BYTES;

const SEGMENT_MAGIC: [u8; 8] = *b"HFSEGMT1";
const CRC_AT: usize = 32;

/// What the first block of a segment says; the rest of the block is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: SegmentNumber,
    pub(super) salt: u64,
    /// No sequence from here on had been given when the segment was made: what keeps sequences from coming twice after old
    /// segments are gone.
    pub(super) next_sequence: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0_u8; SEGMENT_HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..16].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.next_sequence.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file named after `number`; `None` unless every field fits.
    pub(super) fn decode(bytes: &[u8], number: SegmentNumber) -> Option<Self> {
        if bytes.get(..8)? != SEGMENT_MAGIC || u32_at(bytes, CRC_AT)? != crc32c::crc32c(bytes.get(..CRC_AT)?) {
            return None;
        }
        let header = Self {
            number: SegmentNumber(u64_at(bytes, 8)?),
            salt: u64_at(bytes, 16)?,
            next_sequence: u64_at(bytes, 24)?,
        };
        (header.number == number).then_some(header)
    }
}

/// The next block boundary at or after `offset`.
pub(super) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(BLOCK_BYTES)
}

/// The directory of segments that wait for their end.
pub(super) fn limbo_dir(dir: &str) -> String {
    format!("{dir}/limbo")
}

/// The file of a segment in directory `dir`.
pub(super) fn file_name(dir: &str, number: SegmentNumber) -> String {
    format!("{dir}/{number}.seg")
}

/// The number in a file's name; `None` when it is not a segment's.
pub(super) fn parse_file_name(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(".seg")?;
    let number = SegmentNumber(u64::from_str_radix(digits, 16).ok()?);
    (number.to_string() == digits).then_some(number)
}
