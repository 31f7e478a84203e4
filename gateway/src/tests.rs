//! Tests of the whole gateway over a real listener: what only shows between the wire and the use cases.
//!
//! Behind it stand the real state machine without Raft and shelves instead of nodes (`world`), all in memory on a clock that the
//! tests move. Not here: what one module shows alone, and what needs real nodes or processes (tests/cluster).

mod admission;
mod aged;
mod black_hole;
mod bodies;
mod caches;
mod connections;
mod file_batches;
mod parking;
mod poll_contract;
mod polls;
mod refusals;
mod replica;
mod request_ids;
mod sizes;
mod tickets;
mod tus;
mod upload_memory;
mod watching;
mod wire;
mod world;
