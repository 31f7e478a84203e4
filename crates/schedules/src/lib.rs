//! Many schedules of one scene on shuttle's threads: level 3 of docs/testing.md, the part that its suites share.
//!
//! Reading order: `wanted` (what the environment asks for), `ledger` (what a scene tells), `suite` (so many seeds of it).
//! Only tests depend on this package. Not here: what must hold in a scene, which bugs are planted, and where threads are switched.

mod ledger;
mod suite;
mod wanted;

pub use ledger::{Ledger, Shared, lock};
pub use suite::{Explored, Schedule, Suite};
