//! Metadata groups: state machine, change feed, Raft.
//!
//! Reading order: `serve` (how a process starts), `service` (what each call does), `group` (one replica), `state` (what commands
//! mean), `raft` (the only door to openraft), `worker` (what leaders do by themselves).

pub mod config;
pub mod feed_watch;
pub mod group;
pub mod identity;
pub mod metrics;
pub mod raft;
pub mod readiness;
pub mod room;
pub mod serve;
pub mod service;
pub mod space;
pub mod state;
pub mod volume;
pub mod worker;

#[cfg(test)]
#[path = "../tests/shared/founding.rs"]
mod founding;
