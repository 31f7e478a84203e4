//! The seam in memory, for tests and simulation: a power cut loses any suffix of the unsynced batches.
//!
//! Invariants: `durable` is the state at the last sync; `current` is `durable` with `unsynced` applied in order.
//! Not here: failing calls; wrap the store for that.

use crate::seam::{Batch, Change, Kv, KvError, KvRead, Scan};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

type Rows = BTreeMap<Bytes, Bytes>;

#[derive(Default)]
struct State {
    current: Arc<Rows>,
    durable: Arc<Rows>,
    unsynced: Vec<Batch>,
}

/// An ordered map that behaves as a store on a disk would.
#[derive(Default)]
pub struct MemoryKv {
    state: RwLock<State>,
}

impl MemoryKv {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: of the batches written since the last sync a prefix chosen by `seed` survives. Returns how many were lost.
    pub fn power_cut(&self, seed: u64) -> usize {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let written = state.unsynced.len();
        let kept = (mixed(seed) % (written as u64 + 1)) as usize;
        let survived = state.survived(kept);
        state.durable = Arc::clone(&survived);
        state.current = survived;
        state.unsynced.clear();
        written - kept
    }

    /// How many batches a power cut could lose.
    #[must_use]
    pub fn unsynced_batches(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).unsynced.len()
    }

    /// The store as it is found after a power cut now of which the first `kept` unsynced batches survive; this one is not changed.
    #[must_use]
    pub fn crash(&self, kept: usize) -> Self {
        let survived = self.state.read().unwrap_or_else(PoisonError::into_inner).survived(kept);
        let state = State {
            current: Arc::clone(&survived),
            durable: survived,
            unsynced: Vec::new(),
        };
        Self {
            state: RwLock::new(state),
        }
    }
}

impl State {
    fn survived(&self, kept: usize) -> Arc<Rows> {
        let mut survived = Arc::clone(&self.durable);
        for batch in self.unsynced.iter().take(kept) {
            apply(Arc::make_mut(&mut survived), batch);
        }
        survived
    }
}

/// SplitMix64's finalizer (Steele, Lea and Flood 2014): neighbouring seeds choose unrelated prefixes.
fn mixed(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn apply(rows: &mut Rows, batch: &[Change]) {
    for change in batch {
        match change {
            Change::Put(key, value) => {
                rows.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                rows.remove(key);
            }
            Change::DeleteRange(from, to) if from < to => {
                let doomed: Vec<Bytes> = rows
                    .range(from.clone()..to.clone())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in doomed {
                    rows.remove(&key);
                }
            }
            Change::DeleteRange(..) => {}
        }
    }
}

fn read_rows(rows: &Rows, scan: &Scan) -> Vec<(Bytes, Bytes)> {
    if scan.is_empty() {
        return Vec::new();
    }
    let range = rows
        .range((scan.from.clone(), scan.to.clone()))
        .map(|(key, value)| (key.clone(), value.clone()));
    if scan.is_reverse {
        range.rev().take(scan.rows_max).collect()
    } else {
        range.take(scan.rows_max).collect()
    }
}

impl MemoryKv {
    fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).current)
    }
}

impl KvRead for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.rows().get(key).cloned())
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        Ok(read_rows(&self.rows(), scan))
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        apply(Arc::make_mut(&mut state.current), &batch);
        state.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), KvError> {
        let mut guard = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        // Replaying what is new keeps the two maps apart, so that neither's next write copies the whole.
        let durable = Arc::make_mut(&mut state.durable);
        for batch in state.unsynced.drain(..) {
            apply(durable, &batch);
        }
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        Box::new(MemorySnapshot { rows: self.rows() })
    }
}

struct MemorySnapshot {
    rows: Arc<Rows>,
}

impl KvRead for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        Ok(read_rows(&self.rows, scan))
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryKv;
    use crate::conformance;
    use crate::seam::{Change, Kv, KvRead, Scan};
    use bytes::Bytes;
    use std::collections::BTreeSet;

    #[test]
    fn memory_passes_the_suite() {
        conformance::check_all(&mut || Box::new(MemoryKv::new()));
    }

    #[test]
    fn a_power_cut_keeps_a_prefix_that_covers_the_last_sync() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let store = MemoryKv::new();
            for number in 0_u8..8 {
                store
                    .write(vec![Change::Put(Bytes::from(vec![number]), Bytes::new())])
                    .unwrap();
                if number == 2 {
                    store.sync().unwrap();
                }
            }
            let kept = seed as usize % 6;
            let beside = store.crash(kept);
            assert_eq!(beside.scan(&Scan::prefix(b"", 100)).unwrap().len(), 3 + kept);
            assert_eq!((store.unsynced_batches(), beside.unsynced_batches()), (5, 0));
            let lost = store.power_cut(seed);
            let rows = store.scan(&Scan::prefix(b"", 100)).unwrap();
            assert_eq!(rows.len(), 8 - lost);
            assert!(rows.len() >= 3, "synced batches survive");
            assert!(
                rows.iter()
                    .enumerate()
                    .all(|(place, (key, _))| key[0] as usize == place),
                "a prefix, no hole"
            );
            seen.insert(rows.len());
        }
        assert_eq!(seen, (3..=8).collect(), "every prefix happens");
    }
}
