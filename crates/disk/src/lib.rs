//! The disk seam, real and simulated, and the journal on top of it.
//!
//! Reading order: `seam` (what a disk is), `real` and `sim` (its two kinds), `capped`, `judged` and `shown` (what may stand in
//! front of one), `conformance` (what all promise), then `journal`, the one code under everything that is acknowledged. Only this
//! package and `daemon` touch the file system.

pub mod capped;
pub mod conformance;
pub mod journal;
pub mod judged;
pub mod real;
pub mod seam;
pub mod shown;
pub mod sim;

pub use capped::CappedDisk;
pub use journal::{
    Completion, Damage, Draft, DrivenCommit, GroupCommit, Held, Journal, JournalError, JournalHealth, JournalOptions,
    JournalReader, LimboScope, Place, Position, Purpose, Record, Recovery, SegmentInfo, SegmentNumber, Submission,
    TailCheck, TailPolicy,
};
pub use judged::JudgedDisk;
pub use real::RealDisk;
pub use seam::{Disk, DiskError, DiskFile, Space};
pub use shown::ShownSpace;
pub use sim::SimDisk;
