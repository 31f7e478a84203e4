//! The nouns of the journal: places, drafts, records, options, damage and errors.
//!
//! Place in the picture: what the fragment store and the Raft log store speak with the journal in.
//! Invariants: a `Place` names one record for ever, a sequence never stands for two contents.
//! Not here: bytes on disk (`record`, `segment`).

use crate::seam::DiskError;
use bytes::Bytes;
use model::error_kind::ErrorKind;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Smallest kind that users of a journal may give their records; lower ones are the journal's own.
pub const FIRST_USER_KIND: u8 = 16;

/// The number of a segment: counts from 1, never used twice in a journal's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentNumber(pub u64);

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A point in the journal's order: a segment and a byte in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Which segment.
    pub segment: SegmentNumber,
    /// Byte from the segment's beginning.
    pub offset: u64,
}

/// Where a record lies, and how long its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Which segment.
    pub segment: SegmentNumber,
    /// Byte of the record's header from the segment's beginning.
    pub offset: u64,
    /// Payload bytes.
    pub len_bytes: u32,
}

impl Place {
    /// The point where the record begins.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.offset,
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it is to its owner; from `FIRST_USER_KIND` on.
    pub kind: u8,
    /// `None`: the journal gives the next sequence. `Some`: a copy of a record of this journal, which keeps its own.
    pub sequence: Option<u64>,
    /// The payload, in parts that are written one after the other and not copied.
    pub payload: Vec<Bytes>,
    /// `None`: the payload checksum covers all of it. `Some(n)`: only its first `n` bytes, since checksums in them cover the rest.
    pub header_bytes: Option<u32>,
}

impl Draft {
    /// A draft of one part that the journal's checksum covers whole and that gets the next sequence.
    #[must_use]
    pub fn new(kind: u8, payload: Bytes) -> Self {
        Self {
            kind,
            sequence: None,
            payload: vec![payload],
            header_bytes: None,
        }
    }

    /// Bytes of all parts together.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }
}

/// A record as a visit or a read meets it; its header and the checked part of its payload have passed their checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies; `JournalReader::read` takes it.
    pub place: Place,
    /// What it is to its owner.
    pub kind: u8,
    /// Its number in the order of writing; copies keep that of their original.
    pub sequence: u64,
    /// The checked part of the payload: all of it, or its first `header_bytes` bytes where the draft said so.
    pub checked: Bytes,
}

impl Record {
    /// Whether `checked` is the whole payload.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.checked.len() == self.place.len_bytes as usize
    }
}

/// What an append is for, which decides whether it may use the two reserved segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody's new data: refused with `Full` when only the reserve is left.
    Foreground,
    /// Copies that will let a segment go, or records that let space go: may use the reserve.
    Compaction,
}

/// What recovery keeps of the records above the durable mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailPolicy {
    /// Every valid record (fragment store: records do not depend on each other).
    KeepValid,
    /// Those before the first bad one (Raft log: no holes).
    StopAtFirstBad,
}

/// Tells whether the payload of a record of this kind is whole, where the journal's checksum covers only a part of it.
///
/// Called in recovery alone, for records above the durable mark: a crash may have kept the checked part and lost the rest.
pub type TailCheck = Arc<dyn Fn(u8, &Bytes) -> bool + Send + Sync>;

/// How a journal is to be kept.
#[derive(Clone)]
pub struct JournalOptions {
    /// A segment is closed when the next batch would make it longer than this, in bytes.
    pub segment_bytes: u64,
    /// A batch, with headers, is at most so long, in bytes; so is an append.
    pub batch_bytes_max: usize,
    /// What recovery keeps above the mark.
    pub tail_policy: TailPolicy,
    /// A position up to which the owner knows (from a checkpoint) that its segment was synced.
    pub known_synced: Option<Position>,
    /// Judges records with `header_bytes` above the mark. `None`: such records are dropped there.
    pub tail_check: Option<TailCheck>,
    /// Gives the salts of segments: random, so that no bytes from outside can pose as a record.
    pub next_salt: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl JournalOptions {
    /// Segments of 256 MiB, batches of 8 MiB, no checkpoint, no tail check.
    #[must_use]
    pub fn new(tail_policy: TailPolicy, next_salt: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        Self {
            segment_bytes: 256 << 20,
            batch_bytes_max: 8 << 20,
            tail_policy,
            known_synced: None,
            tail_check: None,
            next_salt,
        }
    }
}

/// Bytes below a durable mark that are no longer what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// Where they begin.
    pub position: Position,
    /// How many; the first readable record follows after them.
    pub len_bytes: u64,
    /// The sequence of the record, when its header is readable and only the payload is bad.
    pub sequence: Option<u64>,
}

