//! The log of all groups of a process over one ordered stream, as openraft wants it.
//!
//! Invariants: memory changes and stream submissions happen under one lock, so that their orders agree; openraft is told "flushed"
//! only for what is synced, in the order of submission; after a stream failure every call fails.
//! The committed position rides with the next submission of its group: saving it alone would cost a sync a commit, and losing it
//! costs nothing that `wait_for_recovery` does not give back.
//! Not here: the rules of one log (`group_log`), bytes (`record`), when to purge (`group`).

use crate::raft::group_log::{GroupLog, LogFault, Submitted};
use crate::raft::record::{LogChange, LogRecord, RecordError, StoredEntry, StoredLogId, StoredVote};
use crate::raft::stream::{LogStream, StreamError};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::raft::unsynced::Unsynced;
use bytes::Bytes;
use disk::{Place, SegmentNumber};
use model::id::GroupId;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Entries are split into records of about this many bytes, well below the journal's batch of 8 MiB.
const RECORD_BYTES_MAX: usize = 2 << 20;
/// Entries that one append to a follower carries, in bytes, unless one alone is larger.
const APPEND_BYTES_MAX: usize = 2 << 20;
/// Contents of entries that all groups together keep in memory, in bytes. A guess: some seconds of writing.
pub const TAIL_BYTES_MAX: usize = 64 << 20;
/// Times that a reader looks a place up again when a segment was let go in between.
const READ_TRIES_MAX: usize = 3;

/// Why the log cannot be used; all final for the process's replicas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The stream below failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A record is not one of ours.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The records of a group do not make a log.
    #[error("raft log of group {group}: {fault}")]
    Fault {
        /// Whose.
        group: GroupId,
        /// What is wrong.
        fault: LogFault,
    },
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        io::Error::other(error)
    }
}

#[derive(Default)]
struct Groups {
    logs: BTreeMap<GroupId, GroupLog>,
    /// Committed positions that wait for their group's next submission.
    unsaved: BTreeMap<GroupId, Option<StoredLogId>>,
    fault: Option<LogError>,
}

/// The log of all groups of a process.
pub struct RaftLog {
    stream: Arc<dyn LogStream>,
    groups: Mutex<Groups>,
    unsynced: Arc<Unsynced>,
}

/// Reads a log back from its records.
#[derive(Default)]
pub struct Replay {
    groups: Groups,
}

impl Replay {
    /// Takes the next record, in the order of the stream.
    ///
    /// # Errors
    /// When the record is not ours or does not fit: the replica must not run.
    pub fn push(&mut self, place: Place, payload: &[u8]) -> Result<(), LogError> {
        let (group, change) = LogRecord::decode(payload)?;
        let log = self.groups.logs.entry(group).or_default();
        log.apply(change, Some(place))
            .map_err(|fault| LogError::Fault { group, fault })?;
        self.groups.forget();
        Ok(())
    }

    /// The log, checked whole.
    ///
    /// # Errors
    /// When a group's records leave a hole.
    pub fn finish(self, stream: Arc<dyn LogStream>) -> Result<Arc<RaftLog>, LogError> {
        for (group, log) in &self.groups.logs {
            log.check().map_err(|fault| LogError::Fault { group: *group, fault })?;
        }
        Ok(Arc::new(RaftLog {
            stream,
            groups: Mutex::new(self.groups),
            unsynced: Arc::default(),
        }))
    }
}

impl Groups {
    /// Drops contents of old synced entries until the budget holds.
    fn forget(&mut self) {
        let mut excess = self
            .logs
            .values()
            .map(GroupLog::bytes_in_memory)
            .sum::<usize>()
            .saturating_sub(TAIL_BYTES_MAX);
        for log in self.logs.values_mut() {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(log.forget(excess));
        }
    }

    fn completed(&mut self, group: GroupId, submitted: &[Submitted], places: Result<&[Place], &StreamError>) {
        match places {
            Ok(places) => {
                let log = self.logs.entry(group).or_default();
                for (submitted, place) in submitted.iter().zip(places) {
                    log.note_place(submitted, *place);
                }
                self.forget();
            }
            Err(error) => {
                self.fault.get_or_insert(LogError::Stream(error.clone()));
            }
        }
    }
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

impl RaftLog {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// openraft's storage of one group.
    #[must_use]
    pub fn store_of(self: &Arc<Self>, group: GroupId) -> GroupLogStore {
        GroupLogStore {
            log: Arc::clone(self),
            group,
        }
    }

