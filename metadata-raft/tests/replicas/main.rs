//! Metadata replicas on what production stands on: RocksDB, real disks, QUIC. One file per topic.

mod addresses;
mod damage;
mod drive;
mod restart;
mod world;
