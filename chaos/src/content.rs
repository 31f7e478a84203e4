//! Seeded random bytes as a stream, and the digest that they must read back with.
//!
//! Invariant: the same seed and length give the same bytes in every run, so a failure is replayed by its seed.

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::io;

/// Bytes of one part of the stream; the size of a socket buffer, so that nothing waits for a large part.
pub const PART_BYTES: usize = 256 << 10;

/// Incompressible bytes that a seed decides.
pub struct SeededContent {
    random: ChaCha8Rng,
    left_bytes: u64,
}

impl SeededContent {
    /// `length_bytes` bytes that `seed` decides.
    #[must_use]
    pub fn new(seed: u64, length_bytes: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            left_bytes: length_bytes,
        }
    }

    /// The next part, at most `PART_BYTES`; `None` at the end.
    pub fn next_part(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(PART_BYTES);
        if length == 0 {
            return None;
        }
        let mut part = BytesMut::zeroed(length);
        self.random.fill_bytes(&mut part);
        self.left_bytes -= length as u64;
        Some(part.freeze())
    }

    /// All that is left in one piece; for contents of some megabytes.
    #[must_use]
    pub fn whole(mut self) -> Bytes {
        let mut whole = BytesMut::new();
        while let Some(part) = self.next_part() {
            whole.extend_from_slice(&part);
        }
        whole.freeze()
    }

    /// BLAKE3 of all that is left.
    #[must_use]
    pub fn digest(mut self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        while let Some(part) = self.next_part() {
            hasher.update(&part);
        }
        hasher.finalize()
    }

    /// The rest as a stream; `seen` is told the length of each part as it is taken.
    pub fn stream(self, seen: impl Fn(u64) + Send + 'static) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold((self, seen), |(mut content, seen)| async move {
            let part = content.next_part()?;
            seen(part.len() as u64);
            Some((Ok(part), (content, seen)))
        })
    }
}
