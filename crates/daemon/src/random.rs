//! The generator of random bytes: the operating system's in production, seeded in simulation and tests.
//!
//! Invariant: nonces, ids, keys and tokens come from here and from nowhere else, so that one seed decides a whole simulated run.
//! Not here: what the bytes are used for, and why a nonce never repeats (codec).

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A source of random bytes; clones draw from the same stream.
#[derive(Clone)]
pub struct Random {
    source: Source,
}

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<ChaCha20Rng>>),
}

impl Random {
    /// The operating system's generator: unpredictable, for everything in production.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// A generator whose whole stream follows from `seed`: for simulation and tests only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            source: Source::Seeded(Arc::new(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))),
        }
    }

    /// Fills `target`.
    ///
    /// # Panics
    /// When the operating system has no randomness to give: going on with predictable keys would be worse than stopping.
    #[allow(clippy::disallowed_methods, reason = "the one place that draws random bytes")]
    pub fn fill(&self, target: &mut [u8]) {
        match &self.source {
            Source::System => getrandom::fill(target).expect("Linux serves getrandom in every state after boot"),
            Source::Seeded(generator) => {
                generator
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .fill_bytes(target);
            }
        }
    }

    /// `N` random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A uniform 64-bit number.
    #[must_use]
    pub fn u64(&self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A uniform 128-bit number.
    #[must_use]
    pub fn u128(&self) -> u128 {
        u128::from_le_bytes(self.bytes())
    }

    /// A uniform number below `bound`; 0 when `bound` is 0 or 1.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        // Multiply and take the high half (Lemire 2019, without the rejection step: the bias is below 2^-64 times the bound,
        // which spreading load and jitter never see; nothing secret is drawn this way).
        let product = u128::from(self.u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of a 128-bit product fits 64 bits")
    }

    /// A uniform span from zero up to, not including, `span`.
    #[must_use]
    pub fn up_to(&self, span: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::System => "Random(system)",
            Source::Seeded(_) => "Random(seeded)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Random;
    use std::time::Duration;

    #[test]
    fn one_seed_gives_one_stream_and_another_seed_another() {
        let draw = |seed| Random::seeded(seed).bytes::<32>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn clones_share_their_stream() {
        let (random, twin) = (Random::seeded(1), Random::seeded(1));
        let clone = random.clone();
        assert_eq!((random.u64(), clone.u64()), (twin.u64(), twin.u64()));
    }

    #[test]
    fn bounded_numbers_stay_below_their_bound() {
        for random in [Random::seeded(3), Random::system()] {
            for bound in [1, 2, 3, 1_000] {
                assert!((0..200).all(|_| random.below(bound) < bound));
            }
            assert_eq!(random.below(0), 0);
            assert_eq!(random.up_to(Duration::ZERO), Duration::ZERO);
            assert!(random.up_to(Duration::from_millis(5)) < Duration::from_millis(5));
        }
    }

    #[test]
    fn the_system_gives_different_bytes_each_time() {
        assert_ne!(Random::system().bytes::<32>(), Random::system().bytes::<32>());
    }
}
