//! Layout planning, hand-off choice, ack rule, repair order and durability arithmetic.
//!
//! Pure: no clock, no I/O, no threads, no randomness of its own and no hash-map order, so every process that has the same
//! cluster map and the same table decides alike.
//! Stands on `model` alone. Not here: whether a disk answers (rpc) and the fragments themselves (codec, node).

pub mod ack;
pub mod handoff;
pub mod layout;
pub mod margins;
pub mod nines;
pub mod repair;

#[cfg(test)]
mod testmap;
