//! The streaming cutter: where content is cut into blocks.
//!
//! FastCDC 2020 (Xia et al., "The Design of Fast Content-Defined Chunking", IEEE TPDS 2020) with normalization level 1 and the
//! tables and masks of the crate `fastcdc`; its one-shot cut is the naive twin in tests. We differ in one thing: the scan
//! keeps its state between buffers, so that a block is known as soon as its end has come in and no byte is scanned twice.
//! Invariants: the cuts depend on the content alone, never on how it was split into buffers; at most one block is held.
//! Not here: names of blocks (`digest`).

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{MASKS, get_gear_with_seed};
use model::limits::{BLOCK_BYTES_AVG, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};

const AVG_BITS: usize = BLOCK_BYTES_AVG.ilog2() as usize;
/// Before the average length a cut needs one bit more, after it one bit less: normalization level 1.
const MASK_STRICT: u64 = MASKS[AVG_BITS + 1];
const MASK_LOOSE: u64 = MASKS[AVG_BITS - 1];
/// Smaller buffers are gathered, so that a body of single bytes does not become a million handles. Guess.
const SMALL_BYTES: usize = 4 << 10;
const GATHERED_BYTES: usize = 64 << 10;

const _: () = assert!(
    BLOCK_BYTES_AVG.is_power_of_two(),
    "the masks are chosen by the logarithm of the average"
);
const _: () = assert!(
    BLOCK_BYTES_MIN.is_multiple_of(2),
    "the scan takes two bytes at a time from the minimum on"
);
const _: () = assert!(
    BLOCK_BYTES_MAX.is_multiple_of(2),
    "the scan takes two bytes at a time up to the maximum"
);
const _: () = assert!(MASK_STRICT >> 63 == 0, "a mask keeps its bits when shifted left by one");

struct Tables {
    gear: [u64; 256],
    gear_shifted: [u64; 256],
}

/// Cuts a stream of buffers into blocks.
///
/// Memory: at most `BLOCK_BYTES_MAX` bytes of pushed buffers are kept alive (whole, when only a slice of one is held).
pub struct Cutter {
    tables: Box<Tables>,
    /// Buffers of the block that has not ended, in order; the small ones of the end lie in `small`.
    parts: Vec<Bytes>,
    small: BytesMut,
    /// Bytes in `parts` and `small`.
    held: usize,
    /// Bytes of the block that the scan is through with: even, and at most one below `held` from the minimum on.
    scanned: usize,
    /// The byte at `scanned` when it was the last one held: it is looked at together with the next.
    carried: u8,
    hash: u64,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new()
    }
}

impl Cutter {
    /// Starts a content.
    #[must_use]
    pub fn new() -> Self {
        let (gear, gear_shifted) = get_gear_with_seed(0);
        let table = |entries: &[u64]| {
            entries
                .try_into()
                .expect("the crate's tables have an entry for each byte value")
        };
        let tables = Box::new(Tables {
            gear: table(&gear),
            gear_shifted: table(&gear_shifted),
        });
        let small = BytesMut::new();
        Self {
            tables,
            parts: Vec::new(),
            small,
            held: 0,
            scanned: BLOCK_BYTES_MIN,
            carried: 0,
            hash: 0,
        }
    }

    /// Bytes of the block that has not ended.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// A copy of the bytes of the block that has not ended: how it begins, whatever comes.
    #[must_use]
    pub fn held(&self) -> Bytes {
        let mut held = BytesMut::with_capacity(self.held);
        for part in &self.parts {
            held.extend_from_slice(part);
        }
        held.extend_from_slice(&self.small);
        held.freeze()
    }

