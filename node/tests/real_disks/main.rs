//! A whole node on real directories and RocksDB: which directory is which disk, restarts, lost indexes, scrub, full and failed disks.
//!
//! Not here: power cuts and chosen faults of single I/Os (the crash suite of the store, on simulated disks).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the whole crate is a test: what cannot be set up fails it, and it waits, times and damages files by itself"
)]

mod identity;
mod restart;
mod scrub;
mod trouble;
mod world;
