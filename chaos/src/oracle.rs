//! The promises, one file each, as checkers over what a simulated world saw.
//!
//! A checker is trusted because it has caught a bug planted on purpose (`tests/world.rs`).

pub mod collection;
pub mod durability;
pub mod entries;
pub mod linearizability;
pub mod names;
pub mod raft;
pub mod set;
