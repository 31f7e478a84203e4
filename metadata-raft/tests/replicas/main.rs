//! Metadata replicas on what production stands on: RocksDB, real disks, QUIC. One file per topic.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the whole crate is a test: what cannot be set up fails it, and it waits, times and damages files by itself"
)]

mod addresses;
mod damage;
mod drive;
mod full;
mod groups;
mod late_deletes;
mod parts;
mod register;
mod restart;
mod world;
