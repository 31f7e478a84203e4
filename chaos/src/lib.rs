//! What attacks Holdfast: the demo on real input, the bench beside the machine's limits, later the simulated world.

pub mod bench;
pub mod content;
pub mod demo;
pub mod dev_cluster;
pub mod largest_file;
pub mod meter;
pub mod table;
pub mod tree;
pub mod wide_folder;
