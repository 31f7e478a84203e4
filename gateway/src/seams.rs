//! What a gateway is given instead of taking it: network, time, threads, randomness, metrics, the cipher.
//!
//! Each has a real and a simulated side; a test or a simulation hands in the latter.

use codec::cipher::Cipher;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use rpc::transport::Transport;
use std::sync::Arc;

/// The seams of a gateway; clones are the same.
#[derive(Clone)]
pub struct Seams {
    /// Calls nodes and metadata replicas.
    pub transport: Arc<dyn Transport>,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Work of more than 100 us of CPU.
    pub pool: Pool,
    /// Ids, nonces, salts and tokens.
    pub random: Random,
    /// Counters.
    pub metrics: Metrics,
    /// What content is sealed with: AES-256-GCM in production. No configuration reaches it.
    pub cipher: Arc<dyn Cipher>,
}
