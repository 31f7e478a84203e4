//! A replica's store under observation: after each batch the oracle is told which state each group has at which index, and of marks and
//! installed snapshots.
//!
//! The hash of a state is the sum of its rows' hashes, so that a batch changes it by what it changes and the whole is read only
//! once a life. Rows are hashed without the number of their install: a state that came by a snapshot is the same state.
//! Invariant: of a state that is being received nothing is told before the group's record names it.
//! Not here: what must hold of the hashes (`oracle::raft`).

use crate::oracle::raft::RaftOracle;
use crate::world::trace::{Kind, Trace};
use bytes::Bytes;
use kv::memory::MemoryKv;
use kv::seam::{Batch, Change, Kv, KvError, KvRead, Scan};
use metadata_raft::raft::stored_state::{APPLIED_KEY, GroupRecord, read_applied, read_group};
use model::id::{GroupId, RaftId};
use model::process::ProcessId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

/// Group and install before every key of a state.
const PREFIX_BYTES: usize = 8;

/// The hash of a group's state by (group, install).
type Hashes = BTreeMap<(u32, u32), u128>;

/// The store of one life of a replica.
pub struct ObservedKv {
    process: ProcessId,
    store: Arc<MemoryKv>,
    oracle: RaftOracle,
    trace: Trace,
    hashes: Mutex<Hashes>,
}

fn prefix_of(key: &[u8]) -> Option<(u32, u32)> {
    let (prefix, _) = key.split_first_chunk::<PREFIX_BYTES>()?;
    let [a, b, c, d, e, f, g, h] = *prefix;
    let install = u32::from_be_bytes([e, f, g, h]);
    // Install 0 holds what a replica notes for itself.
    (install > 0).then_some((u32::from_be_bytes([a, b, c, d]), install))
}

/// The group whose record has this key.
fn group_of_record(key: &[u8]) -> Option<GroupId> {
    let (group, install) = key.split_first_chunk::<4>()?;
    (install == [0_u8; 4]).then_some(GroupId(u32::from_be_bytes(*group)))
}

/// Of a row of a state, group and install before its key.
fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    let key = &key[PREFIX_BYTES..];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

impl ObservedKv {
    /// Observes `store`, whose rows are read once here.
    #[must_use]
    pub fn new(process: ProcessId, store: Arc<MemoryKv>, oracle: RaftOracle, trace: Trace) -> Self {
        let mut hashes = Hashes::new();
        for (key, value) in rows_of(store.as_ref(), Bound::Unbounded, Bound::Unbounded) {
            add(&mut hashes, &key, &value);
        }
        Self {
            process,
            store,
            oracle,
            trace,
            hashes: Mutex::new(hashes),
        }
    }

    /// Follows `batch` in the hashes; `rows` are those that it wrote or removed so far, which the store does not show yet.
    fn follow(&self, hashes: &mut Hashes, batch: &Batch) -> Result<(), KvError> {
        let mut rows: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        for change in batch {
            let (doomed, new) = match change {
                Change::Put(key, value) => (vec![key.clone()], Some(value)),
                Change::Delete(key) => (vec![key.clone()], None),
                Change::DeleteRange(from, to) => (self.keys_between(&rows, from, to), None),
            };
            for key in doomed {
                let old = match rows.get(&key) {
                    Some(old) => old.clone(),
                    None => self.store.get(&key)?,
                };
                if let Some(old) = old {
                    take(hashes, &key, &old);
                }
                if let Some(new) = new {
                    add(hashes, &key, new);
                }
                rows.insert(key, new.cloned());
            }
        }
        Ok(())
    }

    fn keys_between(&self, rows: &BTreeMap<Bytes, Option<Bytes>>, from: &Bytes, to: &Bytes) -> Vec<Bytes> {
        if from >= to {
            return Vec::new();
        }
        let bounds = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
        let stored = rows_of(self.store.as_ref(), bounds.0.clone(), bounds.1.clone());
        let mut keys: BTreeSet<Bytes> = stored.into_iter().map(|(key, _)| key).collect();
        keys.extend(rows.range(bounds).map(|(key, _)| key.clone()));
        keys.into_iter().collect()
    }

    /// Tells of a mark or an install by what a group's record says now.
    fn tell_of_record(&self, hashes: &Hashes, group: GroupId, before: &GroupRecord) -> Result<(), KvError> {
        let now = read_group(self.store.as_ref(), group)?;
        if now.install != before.install {
            self.oracle.installed();
            self.tell(hashes, (group.0, now.install))?;
        } else if now.mark != before.mark {
            self.oracle.marked();
        }
        Ok(())
    }

    fn is_current(&self, (group, install): (u32, u32)) -> Result<bool, KvError> {
        Ok(read_group(self.store.as_ref(), GroupId(group))?.install == install)
    }

    fn tell(&self, hashes: &Hashes, (group, install): (u32, u32)) -> Result<(), KvError> {
        let applied = read_applied(self.store.as_ref(), GroupId(group), install)?;
        let Some(last) = applied.last else { return Ok(()) };
        let hash = hashes.get(&(group, install)).copied().unwrap_or_default();
        self.trace.note(
            Kind::State,
            self.process,
            format_args!("group {group} at {}/{} is {hash:032x}", last.term, last.index),
        );
        let replica = RaftId(self.process.number);
        self.oracle
            .applied(GroupId(group), replica, (last.term, last.index), hash);
        Ok(())
    }
}

fn rows_of(store: &MemoryKv, from: Bound<Bytes>, to: Bound<Bytes>) -> Vec<(Bytes, Bytes)> {
    let scan = Scan {
        from,
        to,
        is_reverse: false,
        rows_max: usize::MAX,
    };
    store.scan(&scan).expect("a store in memory has nothing to fail at")
}

fn add(hashes: &mut Hashes, key: &[u8], value: &[u8]) {
    if let Some(prefix) = prefix_of(key) {
        let hash = hashes.entry(prefix).or_default();
        *hash = hash.wrapping_add(row_hash(key, value));
    }
}

fn take(hashes: &mut Hashes, key: &[u8], value: &[u8]) {
    if let Some(prefix) = prefix_of(key) {
        let hash = hashes.entry(prefix).or_default();
        *hash = hash.wrapping_sub(row_hash(key, value));
    }
}

impl KvRead for ObservedKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.store.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.store.scan(scan)
    }
}

impl Kv for ObservedKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut hashes, &batch)?;
        let is_applied = |key: &Bytes| key.get(PREFIX_BYTES..) == Some(&APPLIED_KEY[..]);
        let moved = batch.iter().filter_map(|change| match change {
            Change::Put(key, _) if is_applied(key) => prefix_of(key),
            _ => None,
        });
        let moved: BTreeSet<(u32, u32)> = moved.collect();
        let recorded = batch.iter().filter_map(|change| match change {
            Change::Put(key, _) => group_of_record(key),
            _ => None,
        });
        let read = |group: GroupId| -> Result<(GroupId, GroupRecord), KvError> {
            Ok((group, read_group(self.store.as_ref(), group)?))
        };
        let before = recorded.map(read).collect::<Result<Vec<_>, _>>()?;
        self.store.write(batch)?;
        for prefix in moved {
            if self.is_current(prefix)? {
                self.tell(&hashes, prefix)?;
            }
        }
        for (group, before) in before {
            self.tell_of_record(&hashes, group, &before)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), KvError> {
        self.store.sync()
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        self.store.snapshot()
    }
}
