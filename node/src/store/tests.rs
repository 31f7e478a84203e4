//! The suites of the fragment store: against a map, against power cuts, against faults of the disk, and against planted bugs.

mod crash;
mod damage;
mod faults;
mod faulty;
mod harness;
mod model;
mod truth;
