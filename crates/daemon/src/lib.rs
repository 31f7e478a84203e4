//! What every process of the cluster stands on: configuration, secrets, logs, metrics, workers, time, randomness, the CPU pool.
//!
//! Three of the seams live here, each with its real and its simulated side: `Clock`, `Pool` and `Random`.
//! The only package besides disk and kv that reads and writes files: configuration and secrets, nothing else.

pub mod blocking;
pub mod clock;
pub mod config;
pub mod log;
pub mod metrics;
pub mod pool;
pub mod random;
pub mod resources;
pub mod secret;
pub mod shutdown;
pub mod status_port;
pub mod worker;
