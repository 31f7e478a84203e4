//! What a seed decides.
//!
//! Invariant: the same seed gives the same numbers in every run.
//! Not here: what they are used for (`maker`).

/// Decides everything by a seed.
pub(crate) struct Dice(blake3::OutputReader);

impl Dice {
    /// One that `seed` decides.
    pub(crate) fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    /// Less than `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % count as u64).unwrap()
    }

    /// One of them.
    pub(crate) fn one<'v, T>(&mut self, of: &'v [T]) -> &'v T {
        &of[self.below(of.len())]
    }

    /// True once in `count` times.
    pub(crate) fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