    /// Position up to which a group's log was purged, `None` when it never was.
    #[must_use]
    pub fn purged(&self, group: GroupId) -> Option<StoredLogId> {
        self.lock().logs.get(&group).and_then(|log| log.purged)
    }

    /// Drops the entries of a group that contradict its `applied` state, and waits until that is durable. openraft truncates such
    /// entries before it installs a snapshot, but a state is durable by itself, so a power cut may have taken the truncation alone;
    /// openraft refuses what is then found. From `applied` on, entries of an earlier term than its own were never committed.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn drop_contradicted(self: &Arc<Self>, group: GroupId, applied: StoredLogId) -> io::Result<()> {
        let contradicted = |log: &GroupLog| {
            let last = log.last()?;
            (last < applied && last.index >= applied.index).then(|| log.last_before(applied.index))
        };
        let Some(kept) = self.lock().logs.get(&group).and_then(contradicted) else {
            return Ok(());
        };
        tracing::warn!(%group, ?applied, ?kept, "entries that an installed snapshot contradicts are dropped");
        self.submit_and_wait(group, vec![LogChange::Truncate(kept)]).await
    }

    /// Why the log stopped, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<LogError> {
        self.lock().fault.clone()
    }

    /// What was submitted and is not synced.
    #[must_use]
    pub fn unsynced(&self) -> &Arc<Unsynced> {
        &self.unsynced
    }

    /// Makes changes in memory and submits them; `done` comes once they are synced.
    fn submit(self: &Arc<Self>, group: GroupId, mut changes: Vec<LogChange>, done: Done) -> Result<(), LogError> {
        let mut groups = self.lock();
        if let Some(fault) = &groups.fault {
            return Err(fault.clone());
        }
        if let Some(committed) = groups.unsaved.remove(&group) {
            changes.push(LogChange::Committed(committed));
        }
        let mut records = Vec::with_capacity(changes.len());
        for change in &changes {
            records.push(LogRecord::new(group, change.clone()).encode()?);
        }
        let submitted: Vec<Submitted> = changes.iter().map(Submitted::of).collect();
        let log = groups.logs.entry(group).or_default();
        for change in changes {
            log.apply(change, None)
                .map_err(|fault| LogError::Fault { group, fault })?;
        }
        self.send(group, records, submitted, done);
        Ok(())
    }

    /// Hands records to the stream. The caller holds the lock, which keeps the orders of memory and stream equal.
    fn send(self: &Arc<Self>, group: GroupId, records: Vec<Bytes>, submitted: Vec<Submitted>, done: Done) {
        let log = Arc::clone(self);
        let bytes: usize = records.iter().map(Bytes::len).sum();
        self.unsynced.add(bytes);
        let completed = move |places: Result<Vec<Place>, StreamError>| {
            log.lock().completed(group, &submitted, places.as_deref());
            log.unsynced.take(bytes);
            done(places.map(drop).map_err(|error| LogError::from(error).into()));
        };
        self.stream.submit(records, Box::new(completed));
    }

    async fn submit_and_wait(self: &Arc<Self>, group: GroupId, changes: Vec<LogChange>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.submit(group, changes, Box::new(move |result| drop(sender.send(result))))?;
        receiver.await.map_err(|_| io::Error::other("raft log stopped"))?
    }

    /// Makes the committed positions durable that still wait for company; a planned stop does so.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn flush(self: &Arc<Self>) -> io::Result<()> {
        let waiting: Vec<GroupId> = self.lock().unsaved.keys().copied().collect();
        for group in waiting {
            self.submit_and_wait(group, Vec::new()).await?;
        }
        Ok(())
    }

    /// Lets old segments go, all but the newest `kept` of the full ones; what groups still need of them is copied forward first, unless
    /// the disk is full: then only what nobody needs goes.
    /// Returns how many went. Must not be called twice at the same time.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn release_segments(self: &Arc<Self>, kept: usize) -> io::Result<usize> {
        let mut closed = self.stream.closed_segments();
        closed.truncate(closed.len().saturating_sub(kept));
        let Some(newest) = closed.last().copied() else {
            return Ok(0);
        };
        // Before anything is written: where the disk is full this may be what makes room.
        let mut released = self.release_unneeded(&closed).await?;
        if self.stream.is_held() {
            // What is carried forward would wait, and with it the next marks and all that they let go.
            return Ok(released);
        }
        let behind: Vec<GroupId> = {
            let groups = self.lock();
            let needs = |log: &GroupLog| log.oldest_segment().is_some_and(|oldest| oldest <= newest);
            groups
                .logs
                .iter()
                .filter(|(_, log)| needs(log))
                .map(|(group, _)| *group)
                .collect()
        };
        for group in behind {
            self.carry_forward(group).await?;
        }
        released += self.release_unneeded(&closed[released..]).await?;
        Ok(released)
    }

    /// Lets go of the first of `closed` that no group needs; returns how many went.
    async fn release_unneeded(&self, closed: &[SegmentNumber]) -> io::Result<usize> {
        let oldest_needed = self.lock().logs.values().filter_map(GroupLog::oldest_segment).min();
        let mut released = 0;
        // Oldest first: a crash in between leaves a stream that begins later, never one with a gap.
        for segment in closed
            .iter()
            .take_while(|segment| oldest_needed.is_none_or(|oldest| **segment < oldest))
        {
            self.stream.release(*segment).await.map_err(LogError::from)?;
            released += 1;
        }
        Ok(released)
    }

    /// Writes a group's facts and entries once more, at the end of the stream. Memory is changed only by the new places.
    async fn carry_forward(self: &Arc<Self>, group: GroupId) -> io::Result<()> {
        let entries = self.stored_entries(group, 0, u64::MAX, usize::MAX).await?;
        let (sender, receiver) = oneshot::channel();
        {
            let groups = self.lock();
            let Some(log) = groups.logs.get(&group) else {
                return Ok(());
            };
            // What was truncated or purged meanwhile must not come back.
            let is_there = |entry: &StoredEntry| {
                let index = entry.log_id.index;
                log.range(index, index + 1).any(|slot| slot.log_id == entry.log_id)
            };
            let entries: Vec<StoredEntry> = entries.into_iter().filter(is_there).collect();
            let facts = LogChange::Carried {
                vote: log.vote,
                purged: log.purged,
                committed: log.committed,
            };
            let mut changes = vec![facts];
            changes.extend(split(entries).into_iter().map(LogChange::CarriedEntries));
            let mut records = Vec::with_capacity(changes.len());
            for change in &changes {
                records.push(LogRecord::new(group, change.clone()).encode().map_err(LogError::from)?);
            }
            let submitted = changes.iter().map(Submitted::of).collect();
            self.send(
                group,
                records,
                submitted,
                Box::new(move |result| drop(sender.send(result))),
            );
        }
        receiver.await.map_err(|_| io::Error::other("raft log stopped"))?
    }

    /// Entries from `from` to `to` (excluded), at most `bytes_max` of them but at least one, from memory or from the stream.
    async fn stored_entries(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<StoredEntry>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let wanted: Vec<(StoredLogId, Option<StoredEntry>, Option<Place>)> = {
                let groups = self.lock();
                let slots = groups.logs.get(&group).into_iter().flat_map(|log| log.range(from, to));
                let mut bytes = 0;
                slots
                    .take_while(|slot| {
                        let is_within = bytes < bytes_max;
                        let len = slot.place.map_or(0, |place| place.len_bytes as usize);
                        bytes += slot.entry.as_ref().map_or(len, StoredEntry::len_bytes);
                        is_within
                    })
                    .map(|slot| (slot.log_id, slot.entry.clone(), slot.place))
                    .collect()
            };
            if wanted.iter().all(|(_, entry, _)| entry.is_some()) {
                return Ok(wanted.into_iter().filter_map(|(_, entry, _)| entry).collect());
            }
            let stream = Arc::clone(&self.stream);
            let read = daemon::blocking::run(move || read_missing(stream.as_ref(), wanted));
            match read.await.map_err(io::Error::other)? {
                Err(LogError::Stream(StreamError::NotFound)) if tries < READ_TRIES_MAX => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Fills in contents from the stream; neighbours mostly lie in one record, which is read once.
fn read_missing(
    stream: &dyn LogStream,
    wanted: Vec<(StoredLogId, Option<StoredEntry>, Option<Place>)>,
) -> Result<Vec<StoredEntry>, LogError> {
    let mut last: Option<(Place, Vec<StoredEntry>)> = None;
    let mut entries = Vec::with_capacity(wanted.len());
    for (log_id, entry, place) in wanted {
        if let Some(entry) = entry {
            entries.push(entry);
            continue;
        }
        let place = place.ok_or(StreamError::NotFound)?;
        if last.as_ref().is_none_or(|(at, _)| *at != place) {
            last = Some((place, entries_of(&stream.read(&place)?)?));
        }
        let found = last
            .iter()
            .flat_map(|(_, entries)| entries)
            .find(|entry| entry.log_id == log_id);
        let found = found.ok_or_else(|| RecordError(format!("entry {} is not where it was written", log_id.index)))?;
        entries.push(found.clone());
    }
    Ok(entries)
}

fn entries_of(payload: &[u8]) -> Result<Vec<StoredEntry>, LogError> {
    match LogRecord::decode(payload)? {
        (_, LogChange::Entries(entries) | LogChange::CarriedEntries(entries)) => Ok(entries),
        _ => Err(RecordError("not a record of entries".to_owned()).into()),
    }
}

/// Runs of entries, each small enough for one record.
fn split(entries: Vec<StoredEntry>) -> Vec<Vec<StoredEntry>> {
    let mut runs: Vec<Vec<StoredEntry>> = Vec::new();
    let mut bytes = RECORD_BYTES_MAX;
    for entry in entries {
        if bytes + entry.len_bytes() > RECORD_BYTES_MAX {
            runs.push(Vec::new());
            bytes = 0;
        }
        bytes += entry.len_bytes();
        if let Some(run) = runs.last_mut() {
            run.push(entry);
        }
    }
    runs
}

/// One group's part of the log; clones are the same.
#[derive(Clone)]
pub struct GroupLogStore {
    log: Arc<RaftLog>,
    group: GroupId,
}

impl GroupLogStore {
    fn with<T>(&self, read: impl FnOnce(Option<&GroupLog>) -> T) -> io::Result<T> {
        let groups = self.log.lock();
        match &groups.fault {
            Some(fault) => Err(fault.clone().into()),
            None => Ok(read(groups.logs.get(&self.group))),
        }
    }

    async fn entries(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let stored = self.log.stored_entries(self.group, from, to, bytes_max).await?;
        let entries: Result<Vec<Entry>, RecordError> = stored.iter().map(StoredEntry::to_entry).collect();
        Ok(entries.map_err(LogError::from)?)
    }
}

impl RaftLogReader<TypeConfig> for GroupLogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, APPEND_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.with(|log| log.and_then(|log| log.vote).map(Into::into))
    }
}

