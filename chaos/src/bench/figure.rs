//! One figure of the cluster: how fast, how late, and what it took.

use super::limit;
use super::metadata::GroupCalls;
use super::read_pairs::ReadPairs;
use super::watch::{ClusterWatch, CpuSeconds, RoleCost};
use crate::percentile::percentile;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Which bound a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    Put,
    Get,
    /// No content moves.
    Metadata,
}

/// What a phase showed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) direction: Direction,
    pub(super) at_once: usize,
    pub(super) operations: usize,
    /// User bytes that moved; 0 for metadata.
    pub(super) bytes: u64,
    pub(super) wall_s: f64,
    pub(super) operations_per_s: f64,
    pub(super) bytes_per_s: f64,
    /// Of an operation from the first byte sent to the last received, repeats included.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cluster_cpu_s: f64,
    pub(super) load_cpu_s: f64,
    pub(super) cluster_peak_bytes: u64,
    /// False where the kernel did not let the peak be reset: it is then the one since the cluster's start.
    pub(super) peak_is_of_this_phase: bool,
    /// Operations that were answered Busy or Unavailable and sent again.
    pub(super) repeats: usize,
    /// Share of the bound; set by the report, absent for metadata.
    pub(super) percent_of_bound: Option<f64>,
    /// Operations a second as a share of the small calls that QUIC carries; set by the report, of metadata alone.
    pub(super) percent_of_quic_calls: Option<f64>,
    /// What each role took.
    pub(super) roles: Vec<RoleCost>,
    /// What the metadata groups counted meanwhile; absent where it was not asked.
    pub(super) groups: Option<GroupCalls>,
    /// What it and the same at the leader showed in pairs of turns; of reads at the nearest replica alone.
    pub(super) pairs: Option<ReadPairs>,
}

/// One finished operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) took: Duration,
    pub(super) bytes: u64,
    pub(super) repeats: usize,
}

/// A phase under way.
pub(super) struct Phase<'a> {
    watch: &'a ClusterWatch,
    name: String,
    direction: Direction,
    at_once: usize,
    peak_is_of_this_phase: bool,
    cluster_cpu: CpuSeconds,
    load_cpu: Duration,
    begun: Instant,
}

impl<'a> Phase<'a> {
    /// Starts the clocks.
    pub(super) fn begin(
        watch: &'a ClusterWatch,
        name: String,
        direction: Direction,
        at_once: usize,
    ) -> anyhow::Result<Self> {
        let peak_is_of_this_phase = watch.reset_peak();
        let cluster_cpu = watch.cpu()?;
        let (load_cpu, begun) = (limit::process_cpu(), Instant::now());
        Ok(Self {
            watch,
            name,
            direction,
            at_once,
            peak_is_of_this_phase,
            cluster_cpu,
            load_cpu,
            begun,
        })
    }

    /// Stops the clocks.
    pub(super) fn end(self, samples: &[Sample]) -> anyhow::Result<Figure> {
        let wall_s = self.begun.elapsed().as_secs_f64();
        let load_cpu_s = (limit::process_cpu() - self.load_cpu).as_secs_f64();
        let roles = self.watch.costs(&self.cluster_cpu)?;
        let mut took: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
        took.sort_unstable();
        let bytes: u64 = samples.iter().map(|sample| sample.bytes).sum();
        let figure = Figure {
            name: self.name,
            direction: self.direction,
            at_once: self.at_once,
            operations: samples.len(),
            bytes,
            wall_s,
            operations_per_s: samples.len() as f64 / wall_s,
            bytes_per_s: bytes as f64 / wall_s,
            p50_ms: percentile(&took, 50).as_secs_f64() * 1e3,
            p99_ms: percentile(&took, 99).as_secs_f64() * 1e3,
            cluster_cpu_s: roles.iter().map(|cost| cost.cpu_s).sum(),
            load_cpu_s,
            cluster_peak_bytes: roles.iter().map(|cost| cost.peak_bytes).sum(),
            peak_is_of_this_phase: self.peak_is_of_this_phase,
            repeats: samples.iter().map(|sample| sample.repeats).sum(),
            percent_of_bound: None,
            percent_of_quic_calls: None,
            roles,
            groups: None,
            pairs: None,
        };
        Ok(figure)
    }
}
