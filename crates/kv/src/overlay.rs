//! Buffered writes over a store: what a command of the state machine reads and changes before anything is written.
//!
//! Invariants: reads and scans see the buffered writes; the store below is untouched until somebody writes `into_batch`.
//! `own` holds the latest change of each single key; `masked` the removed ranges, which hide the store below but none of `own`,
//! since a range's removal first takes the buffered keys in it out.
//! Not here: undoing. A command makes all checks before its first write.

use crate::seam::{Batch, Change, KvError, KvRead, Scan};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

/// Rows fetched at a time from the store below while merging. A guess: most scans of commands are shorter.
const MERGE_ROWS_MIN: usize = 16;

/// A store with changes on top that nobody else sees yet.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    own: BTreeMap<Bytes, Option<Bytes>>,
    masked: Vec<(Bytes, Bytes)>,
}

impl<'a> Overlay<'a> {
    /// No changes yet, over `base`.
    #[must_use]
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self {
            base,
            own: BTreeMap::new(),
            masked: Vec::new(),
        }
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.own.insert(key.into(), Some(value.into()));
    }

    /// Removes a key; nothing happens when it is not there.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.own.insert(key.into(), None);
    }

    /// Removes all keys from `from` (included) to `to` (excluded).
    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (from, to) = (from.into(), to.into());
        if from >= to {
            return;
        }
        self.own.retain(|key, _| *key < from || *key >= to);
        self.masked.push((from, to));
    }

    /// Makes the changes of an overlay over this one, as its `into_batch` gives them.
    pub fn absorb(&mut self, changes: Batch) {
        for change in changes {
            match change {
                Change::Put(key, value) => self.put(key, value),
                Change::Delete(key) => self.delete(key),
                Change::DeleteRange(from, to) => self.delete_range(from, to),
            }
        }
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.own.is_empty() && self.masked.is_empty()
    }

    /// The changes, to be written together: removed ranges first, then single keys in their order.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        let ranges = self.masked.into_iter().map(|(from, to)| Change::DeleteRange(from, to));
        let keys = self.own.into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
        ranges.chain(keys).collect()
    }

    fn is_masked(&self, key: &[u8]) -> bool {
        self.masked
            .iter()
            .any(|(from, to)| key >= from.as_ref() && key < to.as_ref())
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.own.get(key) {
            Some(value) => Ok(value.clone()),
            None if self.is_masked(key) => Ok(None),
            None => self.base.get(key),
        }
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        if scan.is_empty() || scan.rows_max == 0 {
            return Ok(Vec::new());
        }
        if self.is_clean() {
            return self.base.scan(scan);
        }
        let mut below = Below::new(self, scan);
        let range = self.own.range((scan.from.clone(), scan.to.clone()));
        let ordered: Box<dyn Iterator<Item = (&Bytes, &Option<Bytes>)>> = if scan.is_reverse {
            Box::new(range.rev())
        } else {
            Box::new(range)
        };
        let mut own = ordered.peekable();
        let mut rows = Vec::new();
        while rows.len() < scan.rows_max {
            let order = match (own.peek(), below.peek()?) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((own, _)), Some(below)) if scan.is_reverse => below.cmp(own),
                (Some((own, _)), Some(below)) => (*own).cmp(below),
            };
            if order.is_gt() {
                rows.extend(below.take());
                continue;
            }
            if order.is_eq() {
                below.take();
            }
            if let Some((key, Some(value))) = own.next() {
                rows.push((key.clone(), value.clone()));
            }
        }
        Ok(rows)
    }
}

/// The rows of the store below that no removed range hides, fetched in bounded runs.
struct Below<'s, 'a> {
    overlay: &'s Overlay<'a>,
    rest: Option<Scan>,
    rows: VecDeque<(Bytes, Bytes)>,
}

impl<'s, 'a> Below<'s, 'a> {
    fn new(overlay: &'s Overlay<'a>, scan: &Scan) -> Self {
        let rest = Scan {
            rows_max: scan.rows_max.max(MERGE_ROWS_MIN),
            ..scan.clone()
        };
        Self {
            overlay,
            rest: Some(rest),
            rows: VecDeque::new(),
        }
    }

    fn peek(&mut self) -> Result<Option<&Bytes>, KvError> {
        while self.rows.is_empty() {
            let Some(scan) = self.rest.take() else { return Ok(None) };
            let rows = self.overlay.base.scan(&scan)?;
            if rows.len() == scan.rows_max {
                self.rest = rows.last().map(|(key, _)| scan.continued(key));
            }
            self.rows = rows
                .into_iter()
                .filter(|(key, _)| !self.overlay.is_masked(key))
                .collect();
        }
        Ok(self.rows.front().map(|(key, _)| key))
    }

    fn take(&mut self) -> Option<(Bytes, Bytes)> {
        self.rows.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::Overlay;
    use crate::memory::MemoryKv;
    use crate::seam::{Change, Kv, KvRead, Scan};
    use bytes::Bytes;
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};
    use std::collections::BTreeMap;
    use std::ops::Bound;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0_u8..4, 0..3).prop_map(Bytes::from)
    }

    fn change() -> impl Strategy<Value = Change> {
        let value = || any::<u8>().prop_map(|byte| Bytes::from(vec![byte]));
        prop_oneof![
            4 => (key(), value()).prop_map(|(key, value)| Change::Put(key, value)),
            2 => key().prop_map(Change::Delete),
            1 => (key(), key()).prop_map(|(from, to)| Change::DeleteRange(from, to)),
        ]
    }

    fn bound() -> impl Strategy<Value = Bound<Bytes>> {
        prop_oneof![
            key().prop_map(Bound::Included),
            key().prop_map(Bound::Excluded),
            any::<()>().prop_map(|()| Bound::Unbounded)
        ]
    }

    fn change_model(model: &mut BTreeMap<Bytes, Bytes>, change: &Change) {
        match change {
            Change::Put(key, value) => drop(model.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(model.remove(key)),
            Change::DeleteRange(from, to) => model.retain(|key, _| key < from || key >= to),
        }
    }

    proptest! {
        #[test]
        fn an_overlay_reads_as_a_map_with_the_same_changes(
            base in proptest::collection::vec(change(), 0..40),
            own in proptest::collection::vec(change(), 0..40),
            from in bound(), to in bound(), is_reverse in any::<bool>(), rows_max in 0_usize..30,
        ) {
            let store = MemoryKv::new();
            let mut model = BTreeMap::new();
            for change in &base {
                change_model(&mut model, change);
            }
            store.write(base).unwrap();
            let mut overlay = Overlay::new(&store);
            // Part of them by way of overlays over this one.
            for part in own.chunks(7) {
                for change in part {
                    change_model(&mut model, change);
                }
                let mut above = Overlay::new(&overlay);
                above.absorb(part.to_vec());
                let changes = above.into_batch();
                overlay.absorb(changes);
            }
            let scan = Scan { from, to, is_reverse, rows_max };
            let mut expected: Vec<_> = model.iter().filter(|(key, _)| scan.contains(key))
                .map(|(key, value)| (key.clone(), value.clone())).collect();
            if is_reverse {
                expected.reverse();
            }
            expected.truncate(rows_max);
            assert_eq!(overlay.scan(&scan).unwrap(), expected);
            for key in model.keys() {
                assert_eq!(overlay.get(key).unwrap().as_ref(), model.get(key));
            }
            let batch = overlay.into_batch();
            store.write(batch).unwrap();
            let rows: BTreeMap<_, _> = store.scan(&Scan::prefix(b"", usize::MAX)).unwrap().into_iter().collect();
            assert_eq!(rows, model);
        }
    }
}
