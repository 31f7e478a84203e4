//! A replica on threads of a schedule: one applies what is proposed, in batches as it comes, and whoever likes reads.
//!
//! Invariants: an answer is given after its batch was written, as openraft's are; commands are applied in the order of the queue.
//! Not here: elections, the log, the network; who proposes what (`schedules`).

use super::state_machine::{Apply, GroupState};
use crate::raft::state_machine::Apply as Machine;
use crate::raft::stored_state::{FIRST_INSTALL, prefix_of};
use crate::raft::tests::log_id;
use crate::raft::types::{CommandBytes, Entry, TypeConfig};
use crate::serve::StateApply;
use crate::state::State;
use crate::state::check::check;
use crate::state::tests::Bench;
use crate::worker::bell::Bell;
use bytes::Bytes;
use futures_util::stream;
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::prefixed::prefixed_batch;
use kv::seam::{Change, Kv, KvError};
use model::id::GroupId;
use model::time::WallTime;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use protocol::frame;
use protocol::metadata::{Command, CommandAnswer, Envelope, Query, QueryAnswer, Reply};
use protocol::wire_error::Failure;
use shuttle::future::block_on;
use shuttle::sync::mpsc::{self, Receiver, Sender};
use shuttle::thread::JoinHandle;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

const GROUP: GroupId = GroupId(1);
const TERM: u64 = 1;
/// Commands that are applied together at most: enough for one to find what another of its batch has done.
const BATCH_MAX: usize = 4;

/// A command, and where its answer goes.
struct Proposal {
    command: Bytes,
    answer: Sender<Bytes>,
}

/// The state machine of a process, with the answers of the batch that is being applied.
struct Told {
    machine: StateApply,
    answers: Mutex<Vec<Bytes>>,
}

impl Told {
    fn new() -> Self {
        Self {
            machine: StateApply::new(GROUP, Arc::new(Bell::default())),
            answers: Mutex::default(),
        }
    }

    fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Apply for Told {
    fn apply(&self, state: &mut Overlay<'_>, term: u64, index: u64, command: &Bytes) -> Result<Bytes, KvError> {
        let answer = Machine::apply(&self.machine, state, term, index, command)?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(answer.clone());
        Ok(answer)
    }

    fn applied(&self, index: u64) {
        Machine::applied(&self.machine, index);
    }
}

/// The rows of a bench as a replica stores them, durable.
pub(super) fn stored(bench: &Bench) -> MemoryKv {
    let rows = bench.everything().into_iter();
    let batch = rows.map(|(key, value)| Change::Put(key, value)).collect();
    let kv = MemoryKv::new();
    kv.write(prefixed_batch(&prefix_of(GROUP, FIRST_INSTALL), batch))
        .unwrap();
    kv.sync().unwrap();
    kv
}

/// Up to where a replica is applied that starts on `kv`, and what does not agree there.
pub(super) fn restarted(kv: MemoryKv) -> (u64, Vec<String>) {
    let state = GroupState::open(Arc::new(kv), GROUP, Arc::new(Told::new())).unwrap();
    let index = state.last_applied().map_or(0, |last| last.index);
    (index, state.read(check).unwrap())
}

/// One group's replica; clones are the same. Its thread ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Replica {
    state: GroupState,
    machine: State,
    proposals: Sender<Proposal>,
}

impl Replica {
    /// A replica on `kv`, whose commands have the indexes behind `index`.
    pub(super) fn start(kv: Arc<dyn Kv>, index: u64) -> (Self, JoinHandle<()>) {
        let told = Arc::new(Told::new());
        let state = GroupState::open(kv, GROUP, Arc::clone(&told) as Arc<dyn Apply>).unwrap();
        let (proposals, queue) = mpsc::channel();
        let applying = state.clone();
        let applier = shuttle::thread::spawn(move || apply_all(applying, &told, &queue, index));
        let replica = Self {
            state,
            machine: State::new(GROUP),
            proposals,
        };
        (replica, applier)
    }

    /// Has a command applied; what it answers.
    pub(super) fn run(&self, command: Command) -> Result<CommandAnswer, Failure> {
        let envelope = Envelope {
            request_id: None,
            wall: WallTime(1_700_000_000_000),
            command,
        };
        let (answer, told) = mpsc::channel();
        let command = frame::encode(&envelope).unwrap();
        self.proposals.send(Proposal { command, answer }).unwrap();
        Reply::<CommandAnswer>::from_bytes(&told.recv().unwrap())
            .unwrap()
            .result
    }

    /// What the state as it is now answers.
    pub(super) fn query(&self, query: &Query) -> Result<QueryAnswer, Failure> {
        let asked = frame::encode(query).unwrap();
        let bytes = self.state.read(|view| self.machine.query(view, &asked)).unwrap();
        Reply::<QueryAnswer>::from_bytes(&bytes).unwrap().result
    }

    /// What does not agree in the state as a reader sees it now.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.state.read(check).unwrap()
    }

    /// Up to where the log may go from now on.
    pub(super) fn mark(&self) -> u64 {
        let marked = block_on(self.state.clone().build_snapshot()).unwrap();
        marked.meta.last_log_id.map_or(0, |last| last.index)
    }
}

fn apply_all(mut state: GroupState, told: &Told, queue: &Receiver<Proposal>, mut index: u64) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let mut entries: Vec<Result<EntryResponder<TypeConfig>, io::Error>> = Vec::new();
        for proposal in &batch {
            index += 1;
            let entry = Entry {
                log_id: log_id(TERM, index),
                payload: EntryPayload::Normal(CommandBytes(proposal.command.clone())),
            };
            entries.push(Ok((entry, None)));
        }
        block_on(state.apply(stream::iter(entries))).unwrap();
        for (proposal, answer) in batch.into_iter().zip(told.take()) {
            proposal.answer.send(answer).unwrap();
        }
    }
}
