//! The fragment store of one disk: a handle, one writer thread, and readers that need neither.
//!
//! Place in the picture: `service` calls `FragmentStore`; the writer thread owns the `Core` and turns whatever arrived while one
//! sync ran into the next batch (group commit without waiting for company); reads go to the index and the segments directly.
//! Invariants: a positive answer to a write means synced; a write that was accepted is finished also when its caller went away;
//! the queue is bounded.
//! Reading order: `record`, `place_row`, `core`, `damaged`, `cells`, `writer`, `replay`, `compact`, `read`, `identity`.

pub(crate) mod cells;
pub(crate) mod compact;
pub(crate) mod core;
pub(crate) mod damaged;
mod error;
pub mod identity;
pub(crate) mod place_row;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod tally;
#[cfg(test)]
mod tests;
mod writer;

pub use compact::CompactionStep;
pub use error::StoreError;
pub use read::FragmentBytes;
pub use replay::OpenReport;

use self::core::{Core, Write, Written};
use self::read::{ReadFault, Reader};
use self::writer::{Request, drive_writer, run_writer};
use bytes::Bytes;
use codec::fragment::FragmentHeader;
use disk::{Disk, Place};
use kv::seam::{Change, Kv, Scan};
use model::id::{DiskId, Slot};
use model::inventory::CellName;
use model::layout::Row;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use model::time::BirthEpoch;
use protocol::node::{
    ByteRange, CELLS_SUMMED_MAX, CellFragments, DAMAGED_LISTED_MAX, Damage, DamagedFragment, DiskState, DiskStatus,
    FragmentSums, ListCells, RowsUpdate,
};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tally::Tally;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the writer: a second of small fragments on a slow disk. Guess.
const QUEUE_MAX: usize = 1024;
/// A disk with less free space than two segments is short: the reserve of compaction begins there.
const SHORT_SEGMENTS: u64 = 3;

/// How a store is kept.
#[derive(Clone)]
pub struct StoreOptions {
    /// Length of a segment in bytes.
    pub segment_bytes: u64,
    /// Longest batch in bytes.
    pub batch_bytes_max: usize,
    /// Gives the salts of segments, from the process's generator.
    pub next_salt: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Fragments on one disk; clones are the same store.
#[derive(Clone)]
pub struct FragmentStore {
    id: DiskId,
    disk: Arc<dyn Disk>,
    index: Arc<dyn Kv>,
    reader: Reader,
    tally: Arc<Tally>,
    requests: mpsc::Sender<Request>,
    segment_bytes: u64,
    /// Until somebody waits for its end; none where the world is simulated.
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// See `FragmentStore::hold`.
pub(crate) struct Hold {
    disk: Weak<dyn Disk>,
    index: Weak<dyn Kv>,
}

impl Hold {
    /// Whether the store, or a reader of it, lives.
    pub(crate) fn is_held(&self) -> bool {
        self.disk.strong_count() + self.index.strong_count() > 0
    }
}

impl FragmentStore {
    /// Opens the store of a disk whose identity was checked, replays its journal and starts its writer. Blocks. Where the world is
    /// simulated the writer is a task of the current runtime.
    ///
    /// Errors: the journal or the index cannot be read; nothing was removed then.
    pub fn open(
        id: DiskId,
        disk: Arc<dyn Disk>,
        index: Arc<dyn Kv>,
        options: &StoreOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let tally = Arc::new(Tally::default());
        let (core, report) = Core::open(Arc::clone(&disk), Arc::clone(&index), options, Arc::clone(&tally))?;
        // Read here, where an index whose rows fail their check can still be put aside.
        kept_rows(core.index.as_ref())?;
        let reader = core.reader();
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let batch_bytes_max = options.batch_bytes_max;
        let writer = if daemon::blocking::is_inline() {
            tokio::spawn(drive_writer(core, queue, batch_bytes_max, Arc::clone(&disk)));
            None
        } else {
            let thread = std::thread::Builder::new().name(format!("disk-{id}"));
            let started = thread.spawn(move || run_writer(core, queue, batch_bytes_max));
            Some(started.map_err(|error| StoreError::Fault(format!("start writer: {error}")))?)
        };
        let segment_bytes = options.segment_bytes;
        Ok((
            Self {
                id,
                disk,
                index,
                reader,
                tally,
                requests,
                segment_bytes,
                writer: Arc::new(Mutex::new(writer)),
            },
            report,
        ))
    }