impl RaftLogStorage<TypeConfig> for GroupLogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.with(|log| LogState {
            last_purged_log_id: log.and_then(|log| log.purged).map(Into::into),
            last_log_id: log.and_then(GroupLog::last).map(Into::into),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let _saved = self.log.unsynced.save_vote(self.group);
        self.log
            .submit_and_wait(self.group, vec![LogChange::Vote(StoredVote::from(vote))])
            .await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let committed = committed.map(StoredLogId::from);
        let mut groups = self.log.lock();
        groups.logs.entry(self.group).or_default().committed = committed;
        groups.unsaved.insert(self.group, committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.with(|log| log.and_then(|log| log.committed).map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let stored: Vec<StoredEntry> = entries.into_iter().map(|entry| StoredEntry::from(&entry)).collect();
        let changes = split(stored).into_iter().map(LogChange::Entries).collect();
        let done = Box::new(move |result| callback.io_completed(result));
        Ok(self.log.submit(self.group, changes, done)?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        // Not waited for: whatever is appended next lies behind it in the stream.
        let change = LogChange::Truncate(last_log_id.map(Into::into));
        Ok(self.log.submit(self.group, vec![change], Box::new(drop))?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Ok(self
            .log
            .submit(self.group, vec![LogChange::Purge(log_id.into())], Box::new(drop))?)
    }
}
