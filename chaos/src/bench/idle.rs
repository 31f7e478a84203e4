//! What a cluster takes that nobody uses: CPU and memory, a while after its start.
//!
//! Invariant: nothing is asked of the cluster while it is watched.

use super::watch::{ClusterWatch, RoleCost};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Names of the two forms of a cluster.
pub(super) const PROCESSES: &str = "processes";
pub(super) const ONE_PROCESS: &str = "one process";
/// After a start elections settle, leaders spread, and the allocator gives back what the start took. Guess.
const SETTLE: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_secs(20);
const QUICK_SETTLE: Duration = Duration::from_secs(2);
const QUICK_WATCH: Duration = Duration::from_secs(3);

/// An idle cluster.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Idle {
    pub(super) form: &'static str,
    pub(super) watched_s: f64,
    /// CPU seconds of all processes in a second, times 100.
    pub(super) percent_of_core: f64,
    /// Resident, summed over the processes; pages that they share count once for each.
    pub(super) resident_bytes: u64,
    /// The same with shared pages counted once.
    pub(super) proportional_bytes: Option<u64>,
    pub(super) roles: Vec<RoleCost>,
}

/// Watches a cluster that has just been started.
pub(super) async fn watch(watch: &ClusterWatch, form: &'static str, quick: bool) -> anyhow::Result<Idle> {
    let (settle, length) = if quick {
        (QUICK_SETTLE, QUICK_WATCH)
    } else {
        (SETTLE, WATCH)
    };
    println!("idle: {form}, {} s", (settle + length).as_secs());
    tokio::time::sleep(settle).await;
    watch.reset_peak();
    let (before, begun) = (watch.cpu()?, Instant::now());
    tokio::time::sleep(length).await;
    let watched_s = begun.elapsed().as_secs_f64();
    let roles = watch.costs(&before)?;
    let cpu_s: f64 = roles.iter().map(|cost| cost.cpu_s).sum();
    let resident = watch.resident()?;
    Ok(Idle {
        form,
        watched_s,
        percent_of_core: cpu_s * 100.0 / watched_s,
        resident_bytes: resident.bytes,
        proportional_bytes: resident.proportional_bytes,
        roles,
    })
}
