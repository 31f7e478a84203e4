//! Metadata replicas on what production stands on: RocksDB, real disks, QUIC. One file per topic.
#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is a test: what cannot be set up fails it"
)]

mod addresses;
mod damage;
mod drive;
mod restart;
mod world;
