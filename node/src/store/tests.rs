//! The suites of the fragment store: against a map, against power cuts, against faults of the disk, and against planted bugs.

mod crash;
mod faults;
mod harness;
mod model;
