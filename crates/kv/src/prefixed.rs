//! A part of a store, seen as if it were a whole one: all keys that begin with a prefix, without it.
//!
//! Invariants: nothing outside the prefix is ever read; the order of keys is the store's.
//! Not here: writing. A batch gets its prefix by `prefixed_batch` and is written by whoever owns the store.

use crate::seam::{Batch, Change, KvError, KvRead, Scan, prefix_end};
use bytes::Bytes;
use std::ops::Bound;

/// Reads below a prefix.
pub struct Prefixed<'a> {
    base: &'a dyn KvRead,
    prefix: Bytes,
}

impl<'a> Prefixed<'a> {
    /// The keys of `base` that begin with `prefix`.
    #[must_use]
    pub fn new(base: &'a dyn KvRead, prefix: Bytes) -> Self {
        Self { base, prefix }
    }
}

fn joined(prefix: &[u8], key: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(prefix.len() + key.len());
    whole.extend_from_slice(prefix);
    whole.extend_from_slice(key);
    Bytes::from(whole)
}

/// The batch with `prefix` before each of its keys, bounds of removed ranges included.
#[must_use]
pub fn prefixed_batch(prefix: &[u8], batch: Batch) -> Batch {
    let change = |change| match change {
        Change::Put(key, value) => Change::Put(joined(prefix, &key), value),
        Change::Delete(key) => Change::Delete(joined(prefix, &key)),
        Change::DeleteRange(from, to) => Change::DeleteRange(joined(prefix, &from), joined(prefix, &to)),
    };
    batch.into_iter().map(change).collect()
}

impl KvRead for Prefixed<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.base.get(&joined(&self.prefix, key))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let from = match &scan.from {
            Bound::Included(key) => Bound::Included(joined(&self.prefix, key)),
            Bound::Excluded(key) => Bound::Excluded(joined(&self.prefix, key)),
            Bound::Unbounded => Bound::Included(self.prefix.clone()),
        };
        let to = match &scan.to {
            Bound::Included(key) => Bound::Included(joined(&self.prefix, key)),
            Bound::Excluded(key) => Bound::Excluded(joined(&self.prefix, key)),
            Bound::Unbounded => prefix_end(&self.prefix).map_or(Bound::Unbounded, Bound::Excluded),
        };
        let whole = Scan {
            from,
            to,
            is_reverse: scan.is_reverse,
            rows_max: scan.rows_max,
        };
        let rows = self.base.scan(&whole)?;
        Ok(rows
            .into_iter()
            .map(|(key, value)| (key.slice(self.prefix.len()..), value))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Prefixed, prefixed_batch};
    use crate::memory::MemoryKv;
    use crate::seam::{Change, Kv, KvRead, Scan};
    use bytes::Bytes;

    #[test]
    fn neighbours_of_a_prefix_are_not_seen() {
        let store = MemoryKv::new();
        for prefix in [[0_u8, 1], [0, 2], [0, 3]] {
            let rows = (0_u8..3)
                .map(|key| Change::Put(Bytes::from(vec![key]), Bytes::from(vec![prefix[1]])))
                .collect();
            store.write(prefixed_batch(&prefix, rows)).unwrap();
        }
        let part = Prefixed::new(&store, Bytes::from_static(&[0, 2]));
        for is_reverse in [false, true] {
            let rows = part
                .scan(&Scan {
                    is_reverse,
                    ..Scan::prefix(b"", 100)
                })
                .unwrap();
            assert_eq!(rows.len(), 3);
            assert!(rows.iter().all(|(key, value)| key.len() == 1 && value.as_ref() == [2]));
        }
        assert_eq!(part.get(&[1]).unwrap().as_deref(), Some([2].as_slice()));
    }
}
