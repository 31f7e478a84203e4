//! One figure of the cluster: how fast, how late, and what it took.

use super::limit;
use super::metadata::GroupCalls;
use super::read_pairs::ReadPairs;
use super::watch::{ClusterWatch, CpuSeconds, RoleCost};
use crate::percentile::percentile;
use anyhow::ensure;
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
    /// User bytes that moved; of metadata those that moved beside it.
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

    /// Stops the clocks; an error when nothing was done, which would look quicker than anything.
    pub(super) fn end(self, samples: &[Sample]) -> anyhow::Result<Figure> {
        ensure!(!samples.is_empty(), "nothing was done in `{}`", self.name);
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

#[cfg(test)]
pub(super) mod tests {
    use super::{Direction, Figure, Phase, Sample};
    use crate::bench::watch::ClusterWatch;
    use crate::dev_cluster::DevFacts;
    use std::time::Duration;

    /// A figure of nothing.
    pub(in crate::bench) fn figure(name: &str) -> Figure {
        Figure {
            name: name.to_owned(),
            direction: Direction::Metadata,
            at_once: 64,
            operations: 1,
            bytes: 0,
            wall_s: 1.0,
            operations_per_s: 1.0,
            bytes_per_s: 0.0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            cluster_cpu_s: 0.0,
            load_cpu_s: 0.0,
            cluster_peak_bytes: 0,
            peak_is_of_this_phase: true,
            repeats: 0,
            percent_of_bound: None,
            percent_of_quic_calls: None,
            roles: Vec::new(),
            groups: None,
            pairs: None,
        }
    }

    #[test]
    fn a_phase_in_which_nothing_was_done_is_an_error_and_no_quick_figure() {
        // This process stands for a cluster.
        let facts = DevFacts {
            url: String::new(),
            user: String::new(),
            password: String::new(),
            admin_token: String::new(),
            profile: String::new(),
            processes: Vec::new(),
        };
        let watch = ClusterWatch::of(&facts, std::process::id());
        let begin = || Phase::begin(&watch, "x".to_owned(), Direction::Put, 1).unwrap();
        let error = begin().end(&[]).unwrap_err();
        assert!(error.to_string().contains("nothing was done in `x`"), "{error}");
        let sample = |took_ms| Sample {
            took: Duration::from_millis(took_ms),
            bytes: 3,
            repeats: 1,
        };
        let figure = begin().end(&[sample(4), sample(2)]).unwrap();
        assert_eq!((figure.operations, figure.bytes, figure.repeats), (2, 6, 2));
        assert_eq!((figure.p50_ms, figure.p99_ms), (2.0, 4.0));
    }
}
