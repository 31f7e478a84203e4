//! The ordered key-value seam with its two implementations, RocksDB and memory, and the suite that both pass.

pub mod conformance;
pub mod memory;
pub mod overlay;
pub mod prefixed;
pub mod rocks;
pub mod seam;
