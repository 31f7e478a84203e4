//! Reads of a store that nobody writes meanwhile, each key from the store once.
//!
//! Commands of one batch read the same few records over and over: the slot's time, the drive, the folders above. Without this, reads
//! from RocksDB were 30 % of a commit's CPU at 64 at once (perf over the example `commits`).
//! Invariants: nobody writes what lies below while this lives; what is remembered is bounded.
//! Not here: scans, which are passed on.

use bytes::Bytes;
use kv::seam::{KvError, KvRead, Scan};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Keys that are remembered at most: several times what a batch of ordinary commands reads, little beside a sweep's. A guess.
const KEYS_MAX: usize = 4_096;
/// Values longer than this are read again: they are contents rather than facts about them. A guess.
const VALUE_BYTES_MAX: usize = 1_024;

/// A view of a store that remembers.
pub struct ReadOnce<'a> {
    below: &'a dyn KvRead,
    known: Mutex<BTreeMap<Bytes, Option<Bytes>>>,
}

impl<'a> ReadOnce<'a> {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(below: &'a dyn KvRead) -> Self {
        Self {
            below,
            known: Mutex::default(),
        }
    }
}

impl KvRead for ReadOnce<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(key) {
            return Ok(value.clone());
        }
        let value = self.below.get(key)?;
        let is_short = value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX);
        if is_short && known.len() < KEYS_MAX {
            known.insert(Bytes::copy_from_slice(key), value.clone());
        }
        Ok(value)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.below.scan(scan)
    }
}

#[cfg(test)]
mod tests {
    use super::ReadOnce;
    use bytes::Bytes;
    use kv::seam::{KvError, KvRead, Scan};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl KvRead for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(match key {
                b"long" => Some(Bytes::from(vec![1; 2_000])),
                b"short" => Some(Bytes::from_static(b"value")),
                _ => None,
            })
        }
        fn scan(&self, _scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn each_short_value_and_each_absence_is_read_once() {
        let below = Counting::default();
        let view = ReadOnce::new(&below);
        let check = |key: &[u8], reads| {
            let found = [view.get(key).unwrap(), view.get(key).unwrap()];
            assert_eq!(found[0], found[1]);
            assert_eq!(below.0.swap(0, Ordering::Relaxed), reads, "{key:?}");
        };
        check(b"short", 1);
        check(b"absent", 1);
        check(b"long", 2);
    }
}
