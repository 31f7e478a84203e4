//! CPU time and peak memory of the cluster's processes, out of /proc.
//!
//! Invariant: where the kernel does not let the peak be reset, the figure says that it is the peak since the start.

use super::machine::field;
use crate::dev_cluster::DevCluster;
use anyhow::{Context, anyhow};
use std::collections::BTreeSet;
use std::fs;

/// The processes of one cluster.
pub(super) struct ClusterWatch {
    pids: BTreeSet<u32>,
}

impl ClusterWatch {
    /// Every process that the cluster told of; in the embedded form they are one.
    pub(super) fn of(cluster: &DevCluster) -> Self {
        let told = cluster.facts.processes.iter().filter_map(|process| process.pid);
        Self {
            pids: told.chain([cluster.pid()]).collect(),
        }
    }

    /// User and system CPU seconds since the start, summed.
    pub(super) fn cpu_s(&self) -> anyhow::Result<f64> {
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let mut ticks = 0;
        for pid in &self.pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the cluster is gone")?;
            ticks += cpu_ticks(&stat).with_context(|| format!("read /proc/{pid}/stat"))?;
        }
        Ok(ticks as f64 / ticks_per_s)
    }

    /// Makes the peak start again from what is resident now; false when not permitted.
    pub(super) fn reset_peak(&self) -> bool {
        self.pids
            .iter()
            .all(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok())
    }

    /// Peak resident bytes, summed.
    pub(super) fn peak_bytes(&self) -> anyhow::Result<u64> {
        let mut peak_kib = 0;
        for pid in &self.pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the cluster is gone")?;
            let value = field(&status, "VmHWM").ok_or_else(|| anyhow!("/proc/{pid}/status has no VmHWM"))?;
            peak_kib += value.trim_end_matches("kB").trim().parse::<u64>()?;
        }
        Ok(peak_kib << 10)
    }
}

/// utime and stime, fields 14 and 15 of proc_pid_stat(5). The name, field 2, may hold blanks and brackets, so counting begins
/// behind its last bracket with field 3.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::cpu_ticks;

    #[test]
    fn ticks_are_read_behind_a_name_with_blanks_and_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 120 34 5 6 20 0 1 0 9 1 1";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }
}