/// What opening a journal found and did. Everything is durable and served only after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Damage below the marks of the segments that were not ended; a visit reports that of the others.
    pub damage: Vec<Damage>,
    /// Records above a mark that were kept, as copies in the new segment: old place and new one, in their order. Some of them were
    /// acknowledged under their old place (the last batch always lies above the mark), which is no longer served.
    pub kept: Vec<(Place, Place)>,
    /// Stretches above a mark that were dropped as a torn tail.
    pub torn_stretches: u64,
    /// The next sequence that the journal will give.
    pub next_sequence: u64,
}

/// A segment as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: SegmentNumber,
    /// Up to where it is synced, in bytes; nothing beyond counts.
    pub synced_bytes: u64,
    /// Whether it still grows.
    pub is_active: bool,
    /// Whether it lies in limbo: readable, and soon to be unlinked.
    pub is_in_limbo: bool,
}

/// Whether a visit looks at segments in limbo too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimboScope {
    /// Living segments only.
    Without,
    /// All, in the order of their numbers (the rebuild of an index from nothing).
    With,
}

/// Whether a journal takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalHealth {
    /// It does.
    Writable,
    /// A write or sync failed: it is read-only until it is opened again, and the disk is to be reported.
    ReadOnly {
        /// The segment that was being written.
        segment: SegmentNumber,
        /// What failed.
        cause: DiskError,
    },
}

/// Why the journal did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JournalError {
    /// Only the reserve for compaction is left, or nothing. Not acknowledged; a part may reappear after a restart, with its sequence.
    #[error("append to journal: disk full")]
    Full,
    /// This very write or sync failed: perhaps it is there after a restart, perhaps not. The journal is read-only from now on.
    #[error("write segment {segment}: {cause}")]
    Failed {
        /// The segment that was being written.
        segment: SegmentNumber,
        /// What failed.
        cause: DiskError,
    },
    /// An earlier write or sync failed; nothing of this one was written.
    #[error("journal is read-only since segment {segment} failed")]
    ReadOnly {
        /// The segment that failed.
        segment: SegmentNumber,
    },
    /// The drafts are longer than a batch may be.
    #[error("append {len_bytes} bytes to journal: at most {max_bytes}")]
    TooLarge {
        /// With headers.
        len_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A draft breaks a rule of the caller's side: its kind is the journal's own, its sequence was never given, or more header than payload.
    #[error("append to journal: {0}")]
    BadDraft(&'static str),
    /// The queue of the group commit is full; try again after a pause.
    #[error("append to journal: queue is full")]
    Busy,
    /// The group commit was stopped.
    #[error("journal is stopped")]
    Stopped,
    /// No such segment, or the place lies beyond what is synced.
    #[error("read segment {segment} at {offset}: not found")]
    NotFound {
        /// Which segment.
        segment: SegmentNumber,
        /// Byte in it.
        offset: u64,
    },
    /// What lies there is not the record that was written.
    #[error("read segment {segment} at {offset}: damaged")]
    Corrupt {
        /// Which segment.
        segment: SegmentNumber,
        /// Byte in it.
        offset: u64,
    },
    /// The segment cannot be moved or unlinked: it is still written to.
    #[error("segment {segment} is active")]
    Active {
        /// Which segment.
        segment: SegmentNumber,
    },
    /// A disk operation other than a write of records failed.
    #[error("journal: {0}")]
    Disk(#[from] DiskError),
}

impl JournalError {
    /// What it means for the caller, whoever that is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full => ErrorKind::Exhausted,
            Self::Failed { .. } => ErrorKind::Ambiguous,
            Self::ReadOnly { .. } | Self::Stopped => ErrorKind::Unavailable,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::BadDraft(_) | Self::Active { .. } => ErrorKind::Bug,
            Self::Busy => ErrorKind::Busy,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Disk(error) => error.kind(),
        }
    }
}
