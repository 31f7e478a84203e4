//! The ordered key-value seam: what the place index and the metadata state stand on.
//!
//! Two implementations, RocksDB and memory, pass one conformance suite. Calls block; they are short (a cached read, a buffered
//! write) except `sync` and scans, which callers run off the async threads.
//! Invariants: a batch is all or nothing; after a power cut, or when the process is killed, the state is that of some prefix of the
//! written batches, and every batch before the last successful `sync` is in it.
//! Not here: who may lose its tail. What must not is in a journal.

use bytes::Bytes;
use std::ops::Bound;

/// Why a store failed. All of them are final for the store: it is closed and reported.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// The operating system or RocksDB refused; holds what it said.
    #[error("access key-value store: {0}")]
    Io(String),
    /// Stored bytes fail their check.
    #[error("read key-value store: damaged: {0}")]
    Corrupt(String),
    /// An earlier failed write or sync has closed the store for writing; holds what the store said then.
    #[error("write key-value store: read-only since: {0}")]
    ReadOnly(String),
    /// Another process, or this one, has the store open already; holds the lock's refusal.
    #[error("open key-value store: in use: {0}")]
    Locked(String),
}

/// A range of keys with a direction and a bound on the answer.
#[derive(Clone, Debug)]
pub struct Scan {
    /// First key.
    pub from: Bound<Bytes>,
    /// Last key.
    pub to: Bound<Bytes>,
    /// From the greatest key downwards.
    pub is_reverse: bool,
    /// Most rows of the answer.
    pub rows_max: usize,
}

impl Scan {
    /// All keys that begin with `prefix`, at most `rows_max` of them, upwards.
    #[must_use]
    pub fn prefix(prefix: &[u8], rows_max: usize) -> Self {
        let to = match prefix_end(prefix) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        Self {
            from: Bound::Included(Bytes::copy_from_slice(prefix)),
            to,
            is_reverse: false,
            rows_max,
        }
    }

    /// The same range from the greatest key downwards.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.is_reverse = true;
        self
    }

    /// Whether no key can lie in the range, as when it begins behind its end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, Bound::Excluded(to)) => to.is_empty(),
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to) | Bound::Included(to)) => from >= to,
        }
    }

    /// Whether `key` lies between the bounds.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let is_behind_from = match &self.from {
            Bound::Included(from) => key >= from.as_ref(),
            Bound::Excluded(from) => key > from.as_ref(),
            Bound::Unbounded => true,
        };
        let is_before_to = match &self.to {
            Bound::Included(to) => key <= to.as_ref(),
            Bound::Excluded(to) => key < to.as_ref(),
            Bound::Unbounded => true,
        };
        is_behind_from && is_before_to
    }

    /// What is left of the range, in its direction, behind `key`.
    #[must_use]
    pub fn continued(mut self, key: &[u8]) -> Self {
        let bound = Bound::Excluded(Bytes::copy_from_slice(key));
        if self.is_reverse {
            self.to = bound;
        } else {
            self.from = bound;
        }
        self
    }

    /// The same, beginning behind `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.from = Bound::Excluded(Bytes::copy_from_slice(key));
        self
    }
}

/// The first key behind all keys that begin with `prefix`; `None` when there is none (all bytes 0xff).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(Bytes::from(end))
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set a key.
    Put(Bytes, Bytes),
    /// Remove a key; no error when it is not there.
    Delete(Bytes),
    /// Remove all keys from the first (included) to the second (excluded).
    DeleteRange(Bytes, Bytes),
}

/// Changes that become visible together, applied in order.
pub type Batch = Vec<Change>;

/// Reads. A `&dyn KvRead` is either the live store or a snapshot of it.
pub trait KvRead: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;
    /// The rows of a range in its direction, at most `rows_max`.
    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError>;
}

/// A whole store.
pub trait Kv: KvRead + 'static {
    /// Applies a batch; visible on return, durable only after `sync`.
    fn write(&self, batch: Batch) -> Result<(), KvError>;
    /// Makes everything written before durable.
    fn sync(&self) -> Result<(), KvError>;
    /// The state at this instant, unchanged by later writes.
    fn snapshot(&self) -> Box<dyn KvRead + '_>;
    /// Bytes that are left on the disk under the store; `None` where there is no disk that could fill up.
    fn free_bytes(&self) -> Result<Option<u64>, KvError> {
        Ok(None)
    }
    /// Why the store takes no more writes until it is opened anew; `None` while it does.
    fn failure(&self) -> Option<String> {
        None
    }
}
