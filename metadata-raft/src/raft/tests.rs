//! openraft's storage suite on our log and state, and the crash suite of the log on the simulated disk.

use crate::raft::journal_stream::JournalStream;
use crate::raft::log_store::{GroupLogStore, RaftLog};
use crate::raft::state_machine::{Apply, GroupState};
use crate::raft::types::{CommandBytes, Entry, LogId, TypeConfig, Vote};
use bytes::Bytes;
use disk::{Disk, JournalOptions, RealDisk, TailPolicy};
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::KvError;
use model::id::GroupId;
use openraft::EntryPayload;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod crash;
mod golden;

/// Appends every command to a key of its own and answers the index.
pub(crate) struct Recorder;

impl Apply for Recorder {
    fn apply(&self, state: &mut Overlay<'_>, _term: u64, index: u64, command: &Bytes) -> Result<Bytes, KvError> {
        state.put(
            Bytes::from([&[0, 1], index.to_be_bytes().as_slice()].concat()),
            command.clone(),
        );
        Ok(Bytes::copy_from_slice(&index.to_be_bytes()))
    }

    fn applied(&self, _index: u64) {}
}

pub(crate) fn options() -> JournalOptions {
    let salt = AtomicU64::new(1);
    let next_salt = Arc::new(move || salt.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
    JournalOptions {
        segment_bytes: 256 << 10,
        ..JournalOptions::new(TailPolicy::StopAtFirstBad, next_salt)
    }
}

pub(crate) fn open(disk: Arc<dyn Disk>) -> (Arc<RaftLog>, Arc<JournalStream>) {
    JournalStream::open(disk, "raft", options()).unwrap()
}

pub(crate) fn vote(term: u64, replica: u64) -> Vote {
    Vote {
        leader_id: LeaderId {
            term,
            voted_for: replica,
        },
        committed: false,
    }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: CommittedLeaderId::new(term),
        index,
    }
}

pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let command = CommandBytes(Bytes::from(format!("{term}-{index}")));
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(command),
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, GroupLogStore, GroupState, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, GroupLogStore, GroupState), openraft::StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(Arc::new(RealDisk::open(dir.path()).unwrap()));
        let state = GroupState::open(Arc::new(MemoryKv::new()), GroupId(7), Arc::new(Recorder)).unwrap();
        Ok((dir, log.store_of(GroupId(7)), state))
    }
}

/// shows: B-3 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn openrafts_own_storage_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
