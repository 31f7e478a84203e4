//! The journal as the ordered stream of the Raft log: opening, replaying, submitting, letting segments go.
//!
//! Invariants: everything reaches the group commit in the order of `submit`: at once while its queue has room, through one relay from
//! the first that had to wait until the relay is empty again; damage below the durable mark, or in any segment that is replayed,
//! stops the process's replicas before one of them votes. What a full disk refuses waits, with everything behind it, and is written
//! once the disk takes it: nothing that comes later may be on disk before it.
//! The relay's queue has no bound of its own, since whoever submits holds the log's lock and cannot wait. What it holds is bounded by
//! what may be submitted and not synced at all, which is counted and refused before anybody has the lock (`log_store`, `room`).
//! Not here: what records mean (`log_store`); batching and syncing (the journal).

use crate::raft::log_store::{LogError, RaftLog, Replay};
use crate::raft::record::RAFT_RECORD_KIND;
use crate::raft::stream::{Completed, LogStream, StreamError};
use crate::space::Space;
use bytes::Bytes;
use disk::{
    Disk, Draft, GroupCommit, Held, Journal, JournalError, JournalOptions, JournalReader, LimboScope, Place, Position,
    Purpose, SegmentNumber, Submission, TailPolicy,
};
use futures_util::future::BoxFuture;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Records that go to the journal together, in bytes: below its batch of 8 MiB with room for headers.
const SUBMISSION_BYTES_MAX: usize = 6 << 20;
/// How often a full disk is tried again where the world is simulated. As the journal's own thread does.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What became of one `submit`, which may be several submissions of the journal.
struct Progress {
    places: Vec<Place>,
    wanted: usize,
    completed: Option<Completed>,
}

type SharedProgress = Arc<Mutex<Progress>>;

/// Notes what became of a part; tells the submitter once, at the first failure or when all is synced.
fn note(progress: &SharedProgress, result: Result<Vec<Place>, JournalError>) {
    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
    let told = match result {
        Ok(places) => {
            progress.places.extend(places);
            if progress.places.len() < progress.wanted {
                return;
            }
            Ok(std::mem::take(&mut progress.places))
        }
        Err(error) => Err(StreamError::Failed(error.to_string())),
    };
    if let Some(completed) = progress.completed.take() {
        completed(told);
    }
}

struct Handover {
    drafts: Vec<Draft>,
    progress: SharedProgress,
}

impl Handover {
    fn submission(self) -> Submission {
        let Self { drafts, progress } = self;
        Submission {
            drafts,
            purpose: Purpose::Foreground,
            done: Box::new(move |result| note(&progress, result)),
        }
    }
}

/// The Raft log's journal.
pub struct JournalStream {
    commit: Arc<GroupCommit>,
    relay: mpsc::UnboundedSender<Handover>,
    /// Hand-overs that the relay has not passed on yet; while there are any, everything goes behind them.
    relayed: Arc<AtomicUsize>,
    space: Arc<Space>,
}

fn damaged(error: JournalError) -> StreamError {
    match error {
        JournalError::NotFound { .. } => StreamError::NotFound,
        JournalError::Corrupt { .. } => StreamError::Damaged(error.to_string()),
        other => StreamError::Failed(other.to_string()),
    }
}

/// Names the file, for whoever must look at it.
fn damaged_at(dir: &str, position: Position) -> StreamError {
    StreamError::Damaged(format!("{dir}/{}.seg at byte {}", position.segment, position.offset))
}

impl JournalStream {
    /// Opens the journal in `dir` and reads all groups' logs back. Blocks; needs a tokio runtime, on which one relay task runs until
    /// the log is dropped. `options.tail_policy` is set here: a Raft log has no holes.
    ///
    /// # Errors
    /// `Stream(Damaged)` when anything below a durable mark is damaged; `Record` or `Fault` when the records make no logs.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        options: JournalOptions,
    ) -> Result<(Arc<RaftLog>, Arc<Self>), LogError> {
        let (replay, stream) = Self::read_back(disk, dir, options)?;
        Ok((replay.finish(Arc::clone(&stream) as Arc<dyn LogStream>)?, stream))
    }

    /// As `open`, before the log stands on the stream: a test may put another stream between them.
    pub(crate) fn read_back(
        disk: Arc<dyn Disk>,
        dir: &str,
        options: JournalOptions,
    ) -> Result<(Replay, Arc<Self>), LogError> {
        let options = JournalOptions {
            tail_policy: TailPolicy::StopAtFirstBad,
            ..options
        };
        let space = Space::new(Arc::clone(&disk), options.segment_bytes);
        let (journal, recovery) = Journal::open(Arc::clone(&disk), dir, options).map_err(damaged)?;
        if let Some(damage) = recovery.damage.first() {
            return Err(damaged_at(dir, damage.position).into());
        }
        let replay = replay_of(dir, &journal.reader())?;
        let commit = Arc::new(start_commit(journal, disk, &space)?);
        let (relay, handovers) = mpsc::unbounded_channel();
        let relayed = Arc::new(AtomicUsize::new(0));
        tokio::spawn(hand_over(
            Arc::clone(&commit),
            handovers,
            Arc::clone(&relayed),
            Arc::clone(&space),
        ));
        let stream = Arc::new(Self {
            commit,
            relay,
            relayed,
            space,
        });
        Ok((replay, stream))
    }

    fn hand(&self, handover: Handover) {
        if self.relayed.load(Ordering::Acquire) == 0 && !self.space.must_wait() {
            let again = Handover {
                drafts: handover.drafts.clone(),
                progress: Arc::clone(&handover.progress),
            };
            // Most often: one task less to wake for a commit. A refusal is told by the relay, since the submitter holds its lock here.
            if self.commit.try_submit(again.submission()).is_ok() {
                return;
            }
        }
        self.relayed.fetch_add(1, Ordering::AcqRel);
        if self.relay.send(handover).is_err() {
            // The runtime is going down: nobody is left to be told, and nothing was acknowledged.
            tracing::debug!("raft log relay has ended");
        }
    }

    /// What is left of the disk; what is submitted waits while that is too little.
    #[must_use]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Writes what was submitted and ends the journal's thread. Blocks.
    ///
    /// # Errors
    /// `Failed` when the last of it could not be written.
    pub fn stop(&self) -> Result<(), StreamError> {
        self.commit.stop().map_err(damaged)
    }
}

