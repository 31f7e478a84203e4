//! The journal: an ordered, append-only stream of records in segments, synced before anything is acknowledged.
//!
//! Place in the picture: one instance under each disk's fragment store and one under each process's Raft log (decisions 0009 and 0010,
//! bytes in docs/format/journal.md). Reading order: `types`, `record`, `segment`, `scan`, `append`, `recover`, `read`, `limbo`,
//! `group_commit`.
//! Invariants: nothing is overwritten; nothing is acknowledged before its sync; after any recovery a new segment is started.
//! Not here: what records mean, and which segments may go; the owners decide that.

mod append;
mod group_commit;
mod handles;
mod limbo;
mod read;
mod record;
mod recover;
mod scan;
#[cfg(test)]
mod schedules;
mod segment;
mod threads;
mod types;

pub use append::Journal;
pub use group_commit::{Completion, DrivenCommit, GroupCommit, Held, Submission};
pub use read::JournalReader;
pub use record::RECORD_HEADER_BYTES;
pub use segment::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
pub use types::{
    Damage, Draft, FIRST_USER_KIND, JournalError, JournalHealth, JournalOptions, LimboScope, Place, Position, Purpose,
    Record, Recovery, SegmentInfo, SegmentNumber, TailCheck, TailPolicy,
};
