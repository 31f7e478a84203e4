//! What attacks Holdfast: the demo on real input, the bench beside the machine's limits, the simulated world and its oracles.

pub mod api_fuzz;
pub mod bench;
pub mod carrier;
pub mod content;
pub mod delta;
pub mod demo;
pub mod dev_cluster;
pub mod kills;
pub mod largest_file;
pub mod links;
pub mod long_pause;
pub mod meter;
mod open_loop;
pub mod oracle;
pub mod overload;
pub mod polls;
mod proc;
pub mod process_attack;
mod report;
pub mod rewind;
pub mod stale;
pub mod surge;
pub mod table;
pub mod tree;
pub mod wide_folder;
pub mod world;
