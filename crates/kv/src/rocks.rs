//! The seam over RocksDB: one database per store, no column families, keys told apart by their prefixes.
//!
//! Invariants: recovery is point-in-time, so that after a power cut or a kill the state is a prefix of the written batches; writes reach
//! the operating system by the megabyte, and all of them it and the disk with `sync`; RocksDB's own lock file keeps a second opener out.
//! Not here: what may be lost. Whoever cannot lose a tail keeps a journal.

use crate::seam::{Batch, Change, Kv, KvError, KvRead, Scan};
use bytes::Bytes;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Env, Error, ErrorKind,
    Options, ReadOptions, Snapshot, WriteBatch, WriteBufferManager,
};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bits of Bloom filter a key: one false positive in a hundred, RocksDB's own recommendation.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A part of a filter or index: RocksDB's own recommendation, the size of a data block.
const METADATA_BLOCK_BYTES: usize = 4096;
/// Files that one store keeps open: a bound on descriptors and on the table readers' memory. A guess.
const FILES_OPEN_MAX: i32 = 512;
/// After so much of a table is written the kernel is asked to write it out. Whole tables of 64 MiB at once would stand before the
/// journal's syncs in the disk's queue. RocksDB's own recommendation.
const WRITE_OUT_BYTES: u64 = 1 << 20;
/// RocksDB's own log files that are kept for an operator.
const LOG_FILES_MAX: usize = 4;

/// What all stores of a process share: one cache, one bound on write buffers, one environment with its background threads.
#[derive(Clone)]
pub struct RocksBudget {
    cache: Cache,
    write_buffers: WriteBufferManager,
    env: Env,
}

impl RocksBudget {
    /// A cache of `cache_bytes` and write buffers of at most `write_buffer_bytes`, both over all stores together.
    ///
    /// # Errors
    /// `Io` when RocksDB gives no environment.
    pub fn new(cache_bytes: usize, write_buffer_bytes: usize) -> Result<Self, KvError> {
        let mut env = Env::new().map_err(typed)?;
        // Compaction comes in bursts of seconds, at about the same time in all replicas of a group, and can wait: users' commands go
        // first. Flushes, which commands may have to wait for, have threads of their own and keep their priority.
        env.lower_thread_pool_cpu_priority();
        Ok(Self {
            cache: Cache::new_lru_cache(cache_bytes),
            // Stalling would block a group's apply on another store's flush; a flush is asked for instead.
            write_buffers: WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false),
            env,
        })
    }
}

/// A store in a directory of its own.
pub struct RocksKv {
    db: DB,
    dir: PathBuf,
    /// What the first write or sync that failed said, unless it was about damage.
    failure: OnceLock<String>,
}

impl RocksKv {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// `Locked` when it is open already, `Corrupt` when its files fail their checks, `Io` else.
    pub fn open(dir: &Path, budget: &RocksBudget) -> Result<Self, KvError> {
        let db = DB::open(&options(budget), dir).map_err(|error| {
            let text = error.to_string();
            if text.contains("lock") && error.kind() == ErrorKind::IOError {
                KvError::Locked(text)
            } else {
                typed(error)
            }
        })?;
        Ok(Self {
            db,
            dir: dir.to_owned(),
            failure: OnceLock::new(),
        })
    }

    /// Notes a failure to write: from then on the store has less than it was given, until it is opened anew.
    fn noted(&self, done: Result<(), Error>) -> Result<(), KvError> {
        done.map_err(typed).inspect_err(|error| {
            // Damage is not mended by opening it again.
            if !matches!(error, KvError::Corrupt(_)) {
                drop(self.failure.set(error.to_string()));
            }
        })
    }
}

fn options(budget: &RocksBudget) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&budget.cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    // Filters and indexes in parts: a whole filter of a large table is bigger than a shard of the cache, so it would be read anew,
    // megabytes of it, for every key that is not there. Measured at 1,000,000 children of a folder: over 500 us of CPU a command
    // without this, 70 us with it (example `children` of metadata-raft).
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_BYTES);
    table.set_pin_top_level_index_and_filter(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // The log of writes is handed to the system by `sync`, when a megabyte has come together, and at the close: otherwise each batch
    // is a system call that changes a file's length, beside journals that wait for the same file system. Whoever must not lose its tail
    // keeps a journal (`seam`), so a killed process loses what a power cut could take anyway, and never from the middle.
    options.set_manual_wal_flush(true);
    options.set_env(&budget.env);
    options.set_write_buffer_manager(&budget.write_buffers);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(FILES_OPEN_MAX);
    options.set_bytes_per_sync(WRITE_OUT_BYTES);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options
}

/// A failure in the seam's terms. RocksDB goes read-only after a background error and says so with an incomplete or aborted status.
fn typed(error: Error) -> KvError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => KvError::Corrupt(text),
        ErrorKind::Aborted | ErrorKind::ShutdownInProgress => KvError::ReadOnly(text),
        _ => KvError::Io(text),
    }
}

