//! The ordered stream of records under the Raft log of a process, and its one real kind, the journal.
//!
//! Invariants: records become durable in the order of `submit`, all records of one call in one batch or in several in order;
//! completions come back in that order too, and only for what is synced; after a failure nothing more is written.
//! Not here: what the records mean.

use bytes::Bytes;
use disk::{Place, SegmentNumber};
use futures_util::future::BoxFuture;

/// Told once: the places of the submitted records, all synced, or why not. Must be quick; runs on the stream's own thread.
pub type Completed = Box<dyn FnOnce(Result<Vec<Place>, StreamError>) + Send>;

/// Why the stream failed. All are final: the replicas of this process stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A write or sync failed, now or earlier. What was submitted is perhaps there after a restart.
    #[error("write raft log: {0}")]
    Failed(String),
    /// Bytes below the durable mark are not what was written: the replicas do not vote any more.
    #[error(
        "read raft log: damaged: {0}; this replica must not vote again: take it out of its groups and bring a new one under a new id"
    )]
    Damaged(String),
    /// There is no such record any more, as when its segment was let go.
    #[error("read raft log: no such record")]
    NotFound,
}

/// The ordered stream.
pub trait LogStream: Send + Sync + 'static {
    /// Queues `records` behind all that were submitted before. `completed` is never called on the thread of this call.
    fn submit(&self, records: Vec<Bytes>, completed: Completed);
    /// Whether what is submitted waits for a full disk.
    fn is_held(&self) -> bool;
    /// Reads a synced record. Blocks on the disk.
    fn read(&self, place: &Place) -> Result<Bytes, StreamError>;
    /// The segments that are full, oldest first.
    fn closed_segments(&self) -> Vec<SegmentNumber>;
    /// Lets a closed segment go, behind what was submitted before unless that waits for a full disk; the caller has everything it needs
    /// of it elsewhere, synced. Dropped midway it may go all the same.
    fn release(&self, segment: SegmentNumber) -> BoxFuture<'_, Result<(), StreamError>>;
}
