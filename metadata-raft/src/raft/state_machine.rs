//! The replicated state of one group: commands applied to the store, together with the position they bring it to.
//!
//! Applied entries are written without sync, in one batch with last-applied and members: after a power cut the state is an older
//! one of itself, and the log, purged only up to the synced mark, brings it forward again.
//! Invariants: a batch moves state and position together; answers are given after the write; a failed store stops the replica.
//! Not here: what commands mean (`Apply`'s implementer), reading and writing snapshots' parts (`snapshot`). `state::tests::schedules`
//! compiles this very file once more, over threads whose schedules it chooses; so locks are named through `super::threads`.

use super::threads::{Mutex, RwLock, RwLockReadGuard, blocking};
use crate::feed_watch::FeedWatch;
use crate::raft::read_once::ReadOnce;
use crate::raft::record::{StoredLogId, StoredMembersAt, no_answer};
use crate::raft::snapshot::{SnapshotData, Staging, StateView, clear, membership_of, meta_of};
use crate::raft::stored_state::{
    Applied, GroupRecord, drop_staging, prefix_of, put_applied, put_group, read_applied, read_group, read_staging,
};
use crate::raft::types::{AnswerBytes, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kv::overlay::Overlay;
use kv::prefixed::{Prefixed, prefixed_batch};
use kv::seam::{Kv, KvError, KvRead};
use model::id::GroupId;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::sync::{Arc, PoisonError};

/// Entries that are written as one batch. A guess: long enough to spare writes, short enough for answers not to wait.
const BATCH_ENTRIES_MAX: usize = 64;

/// Gives commands their meaning.
pub trait Apply: Send + Sync + 'static {
    /// Runs the command of entry `index` (proposed by the leader of `term`) over `state`, whose keys begin with the slot, and
    /// returns its answer. Deterministic: the same on every replica. A refusal is an answer that changed nothing.
    ///
    /// # Errors
    /// Only when the store below fails; the replica stops.
    fn apply(&self, state: &mut Overlay<'_>, term: u64, index: u64, command: &Bytes) -> Result<Bytes, KvError>;

    /// Told after entries up to `index` were written, on the thread that applies: wakes those who wait for changes. Must be quick.
    fn applied(&self, index: u64);

    /// Told when the state was opened or replaced as a whole, applied up to `index`. Must be quick.
    fn jumped(&self, _index: u64) {}

    /// Where whoever waits for changes of feeds is told; `None` where nothing is.
    fn feed(&self) -> Option<Arc<FeedWatch>> {
        None
    }
}

struct Current {
    record: GroupRecord,
    applied: Applied,
}

struct Shared {
    kv: Arc<dyn Kv>,
    group: GroupId,
    apply: Arc<dyn Apply>,
    current: RwLock<Current>,
    /// Held by whoever changes the group's record, so that one change does not undo another.
    changing: Mutex<()>,
}

/// The state of one group; clones are the same.
#[derive(Clone)]
pub struct GroupState {
    shared: Arc<Shared>,
}

fn stopped(error: KvError) -> io::Error {
    io::Error::other(error)
}

impl GroupState {
    /// Opens a group's state in `kv` and removes installs that are no longer or were never current, but for one that is being
    /// received and still wanted. Blocks.
    ///
    /// # Errors
    /// When the store fails or its records are damaged.
    pub fn open(kv: Arc<dyn Kv>, group: GroupId, apply: Arc<dyn Apply>) -> Result<Self, KvError> {
        let record = read_group(kv.as_ref(), group)?;
        let applied = read_applied(kv.as_ref(), group, record.install)?;
        let staging = read_staging(kv.as_ref(), group)?;
        let is_wanted =
            staging.is_some_and(|staging| staging.install == record.install + 1 && staging.applied.last > applied.last);
        let mut leftovers = if is_wanted {
            vec![clear(group, record.install + 2, u32::MAX)]
        } else {
            vec![clear(group, record.install + 1, u32::MAX), drop_staging(group)]
        };
        if record.install > 1 {
            leftovers.push(clear(group, 1, record.install - 1));
        }
        kv.write(leftovers)?;
        apply.jumped(applied.last.map_or(0, |last| last.index));
        let current = RwLock::new(Current { record, applied });
        Ok(Self {
            shared: Arc::new(Shared {
                kv,
                group,
                apply,
                current,
                changing: Mutex::new(()),
            }),
        })
    }

    /// Runs `read` over the state as it is now, keys beginning with the slot. Holds off the switch to a snapshot meanwhile: short
    /// reads only. Whether the state is new enough is the caller's to know.
    pub fn read<T>(&self, read: impl FnOnce(&dyn KvRead) -> T) -> T {
        let current = self.current();
        let view = self.shared.kv.snapshot();
        read(&Prefixed::new(
            view.as_ref(),
            prefix_of(self.shared.group, current.record.install),
        ))
    }

    /// The last applied position.
    #[must_use]
    pub fn last_applied(&self) -> Option<StoredLogId> {
        self.current().applied.last
    }

    /// The store below, for receiving snapshots.
    #[must_use]
    pub fn kv(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.shared.kv)
    }

    fn apply_batch(&self, entries: Vec<EntryResponder<TypeConfig>>) -> Result<(), KvError> {
        let Some((last, _)) = entries.last() else { return Ok(()) };
        let last_index = last.log_id.index;
        let (install, mut applied) = {
            let current = self.current();
            (current.record.install, current.applied.clone())
        };
        let prefix = prefix_of(self.shared.group, install);
        let state = Prefixed::new(self.shared.kv.as_ref() as &dyn KvRead, prefix.clone());
        let state = ReadOnce::new(&state);
        let mut overlay = Overlay::new(&state);
        let mut answers: Vec<(Option<ApplyResponder<TypeConfig>>, AnswerBytes)> = Vec::with_capacity(entries.len());
        for (entry, responder) in entries {
            let answer = self.apply_entry(&mut overlay, &mut applied, entry)?;
            answers.push((responder, answer));
        }
        let mut batch = prefixed_batch(&prefix, overlay.into_batch());
        batch.push(put_applied(self.shared.group, install, &applied)?);
        self.shared.kv.write(batch)?;
        self.publish(|current| current.applied = applied);
        for (responder, answer) in answers {
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        self.shared.apply.applied(last_index);
        Ok(())
    }

    fn apply_entry(
        &self,
        overlay: &mut Overlay<'_>,
        applied: &mut Applied,
        entry: Entry,
    ) -> Result<AnswerBytes, KvError> {
        let log_id = entry.log_id;
        applied.last = Some(log_id.into());
        match entry.payload {
            EntryPayload::Blank => Ok(no_answer()),
            EntryPayload::Normal(command) => {
                let answer = self
                    .shared
                    .apply
                    .apply(overlay, log_id.leader_id.term, log_id.index, &command.0)?;
                Ok(AnswerBytes(answer))
            }
            EntryPayload::Membership(membership) => {
                applied.members = StoredMembersAt::from(&StoredMembership::new(Some(log_id), membership));
                Ok(no_answer())
            }
        }
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.shared.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, change: impl FnOnce(&mut Current)) {
        change(&mut self.shared.current.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes the state durable and notes up to where: from then on the log may be purged to there. Blocks.
    fn mark(&self) -> Result<Applied, KvError> {
        // Held over the syncs, which `current` must not be: whoever reads or applies would wait for the disk with it.
        let _changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // 1. The position is read before the sync, so the sync covers it. A crash here leaves the old mark.
        let applied = self.current().applied.clone();
        self.shared.kv.sync()?;
        // 2. The mark itself is durable before openraft hears of it and purges.
        let mut record = self.current().record.clone();
        if let Some(mark) = record.mark.as_ref().filter(|mark| mark.last > applied.last) {
            // A snapshot was installed meanwhile, and its mark covers more.
            return Ok(mark.clone());
        }
        record.mark = Some(applied.clone());
        self.shared.kv.write(vec![put_group(self.shared.group, &record)?])?;
        self.shared.kv.sync()?;
        self.publish(|current| current.record = record);
        Ok(applied)
    }

    /// Makes a staged install current. Blocks.
    fn switch(&self, install: u32, applied: Applied) -> Result<(), KvError> {
        let _changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current().record.install;
        if install != old + 1 {
            return Err(KvError::Corrupt(format!(
                "install {install} is not the one behind {old}"
            )));
        }
        // 1. One record switches; its sync comes before openraft hears of it. A crash before leaves the old state whole.
        let record = GroupRecord {
            install,
            mark: Some(applied.clone()),
        };
        let switched = vec![put_group(self.shared.group, &record)?, drop_staging(self.shared.group)];
        self.shared.kv.write(switched)?;
        self.shared.kv.sync()?;
        // 2. Readers of the old install have ended when this returns.
        let index = applied.last.map_or(0, |last| last.index);
        self.publish(|current| *current = Current { record, applied });
        self.shared.apply.jumped(index);
        // 3. A crash before this leaves rows that `open` removes.
        self.shared.kv.write(vec![clear(self.shared.group, old, old)])
    }

    fn marked(&self) -> Result<Option<openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>>, KvError> {
        let current = self.current();
        let Some(mark) = &current.record.mark else {
            return Ok(None);
        };
        let snapshot = SnapshotData::Live {
            kv: Arc::clone(&self.shared.kv),
            group: self.shared.group,
        };
        Ok(Some(openraft::Snapshot {
            meta: meta_of(mark)?,
            snapshot,
        }))
    }
}

/// Reads a live state of another store and stages it in `kv`. Blocks.
fn stage(source: &dyn Kv, source_group: GroupId, kv: Arc<dyn Kv>, group: GroupId) -> io::Result<(u32, Applied)> {
    /// A transfer that is never continued.
    const UNNUMBERED: u64 = 0;
    let snapshot = source.snapshot();
    let view = StateView::open(snapshot.as_ref(), source_group).map_err(stopped)?;
    let mut staging = Staging::begin(kv, group, UNNUMBERED, view.applied.clone()).map_err(stopped)?;
    loop {
        let after = staging.after().cloned();
        let rows = view.rows_after(after.as_ref()).map_err(stopped)?;
        if rows.is_empty() {
            break;
        }
        staging.push(after.as_ref(), rows).map_err(io::Error::other)?;
    }
    match staging.end(staging.after()).map_err(io::Error::other)? {
        SnapshotData::Staged { install, applied } => Ok((install, applied)),
        SnapshotData::Live { .. } => Err(io::Error::other("nothing was staged")),
    }
}

impl RaftSnapshotBuilder<TypeConfig> for GroupState {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let state = self.clone();
        let marked = blocking(move || state.mark()).await.map_err(io::Error::other)?;
        let meta = meta_of(&marked.map_err(stopped)?).map_err(stopped)?;
        let snapshot = SnapshotData::Live {
            kv: Arc::clone(&self.shared.kv),
            group: self.shared.group,
        };
        Ok(openraft::Snapshot { meta, snapshot })
    }
}

impl RaftStateMachine<TypeConfig> for GroupState {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let current = self.current();
        let membership = membership_of(&current.applied.members).map_err(stopped)?;
        Ok((current.applied.last.map(Into::into), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        while let Some(entry) = entries.next().await {
            batch.push(entry?);
            if batch.len() == BATCH_ENTRIES_MAX {
                self.apply_batch(std::mem::take(&mut batch)).map_err(stopped)?;
            }
        }
        self.apply_batch(batch).map_err(stopped)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let (install, applied) = match snapshot {
            SnapshotData::Staged { install, applied } => (install, applied),
            SnapshotData::Live { kv: source, group } => {
                let (kv, own) = (self.kv(), self.shared.group);
                let staged = blocking(move || stage(source.as_ref(), group, kv, own)).await;
                staged.map_err(io::Error::other)??
            }
        };
        if meta_of(&applied).map_err(stopped)? != *meta {
            return Err(io::Error::other(
                "the installed state is another one than the snapshot says",
            ));
        }
        let state = self.clone();
        let switched = blocking(move || state.switch(install, applied)).await;
        switched.map_err(io::Error::other)?.map_err(stopped)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        self.marked().map_err(stopped)
    }
}
