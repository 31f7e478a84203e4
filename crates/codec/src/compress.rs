//! Compression of blocks before they are sealed: zstd when a probe says that it pays.
//!
//! Place in the picture: decision 0006, step 2. Invariants: compressing is deterministic for one release and never makes a
//! block longer; decompressing takes no more memory than the length that the reader expects.
//! Not here: the byte that says which was chosen is part of the sealed form (`seal`).

use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// Zstd's level: the highest that stays above 300 MB/s a core with sealing on English text (QAS-011), measured on two shared
/// cores; docs/format/sealed.md has the figures of levels 1 and 3. The probe takes it too: it only has to tell text from noise.
const LEVEL: i32 = 1;
/// Blocks up to this length are compressed without a probe, which would cost as much.
const PROBE_FROM_BYTES: usize = 64 << 10;
/// Samples lie evenly over the block, so that a header or a trailer of another kind does not decide alone. Guess.
const PROBE_SAMPLES: usize = 8;
const PROBE_SAMPLE_BYTES: usize = 4 << 10;
/// The probe must save a twentieth: samples compress worse than the whole block, noise not at all.
const PROBE_SAVES_DIVISOR: usize = 20;
/// A compressed block must save a sixteenth, else every read would pay for nothing.
const SAVES_DIVISOR: usize = 16;

const _: () = assert!(
    PROBE_SAMPLES * PROBE_SAMPLE_BYTES <= PROBE_FROM_BYTES,
    "samples do not overlap"
);

thread_local! {
    /// Each thread keeps its compressor, since making one for every block of some kilobytes costs a part of compressing it: memory of
    /// some hundred kilobytes, and three questions to the processor, each of which leaves a virtual machine. It begins every block
    /// anew, also behind one that found too little room, so what it compressed before changes no byte of what follows.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// How a block's bytes lie inside its seal. The number is stored, so it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Compression {
    /// The number that is stored.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Reads a stored number; `None` for one this release does not know.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd]
            .into_iter()
            .find(|known| known.number() == number)
    }
}

/// Compresses `plain`; `None` when that does not pay and the bytes are better kept as they are.
///
/// The answer is at least a sixteenth shorter than `plain`. Cost: for noise about a thirtieth of compressing it whole.
#[must_use]
pub fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() > PROBE_FROM_BYTES && !probe_says_it_pays(plain) {
        return None;
    }
    let room = plain.len() - plain.len().div_ceil(SAVES_DIVISOR);
    compress_within(plain, room)
}

fn probe_says_it_pays(plain: &[u8]) -> bool {
    let mut samples = Vec::with_capacity(PROBE_SAMPLES * PROBE_SAMPLE_BYTES);
    let stride = (plain.len() - PROBE_SAMPLE_BYTES) / (PROBE_SAMPLES - 1);
    for sample in 0..PROBE_SAMPLES {
        samples.extend_from_slice(&plain[sample * stride..][..PROBE_SAMPLE_BYTES]);
    }
    compress_within(&samples, samples.len() - samples.len() / PROBE_SAVES_DIVISOR).is_some()
}

/// Compresses into at most `room` bytes; `None` when they do not suffice.
fn compress_within(plain: &[u8], room: usize) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Compressor::new(LEVEL).ok();
        }
        let mut compressed = Vec::with_capacity(room);
        // An allocator may give more than was asked for and zstd fills the whole capacity, so the length is checked as well.
        kept.as_mut()?.compress_to_buffer(plain, &mut compressed).ok()?;
        (compressed.len() <= room).then_some(compressed)
    })
}

/// Decompresses a zstd frame that must give exactly `plain_bytes` bytes; `None` for anything else.
///
/// Allocates `plain_bytes` and no more, whatever the frame claims; the caller has bounded `plain_bytes`.
#[must_use]
pub fn decompress(compressed: &[u8], plain_bytes: usize) -> Option<Vec<u8>> {
    let mut plain = vec![0; plain_bytes];
    let written = Decompressor::new()
        .ok()?
        .decompress_to_buffer(compressed, plain.as_mut_slice())
        .ok()?;
    (written == plain_bytes).then_some(plain)
}
