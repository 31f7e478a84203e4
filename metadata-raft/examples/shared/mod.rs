//! What the measurements with whole replicas stand on: worlds and drives of the tests, loads, replicas as processes.
//!
//! Each uses a part of it. Not here: what is measured (the examples).
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each measurement uses a part, by the real clock and on the real machine; what cannot be set up ends it"
)]

#[path = "../../tests/replicas/drive.rs"]
pub(crate) mod drive;
pub(crate) mod files;
pub(crate) mod folders;
pub(crate) mod measure;
#[path = "../../tests/replicas/parts.rs"]
pub(crate) mod parts;
pub(crate) mod replica_process;
#[path = "../../tests/replicas/world.rs"]
pub(crate) mod world;