    /// Stores a fragment; durable on return. `true` when it was there already, whole and the same.
    ///
    /// May be dropped midway: the fragment is stored nevertheless, or not at all.
    /// Errors: `OtherContent`, `Full`, `ReadOnly`, `WriteFailed` (perhaps stored), `Busy`, `Stopped`.
    pub async fn store(&self, header: FragmentHeader, payload: Bytes) -> Result<bool, StoreError> {
        let len_bytes = payload.len() as u64;
        match self.write(Write::Store { header, payload }).await? {
            Written::Repeated => {
                self.tally.repeats.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            _ => {
                self.tally.stores.fetch_add(1, Ordering::Relaxed);
                self.tally.stored_bytes.fetch_add(len_bytes, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    /// Removes a fragment by a tombstone, durable on return; `false` when it was not there. Drop and errors as `store`.
    pub async fn remove(&self, name: FragmentName) -> Result<bool, StoreError> {
        let removed = self.write(Write::Remove { name }).await? == Written::Removed;
        self.tally.removes.fetch_add(u64::from(removed), Ordering::Relaxed);
        Ok(removed)
    }

    /// The form of the fragment of this name when it is there, durable, and not known to be damaged.
    pub fn confirm(&self, name: &FragmentName) -> Result<Option<StripeForm>, StoreError> {
        self.reader.confirm(name)
    }

    /// Names of all fragments of a stripe on this disk.
    pub fn fragments_of(&self, profile: ProfileId, stripe: StripeId) -> Result<Vec<FragmentName>, StoreError> {
        self.reader.fragments_of(profile, stripe)
    }

    /// Up to `rows_max` names of fragments behind `after`, in their order.
    pub fn names_after(&self, after: Option<&FragmentName>, rows_max: usize) -> Result<Vec<FragmentName>, StoreError> {
        self.reader.names_after(after, rows_max)
    }

    /// Sums of the fragments of these slots by cell, behind `after`, each of what was born in the slot's epoch or before.
    ///
    /// Of stores and removals under way some may be in them; they follow from memory and cost no look into the index. May be dropped
    /// midway.
    /// Errors: `Bug`.
    pub async fn cell_sums(
        &self,
        slots: BTreeMap<Slot, BirthEpoch>,
        after: Option<CellName>,
    ) -> Result<FragmentSums, StoreError> {
        let tally = Arc::clone(&self.tally);
        // The lock is waited for behind the disk's writer, which no thread of the runtime should do.
        let told = daemon::blocking::run(move || tally.cells().sums(&slots, after, CELLS_SUMMED_MAX)).await;
        told.map_err(|error| StoreError::Bug(format!("sum cells: {error}")))
    }

    /// Names of fragments in some cells; what was born later than asked for is left out. Costs a walk through all that begin with the
    /// same bits, of which an answer takes a bounded part. May be dropped midway.
    ///
    /// Errors: `BadRange` when it is to go on outside of these cells; the index fails.
    pub async fn list_cells(&self, ask: ListCells) -> Result<CellFragments, StoreError> {
        let reader = self.reader.clone();
        let listed = daemon::blocking::run(move || reader.list_cells(&ask)).await;
        listed.map_err(|error| StoreError::Bug(format!("list cells: {error}")))?
    }

    /// Reads ranges of a fragment, checked; a damaged one is on the list when this returns `Damaged`. May be dropped midway.
    pub async fn read(&self, name: FragmentName, ranges: Vec<ByteRange>) -> Result<FragmentBytes, StoreError> {
        let reader = self.reader.clone();
        let result = daemon::blocking::run(move || reader.read(&name, &ranges)).await;
        match result.map_err(|error| StoreError::Bug(format!("read fragment: {error}")))? {
            Ok(bytes) => {
                self.tally.reads.fetch_add(1, Ordering::Relaxed);
                Ok(bytes)
            }
            Err(ReadFault::Store(error)) => Err(error),
            Err(ReadFault::Damaged { place, damage }) => self.report_damage(name, place, damage).await,
        }
    }

    /// Reads all of a fragment and checks it to the last byte and the hash; whole ones leave the damaged list.
    pub async fn scrub(&self, name: FragmentName) -> Result<(), StoreError> {
        let reader = self.reader.clone();
        let result = daemon::blocking::run(move || reader.check_whole(&name)).await;
        self.tally.scrubbed.fetch_add(1, Ordering::Relaxed);
        match result.map_err(|error| StoreError::Bug(format!("scrub fragment: {error}")))? {
            Ok(None) => Ok(()),
            Ok(Some(place)) => self.ask(|reply| Request::Whole(name, place, reply)).await,
            Err(ReadFault::Store(error)) => Err(error),
            Err(ReadFault::Damaged { place, damage }) => self.report_damage(name, place, damage).await,
        }
    }

    async fn report_damage<T>(&self, name: FragmentName, place: Place, damage: Damage) -> Result<T, StoreError> {
        let is_new = self.ask(|reply| Request::Damage(name, place, damage, reply)).await?;
        if is_new {
            tracing::error!(disk = %self.id, stripe = %name.stripe, index = name.index, ?damage, "fragment is damaged");
        }
        Err(if damage == Damage::Unreadable {
            StoreError::Fault("read failed".to_owned())
        } else {
            StoreError::Damaged
        })
    }

    /// One step of compaction at `now` of the running clock, with `limbo` as the time that a segment is kept.
    ///
    /// Errors: a read or write failed; everything is where it was and the step may be tried again.
    pub async fn compact(&self, now: Duration, limbo: Duration) -> Result<CompactionStep, StoreError> {
        let is_full = self.tally.is_full.load(Ordering::Relaxed);
        let free_bytes = self.disk.space().map_or(u64::MAX, |space| space.free_bytes);
        let is_short = is_full || free_bytes < SHORT_SEGMENTS * self.segment_bytes;
        self.ask(|reply| Request::Compact(now, limbo, is_short, reply)).await
    }

    /// Keeps rows of a layout, durable on return.
    pub async fn keep_rows(&self, profile: ProfileId, pg_bits: u8, rows: &[(u32, Row)]) -> Result<(), StoreError> {
        let mut batch = Vec::with_capacity(rows.len());
        for (pg, row) in rows {
            let value = place_row::encode(&place_row::LayoutRow {
                pg_bits,
                row: row.clone(),
            })?;
            batch.push(Change::Put(place_row::layout_row_key(profile, *pg), value));
        }
        self.ask(|reply| Request::Rows(batch, reply)).await
    }

    /// The rows that `keep_rows` kept, a table a profile; a table that is incomplete, or has a row that does not read, is left out,
    /// so that it is asked for again.
    ///
    /// Errors: the index fails.
    pub fn kept_rows(&self) -> Result<Vec<RowsUpdate>, StoreError> {
        kept_rows(self.index.as_ref())
    }

    /// The damaged list, at most `entries_max` of it.
    pub fn damaged(&self, entries_max: usize) -> Result<Vec<DamagedFragment>, StoreError> {
        damaged::damaged_list(self.index.as_ref(), entries_max)
    }

    /// The disk as the status tells it.
    #[must_use]
    pub fn status(&self) -> DiskStatus {
        let space = self.disk.space().ok();
        let damaged = self.damaged(DAMAGED_LISTED_MAX).unwrap_or_default();
        let state = match self.tally.read_only_cause() {
            Some(cause) => DiskState::ReadOnly(cause),
            None if self.tally.is_full.load(Ordering::Relaxed) => DiskState::Full,
            None => DiskState::Ready,
        };
        DiskStatus {
            disk: self.id,
            state,
            total_bytes: space.map_or(0, |space| space.total_bytes),
            free_bytes: space.map_or(0, |space| space.free_bytes),
            used_bytes: self.reader.used_bytes(),
            living_bytes: self.tally.living_bytes.load(Ordering::Relaxed),
            fragments: self.tally.fragments.load(Ordering::Relaxed),
            damaged_total: self.tally.damaged.load(Ordering::Relaxed),
            damaged,
            counters: self.tally.counters(),
        }
    }

    /// Living fragments on this disk.
    #[must_use]
    pub fn fragments(&self) -> u64 {
        self.tally.fragments.load(Ordering::Relaxed)
    }

    /// Payload bytes of fragments stored since the start.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.tally.stored_bytes.load(Ordering::Relaxed)
    }

    /// Counts a fragment rebuilt from others.
    pub fn note_repair(&self) {
        self.tally.repairs.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells whether anybody still holds the disk or its index, without being one who does.
    pub(crate) fn hold(&self) -> Hold {
        Hold {
            disk: Arc::downgrade(&self.disk),
            index: Arc::downgrade(&self.index),
        }
    }

    /// Ends the writer after what waits, and syncs the index. Later writes are `Stopped`. On return the writer holds nothing of the
    /// disk any more; whoever reads still does.
    pub async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::Stop(reply)).await.is_ok() {
            // The writer ends right after answering; an error means that it ended before.
            let _ = done.await;
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && !matches!(tokio::task::spawn_blocking(|| writer.join()).await, Ok(Ok(())))
        {
            tracing::error!(disk = %self.id, "the disk's writer panicked");
        }
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .try_send(Request::Write(write, reply))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
            })?;
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| StoreError::Stopped)?;
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }
}

fn kept_rows(index: &dyn Kv) -> Result<Vec<RowsUpdate>, StoreError> {
    let mut updates = Vec::new();
    for profile in ProfileId::ALL {
        let scan = Scan::prefix(&place_row::layout_prefix(profile), 1 << model::layout::PG_BITS_MAX);
        let mut rows = Vec::new();
        let mut pg_bits = 0;
        for (key, value) in index.scan(&scan)? {
            let kept = place_row::decode::<place_row::LayoutRow>(&value);
            let (Ok(kept), Some(pg)) = (kept, place_row::pg_of(&key)) else {
                tracing::warn!(%profile, "a kept row does not read");
                continue;
            };
            pg_bits = pg_bits.max(kept.pg_bits);
            rows.push((pg, kept));
        }
        let is_whole = !rows.is_empty() && rows.len() == 1 << pg_bits;
        if is_whole && rows.iter().all(|(_, kept)| kept.pg_bits == pg_bits) {
            let rows = rows.into_iter().map(|(pg, kept)| (pg, kept.row)).collect();
            updates.push(RowsUpdate { profile, pg_bits, rows });
        }
    }
    Ok(updates)
}
