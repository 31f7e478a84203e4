//! Integration tests of the whole: a cluster on loopback as a user starts it, spoken to over HTTP and by signals.
//!
//! Each test starts its own cluster in a temporary directory on ports given by the system and ends it by its process id.
//! Not here: what a cheaper harness can show (docs/testing.md says which comes first).
#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is a test: what cannot be set up fails it"
)]

mod uploads;
mod world;
