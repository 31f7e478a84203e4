//! The suites of the fragment store: against a map, against power cuts, against faults of the disk, under many
//! schedules, and against planted bugs.

mod crash;
mod damage;
mod faults;
mod faulty;
mod harness;
mod model;
mod schedules;
mod switching;
mod truth;
