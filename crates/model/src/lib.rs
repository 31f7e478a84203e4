//! The nouns of Holdfast: ids, names, limits, error kinds, the cluster map and who may do what.
//!
//! Pure: no clock, no I/O, no threads, no randomness of its own and no hash-map order.
//! Every other package stands on this one and this one stands on none of ours.

pub mod authorize;
pub mod base32;
pub mod cluster;
pub mod digest;
pub mod entry;
pub mod error_kind;
pub mod hash;
pub mod id;
pub mod inventory;
pub mod layout;
pub mod limits;
pub mod name;
pub mod process;
pub mod profile;
pub mod stripe;
pub mod time;
