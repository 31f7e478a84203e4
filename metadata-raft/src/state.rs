//! The state machine of a metadata group: deterministic, without clock, I/O or randomness of its own.
//!
//! `State::apply` runs one command over an overlay of the replica's store, `State::query` answers one query, `check` looks for
//! anything that does not agree. The caller puts (group, install) in front of the keys.
//! Invariants: equal commands in equal order give equal bytes on every replica; a refused command changes nothing (its writes lie in
//! an overlay of its own that is dropped with it); `apply` never panics: what must not happen answers `Bug`.
//! Not here: the log, snapshots and elections (`raft`).

pub mod check;
pub mod keys;

pub(crate) mod age;
mod apply;
mod block;
mod change;
mod children;
pub(crate) mod collection;
mod commit;
pub(crate) mod content_counts;
mod control;
mod copy;
pub(crate) mod copy_job;
mod drive;
mod entry;
mod erasure;
mod feed;
mod file_batch;
mod filling;
pub(crate) mod inline_bytes;
mod inventory;
pub(crate) mod job;
mod manifest;
pub(crate) mod packing;
mod page;
mod purge;
mod query;
pub(crate) mod repacking;
mod request;
mod restore;
mod resumable;
mod retention;
pub(crate) mod rewind;
mod session;
mod staging;
pub(crate) mod store;
mod stripe;
pub(crate) mod stripe_counts;
mod taken;
mod token;
mod touched;
mod tree;
mod twins;
mod usage;
mod user;
mod version;
pub(crate) mod waiting;

#[cfg(test)]
mod tests;

use model::id::GroupId;

/// The state machine of one group; all of its state is in the store that calls are given.
#[derive(Clone, Copy, Debug)]
pub struct State {
    group: GroupId,
}

impl State {
    /// The machine of `group`: the control group's commands are refused by all others, and the reverse.
    #[must_use]
    pub fn new(group: GroupId) -> Self {
        Self { group }
    }
}