/// The lower (included) and upper (excluded) bound of a scan: what RocksDB's iterators take.
fn bounds(scan: &Scan) -> (Vec<u8>, Option<Vec<u8>>) {
    let behind = |key: &Bytes| {
        let mut next = key.to_vec();
        next.push(0);
        next
    };
    let lower = match &scan.from {
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => behind(key),
        Bound::Unbounded => Vec::new(),
    };
    let upper = match &scan.to {
        Bound::Included(key) => Some(behind(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    (lower, upper)
}

fn read_options(scan: &Scan) -> ReadOptions {
    let mut options = ReadOptions::default();
    let (lower, upper) = bounds(scan);
    options.set_iterate_lower_bound(lower);
    if let Some(upper) = upper {
        options.set_iterate_upper_bound(upper);
    }
    options
}

macro_rules! read_rows {
    ($source:expr, $scan:expr) => {{
        let scan: &Scan = $scan;
        if scan.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        let mut iterator = $source.raw_iterator_opt(read_options(scan));
        if scan.is_reverse {
            iterator.seek_to_last()
        } else {
            iterator.seek_to_first()
        }
        while rows.len() < scan.rows_max {
            let Some((key, value)) = iterator.item() else { break };
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if scan.is_reverse {
                iterator.prev()
            } else {
                iterator.next()
            }
        }
        iterator.status().map_err(typed)?;
        Ok(rows)
    }};
}

impl KvRead for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.db.get(key).map_err(typed)?.map(Bytes::from))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        read_rows!(self.db, scan)
    }
}

impl Kv for RocksKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut writes = WriteBatch::default();
        for change in batch {
            match change {
                Change::Put(key, value) => writes.put(key, value),
                Change::Delete(key) => writes.delete(key),
                Change::DeleteRange(from, to) if from < to => writes.delete_range(from, to),
                Change::DeleteRange(..) => {}
            }
        }
        self.noted(self.db.write(writes))
    }

    fn sync(&self) -> Result<(), KvError> {
        self.noted(self.db.flush_wal(true))
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        Box::new(RocksSnapshot {
            snapshot: self.db.snapshot(),
        })
    }

    fn free_bytes(&self) -> Result<Option<u64>, KvError> {
        let found = rustix::fs::statvfs(&self.dir);
        let found = found.map_err(|error| KvError::Io(format!("{}: {error}", self.dir.display())))?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}

struct RocksSnapshot<'a> {
    snapshot: Snapshot<'a>,
}

impl KvRead for RocksSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.snapshot.get(key).map_err(typed)?.map(Bytes::from))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        read_rows!(self.snapshot, scan)
    }
}

#[cfg(test)]
mod tests {
    use super::{RocksBudget, RocksKv};
    use crate::conformance;
    use crate::seam::{Change, Kv, KvError, KvRead};
    use bytes::Bytes;

    fn budget() -> RocksBudget {
        RocksBudget::new(8 << 20, 8 << 20).unwrap()
    }

    #[test]
    fn rocksdb_passes_the_suite() {
        let budget = budget();
        let dir = tempfile::tempdir().unwrap();
        let mut stores = 0;
        conformance::check_all(&mut || {
            stores += 1;
            Box::new(RocksKv::open(&dir.path().join(stores.to_string()), &budget).unwrap())
        });
    }

    #[test]
    fn a_second_opener_is_refused_while_the_first_lives() {
        let dir = tempfile::tempdir().unwrap();
        let budget = budget();
        let first = RocksKv::open(dir.path(), &budget).unwrap();
        assert!(matches!(RocksKv::open(dir.path(), &budget), Err(KvError::Locked(_))));
        drop(first);
        RocksKv::open(dir.path(), &budget).unwrap();
    }

    #[test]
    fn a_store_tells_what_its_disk_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = RocksKv::open(dir.path(), &budget()).unwrap();
        let whole = rustix::fs::statvfs(dir.path()).unwrap();
        let free_bytes = store.free_bytes().unwrap().unwrap();
        assert!(free_bytes > 0 && free_bytes <= whole.f_blocks * whole.f_frsize);
        assert_eq!(store.failure(), None);
    }

    #[test]
    fn what_was_synced_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let budget = budget();
        let key = Bytes::from_static(b"key");
        let store = RocksKv::open(dir.path(), &budget).unwrap();
        store
            .write(vec![Change::Put(key.clone(), Bytes::from_static(b"value"))])
            .unwrap();
        store.sync().unwrap();
        drop(store);
        let store = RocksKv::open(dir.path(), &budget).unwrap();
        assert_eq!(store.get(&key).unwrap().as_deref(), Some(b"value".as_slice()));
    }

    #[test]
    fn what_was_not_synced_is_there_after_a_close_and_gone_from_the_end_alone_before() {
        let dir = tempfile::tempdir().unwrap();
        let budget = budget();
        let number = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        let whole = dir.path().join("whole");
        let store = RocksKv::open(&whole, &budget).unwrap();
        for written in 0..1_000_u32 {
            store
                .write(vec![Change::Put(number(written), number(written))])
                .unwrap();
            if written == 500 {
                store.sync().unwrap();
            }
        }
        // The files as a killed process leaves them: what the system was given.
        let killed = dir.path().join("killed");
        std::fs::create_dir(&killed).unwrap();
        for file in std::fs::read_dir(&whole).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), killed.join(file.file_name())).unwrap();
        }
        let store_after = |dir: &std::path::Path| {
            let store = RocksKv::open(dir, &budget).unwrap();
            let has = |written: u32| store.get(&number(written)).unwrap() == Some(number(written));
            let kept = (0..1_000).find(|written| !has(*written)).unwrap_or(1_000);
            assert!((kept..1_000).all(|written| !has(written)), "a hole behind {kept}");
            kept
        };
        let kept = store_after(&killed);
        assert!(kept > 500, "what was synced is gone: {kept}");
        assert!(kept < 1_000, "each batch was handed over by itself");
        drop(store);
        assert_eq!(store_after(&whole), 1_000);
    }

    #[test]
    fn a_damaged_manifest_is_told_as_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let budget = budget();
        drop(RocksKv::open(dir.path(), &budget).unwrap());
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST") {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[8] ^= 0xff;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        assert!(matches!(RocksKv::open(dir.path(), &budget), Err(KvError::Corrupt(_))));
    }
}
