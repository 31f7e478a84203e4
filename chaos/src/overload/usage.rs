//! What the processes used meanwhile, out of /proc: CPU time of the cluster and of the load maker, memory of the gateway.
//!
//! Not here: what the machine could give (`bench`).

use crate::dev_cluster::DevCluster;
use anyhow::Context;
use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

/// The processes of a cluster, and this one.
pub(super) struct Usage {
    cluster: BTreeSet<u32>,
    gateways: BTreeSet<u32>,
}

/// One look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    at: Instant,
    cluster_cpu_s: f64,
    own_cpu_s: f64,
}

/// Cores that were busy between two looks, on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    pub(super) cluster: f64,
    pub(super) load: f64,
}

impl Usage {
    pub(super) fn of(cluster: &DevCluster) -> Self {
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

    pub(super) fn look(&self) -> anyhow::Result<Look> {
        let cluster = self.cluster.iter().map(|pid| cpu_s(&pid.to_string()));
        Ok(Look {
            at: Instant::now(),
            cluster_cpu_s: cluster.sum::<anyhow::Result<f64>>()?,
            own_cpu_s: cpu_s("self")?,
        })
    }

    /// Makes the gateways' peaks begin again; false where the kernel does not let us, and then peaks are since the start.
    pub(super) fn reset_peaks(&self) -> bool {
        let mut gateways = self.gateways.iter();
        gateways.all(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok())
    }

    /// Peak resident bytes of the gateways, which in one process are the whole cluster's.
    pub(super) fn gateway_peak_bytes(&self) -> anyhow::Result<u64> {
        let mut kib = 0;
        for pid in &self.gateways {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the gateway is gone")?;
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.context("the kernel tells no peak")?;
            kib += peak.trim().trim_end_matches("kB").trim().parse::<u64>()?;
        }
        Ok(kib << 10)
    }
}

impl Look {
    pub(super) fn until(&self, later: &Self) -> Cores {
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

/// User and system time of a process. Its name, the second field, may hold blanks and brackets: counting begins behind its last one.
fn cpu_s(pid: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let fields = stat
        .rsplit_once(')')
        .map(|(_, fields)| fields)
        .context("stat has no name")?;
    let mut times = fields.split_whitespace().skip(14 - 3).map(str::parse::<u64>);
    let (user, system) = (
        times.next().context("stat is short")??,
        times.next().context("stat is short")??,
    );
    Ok((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}
