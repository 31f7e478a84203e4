//! What the processes used meanwhile: CPU time of the cluster and of the load maker, memory of the gateway.
//!
//! Not here: what the machine could give (`bench`).

use crate::dev_cluster::DevCluster;
use crate::proc;
use anyhow::Context;
use std::collections::BTreeSet;
use std::time::Instant;

/// The processes of a cluster, and this one.
pub(crate) struct Usage {
    cluster: BTreeSet<u32>,
    gateways: BTreeSet<u32>,
}

/// One look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    at: Instant,
    cluster_cpu_s: f64,
    own_cpu_s: f64,
}

/// Cores that were busy between two looks, on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) cluster: f64,
    pub(crate) load: f64,
}

impl Usage {
    pub(crate) fn of(cluster: &DevCluster) -> Self {
        let pids = |role: Option<&str>| -> BTreeSet<u32> {
            let processes = cluster.facts.processes.iter();
            let of_role = processes.filter(|process| role.is_none_or(|role| process.role == role));
            of_role.filter_map(|process| process.pid).collect()
        };
        let mut all = pids(None);
        all.insert(cluster.pid());
        Self {
            cluster: all,
            gateways: pids(Some("gateway")),
        }
    }

    pub(crate) fn look(&self) -> anyhow::Result<Look> {
        let cluster = self.cluster.iter().map(|pid| proc::cpu_s(*pid));
        Ok(Look {
            at: Instant::now(),
            cluster_cpu_s: cluster.sum::<anyhow::Result<f64>>()?,
            own_cpu_s: proc::cpu_s(std::process::id())?,
        })
    }

    /// Makes the gateways' peaks begin again; false where the kernel does not let us, and then peaks are since the start.
    pub(crate) fn reset_peaks(&self) -> bool {
        self.gateways.iter().all(|pid| proc::reset_peak(*pid))
    }

    /// Peak resident bytes of the gateways, which in one process are the whole cluster's.
    pub(crate) fn gateway_peak_bytes(&self) -> anyhow::Result<u64> {
        self.gateways.iter().map(|pid| proc::peak_bytes(*pid)).sum()
    }

    /// Peak resident bytes of the gateway that took most.
    pub(crate) fn largest_gateway_peak_bytes(&self) -> anyhow::Result<u64> {
        let peaks = self.gateways.iter().map(|pid| proc::peak_bytes(*pid));
        let peaks = peaks.collect::<anyhow::Result<Vec<u64>>>()?;
        peaks.into_iter().max().context("no gateway runs")
    }
}

impl Look {
    pub(crate) fn until(&self, later: &Self) -> Cores {
        let span_s = later
            .at
            .saturating_duration_since(self.at)
            .as_secs_f64()
            .max(f64::EPSILON);
        Cores {
            cluster: (later.cluster_cpu_s - self.cluster_cpu_s) / span_s,
            load: (later.own_cpu_s - self.own_cpu_s) / span_s,
        }
    }
}
