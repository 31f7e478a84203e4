//! Raft: the only door to openraft. The log of all groups in one stream, the replicated state, the network between replicas.
//!
//! Reading order: `types` (what openraft is told), `record` (what we persist), `group_log` (one group in memory), `stream` and
//! `journal_stream` (the ordered stream below), `unsynced`, `log_store`, `stored_state` (what the store holds besides the state),
//! `threads`, `state_machine`, `snapshot`, `append_order`, `address_book`, `network`, `election_clock`, `heartbeats`, `receiver`,
//! `read_rounds`, `lease`.
//! Invariants: what openraft is answered as durable is synced; commands and answers are opaque bytes here.
//! Not here: what a command means (`state`), starting and stopping a replica (`group`).

pub mod address_book;
pub mod append_order;
pub mod election_clock;
pub mod group_log;
pub mod heartbeats;
pub mod incoming;
pub mod journal_stream;
pub mod lease;
pub mod log_store;
pub mod network;
pub mod outgoing;
pub mod read_once;
pub mod read_rounds;
pub mod receiver;
pub mod record;
pub mod snapshot;
pub mod state_machine;
pub mod stored_state;
pub mod stream;
mod threads;
pub mod types;
pub mod unsynced;

#[cfg(test)]
pub(crate) mod tests;
