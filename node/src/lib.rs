//! The storage node: several disks, each with a journal of fragments and a place index that can be lost.
//!
//! Reading order: `config`, `serve` (the table of contents of a running node), `register` and `open` (which directory is which
//! disk), `service` (what each call does), `rows` (which row version is the newest known) and `uniform_rows`, `store` (fragments on
//! one disk), `scrub` and `repair`, `metrics`.
//! Not here: who may call (rpc and protocol), which disks a stripe belongs on (placement), what a stripe means (metadata).

pub mod config;
pub mod metrics;
pub mod open;
pub mod read_room;
pub mod readiness;
pub mod register;
pub mod repair;
pub mod rows;
pub mod scrub;
pub mod serve;
pub mod service;
pub mod store;
pub mod uniform_rows;