/// A thread of its own, or a task where the world is simulated; there a batch takes what the disk says.
fn start_commit(journal: Journal, disk: Arc<dyn Disk>, space: &Arc<Space>) -> Result<GroupCommit, StreamError> {
    let met = Arc::clone(space);
    let held: Held = Arc::new(move |is_full| met.met_full(is_full));
    if !daemon::blocking::is_inline() {
        return GroupCommit::start_holding(journal, "raft-log", held).map_err(damaged);
    }
    let (commit, mut driven) = GroupCommit::driven_holding(journal, held);
    tokio::spawn(async move {
        loop {
            if driven.is_held() {
                daemon::clock::simulated_wait(AGAIN_AFTER).await;
            } else {
                driven.arrived().await;
            }
            daemon::clock::simulated_wait(disk.latency()).await;
            if !driven.work_off() {
                return;
            }
        }
    });
    Ok(commit)
}

fn replay_of(dir: &str, reader: &JournalReader) -> Result<Replay, LogError> {
    let mut replay = Replay::default();
    let mut fault = None;
    let mut next_sequence = 0;
    let damage = reader.visit(None, LimboScope::Without, &mut |record| {
        // A record that recovery copied may lie in two segments after a crash; it keeps its sequence and counts once.
        if record.kind != RAFT_RECORD_KIND || record.sequence < next_sequence {
            return ControlFlow::Continue(());
        }
        next_sequence = record.sequence + 1;
        match replay.push(record.place, &record.checked) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(first) = damage.map_err(damaged)?.first() {
        return Err(damaged_at(dir, first.position).into());
    }
    fault.map_or(Ok(replay), Err)
}

/// Hands over in order; waits while the journal's queue or its disk is full, so that openraft's own bounds take effect upstream.
async fn hand_over(
    commit: Arc<GroupCommit>,
    mut handovers: mpsc::UnboundedReceiver<Handover>,
    relayed: Arc<AtomicUsize>,
    space: Arc<Space>,
) {
    while let Some(handover) = handovers.recv().await {
        space.writable().await;
        let progress = Arc::clone(&handover.progress);
        if let Err(error) = commit.submit(handover.submission()).await {
            note(&progress, Err(error));
        }
        relayed.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LogStream for JournalStream {
    fn submit(&self, records: Vec<Bytes>, completed: Completed) {
        let progress = Progress {
            places: Vec::new(),
            wanted: records.len(),
            completed: Some(completed),
        };
        let progress = Arc::new(Mutex::new(progress));
        let mut runs: Vec<Vec<Draft>> = vec![Vec::new()];
        let mut bytes = 0;
        for record in records {
            if bytes + record.len() > SUBMISSION_BYTES_MAX {
                runs.push(Vec::new());
                bytes = 0;
            }
            bytes += record.len();
            if let Some(run) = runs.last_mut() {
                run.push(Draft::new(RAFT_RECORD_KIND, record));
            }
        }
        for drafts in runs {
            self.hand(Handover {
                drafts,
                progress: Arc::clone(&progress),
            });
        }
    }

    fn is_held(&self) -> bool {
        self.space.is_held()
    }

    fn read(&self, place: &Place) -> Result<Bytes, StreamError> {
        self.commit.reader().payload(*place).map_err(damaged)
    }

    fn closed_segments(&self) -> Vec<SegmentNumber> {
        let closed = |info: disk::SegmentInfo| (!info.is_active && !info.is_in_limbo).then_some(info.number);
        self.commit.reader().segments().into_iter().filter_map(closed).collect()
    }

    fn release(&self, segment: SegmentNumber) -> BoxFuture<'_, Result<(), StreamError>> {
        Box::pin(async move {
            let unlinked = self.commit.with(move |journal| journal.unlink(segment)).await;
            unlinked.map_err(damaged)?.map_err(damaged)
        })
    }
}