    /// Takes the next bytes of the content and answers the blocks that they end, in order.
    ///
    /// A block that lies inside `bytes` is a slice of it without copy; one that straddles buffers is gathered once. Every
    /// block is `BLOCK_BYTES_MIN` to `BLOCK_BYTES_MAX` long.
    pub fn push(&mut self, bytes: Bytes) -> Vec<Bytes> {
        let mut blocks = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(end) = self.scan(&rest) else {
                self.hold(rest);
                break;
            };
            if end < self.held {
                // The pair that ends the block began with the last byte of an earlier buffer: that byte opens the next block.
                let mut block = self.gather(Bytes::new());
                let opening = block.split_off(end);
                blocks.push(block);
                self.restart();
                self.hold(opening);
            } else {
                let head = rest.split_to(end - self.held);
                blocks.push(self.gather(head));
                self.restart();
            }
        }
        blocks
    }

    /// Ends the content: answers the last block, 1 to `BLOCK_BYTES_MAX` bytes, or `None` when nothing is left.
    ///
    /// The cutter may then be used for another content.
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.held == 0 {
            return None;
        }
        let block = self.gather(Bytes::new());
        self.restart();
        Some(block)
    }

    /// Looks for the end of the block in `bytes`, which follow the `held` ones; answers its length.
    ///
    /// Two bytes at a time as in section 3.7 of the paper: the hash before the first byte's own step is compared under a
    /// mask shifted by one. A hit excludes the byte that made it.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = (self.held + bytes.len()).min(BLOCK_BYTES_MAX);
        let (mut at, mut hash) = (self.scanned, self.hash);
        if let (true, Some(first)) = (at < self.held, bytes.first()) {
            let mask = if at < BLOCK_BYTES_AVG { MASK_STRICT } else { MASK_LOOSE };
            if let Some(hit) = self.tables.step(&mut hash, [self.carried, *first], mask) {
                return Some(at + hit);
            }
            at += 2;
        }
        for (limit, mask) in [(BLOCK_BYTES_AVG, MASK_STRICT), (BLOCK_BYTES_MAX, MASK_LOOSE)] {
            let stop = end.min(limit);
            if at + 1 < stop {
                let (pairs, _) = bytes[at - self.held..stop - self.held].as_chunks::<2>();
                for pair in pairs {
                    if let Some(hit) = self.tables.step(&mut hash, *pair, mask) {
                        return Some(at + hit);
                    }
                    at += 2;
                }
            }
        }
        if end == BLOCK_BYTES_MAX {
            return Some(BLOCK_BYTES_MAX);
        }
        (self.scanned, self.hash) = (at, hash);
        if let (true, Some(last)) = (at < end, bytes.last()) {
            self.carried = *last;
        }
        None
    }

    /// Keeps the bytes of a block that has not ended.
    fn hold(&mut self, bytes: Bytes) {
        self.held += bytes.len();
        if bytes.len() < SMALL_BYTES {
            // A second copy, of small buffers only: handles of 32 bytes for each would cost more.
            self.small.extend_from_slice(&bytes);
            if self.small.len() >= GATHERED_BYTES {
                self.parts.push(self.small.split().freeze());
            }
            return;
        }
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
        self.parts.push(bytes);
    }

    /// Joins what is held and `head` to one buffer.
    fn gather(&mut self, head: Bytes) -> Bytes {
        if self.held == 0 {
            return head;
        }
        if head.is_empty() && self.small.is_empty() && self.parts.len() == 1 {
            return self.parts.remove(0);
        }
        // The one copy of a block that straddles buffers: sealing and hashing want it in one piece.
        let mut block = BytesMut::with_capacity(self.held + head.len());
        for part in self.parts.drain(..) {
            block.extend_from_slice(&part);
        }
        block.extend_from_slice(&self.small);
        self.small.clear();
        block.extend_from_slice(&head);
        block.freeze()
    }

    fn restart(&mut self) {
        self.held = 0;
        self.scanned = BLOCK_BYTES_MIN;
        self.hash = 0;
    }
}

impl Tables {
    /// Takes a pair of bytes into `hash`; answers which of the two (0 or 1) is the first of the next block.
    #[inline(always)]
    fn step(&self, hash: &mut u64, pair: [u8; 2], mask: u64) -> Option<usize> {
        *hash = (*hash << 2).wrapping_add(self.gear_shifted[usize::from(pair[0])]);
        if *hash & (mask << 1) == 0 {
            return Some(0);
        }
        *hash = hash.wrapping_add(self.gear[usize::from(pair[1])]);
        (*hash & mask == 0).then_some(1)
    }
}
