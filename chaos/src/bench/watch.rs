//! CPU time and memory of the cluster's processes, out of /proc, and summed for each role.
//!
//! Invariant: where the kernel does not let the peak be reset, the figure says that it is the peak since the start.

use super::machine::field;
use crate::dev_cluster::DevFacts;
use anyhow::{Context, anyhow};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The role of a process that has several.
const ALL_ROLES: &str = "all roles";
/// What starts the others and watches them.
const PARENT: &str = "parent";

/// The processes of one cluster.
pub(super) struct ClusterWatch {
    /// In the order of their roles.
    processes: Vec<Watched>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    role: String,
    pid: u32,
}

/// What the processes of one role took in a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RoleCost {
    pub(super) role: String,
    pub(super) processes: usize,
    /// User and system time of all, and of the one that took most.
    pub(super) cpu_s: f64,
    pub(super) largest_cpu_s: f64,
    /// Peak resident bytes (VmHWM), summed, and of the largest.
    pub(super) peak_bytes: u64,
    pub(super) largest_peak_bytes: u64,
}

/// Resident memory as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    /// Summed over the processes: what several share, such as the program itself, counts once for each.
    pub(super) bytes: u64,
    /// The same with shared pages counted once; none where the kernel does not tell.
    pub(super) proportional_bytes: Option<u64>,
}

/// CPU seconds of each process at one moment, in the order of the watch.
pub(super) struct CpuSeconds(Vec<f64>);

impl ClusterWatch {
    /// Every process that the cluster told of, and `parent`, which is the cluster itself when it is one process.
    pub(super) fn of(facts: &DevFacts, parent: u32) -> Self {
        let told = facts.processes.iter();
        let told = told.filter_map(|process| Some((process.role.as_str(), process.pid?)));
        Self {
            processes: watched(told, parent),
        }
    }

    /// All process ids.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.pid).collect()
    }

    /// The role of each process id.
    pub(super) fn roles(&self) -> BTreeMap<u32, String> {
        let processes = self.processes.iter();
        processes.map(|process| (process.pid, process.role.clone())).collect()
    }

    /// User and system CPU seconds since the start of each.
    pub(super) fn cpu(&self) -> anyhow::Result<CpuSeconds> {
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let seconds = self.processes.iter().map(|process| {
            let path = format!("/proc/{}/stat", process.pid);
            let stat = fs::read_to_string(&path).with_context(|| format!("{} is gone", process.role))?;
            let ticks = cpu_ticks(&stat).with_context(|| format!("read {path}"))?;
            Ok(ticks as f64 / ticks_per_s)
        });
        Ok(CpuSeconds(seconds.collect::<anyhow::Result<_>>()?))
    }

    /// Makes the peak start again from what is resident now; false when not permitted.
    pub(super) fn reset_peak(&self) -> bool {
        let mut pids = self.processes.iter().map(|process| process.pid);
        pids.all(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok())
    }

    /// What each role took since `before`, with its peak since the last reset.
    pub(super) fn costs(&self, before: &CpuSeconds) -> anyhow::Result<Vec<RoleCost>> {
        let now = self.cpu()?;
        let mut parts = Vec::new();
        for ((process, now), before) in self.processes.iter().zip(&now.0).zip(&before.0) {
            let peak_bytes = status_bytes(process.pid, "VmHWM")?;
            parts.push((process.role.as_str(), now - before, peak_bytes));
        }
        Ok(by_role(&parts))
    }

    /// What is resident now.
    pub(super) fn resident(&self) -> anyhow::Result<Resident> {
        let mut resident = Resident {
            bytes: 0,
            proportional_bytes: Some(0),
        };
        for process in &self.processes {
            resident.bytes += status_bytes(process.pid, "VmRSS")?;
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok();
            let shared = rollup.and_then(|text| kib(&field(&text, "Pss")?));
            resident.proportional_bytes = resident.proportional_bytes.zip(shared).map(|(sum, own)| sum + own);
        }
        Ok(resident)
    }
}

/// Process ids with their roles, each once.
fn watched<'a>(told: impl Iterator<Item = (&'a str, u32)>, parent: u32) -> Vec<Watched> {
    let mut roles: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for (role, pid) in told {
        roles.entry(pid).or_default().insert(role);
    }
    roles.entry(parent).or_insert_with(|| BTreeSet::from([PARENT]));
    let mut processes: Vec<Watched> = roles
        .into_iter()
        .map(|(pid, roles)| Watched {
            role: match roles.first() {
                Some(role) if roles.len() == 1 => (*role).to_owned(),
                _ => ALL_ROLES.to_owned(),
            },
            pid,
        })
        .collect();
    processes.sort_by(|left, right| left.role.cmp(&right.role));
    processes
}

/// Sums and largest of each role, in the order of the names.
fn by_role(parts: &[(&str, f64, u64)]) -> Vec<RoleCost> {
    let mut costs: BTreeMap<&str, RoleCost> = BTreeMap::new();
    for (role, cpu_s, peak_bytes) in parts {
        let cost = costs.entry(role).or_insert_with(|| RoleCost {
            role: (*role).to_owned(),
            processes: 0,
            cpu_s: 0.0,
            largest_cpu_s: 0.0,
            peak_bytes: 0,
            largest_peak_bytes: 0,
        });
        cost.processes += 1;
        cost.cpu_s += cpu_s;
        cost.largest_cpu_s = cost.largest_cpu_s.max(*cpu_s);
        cost.peak_bytes += peak_bytes;
        cost.largest_peak_bytes = cost.largest_peak_bytes.max(*peak_bytes);
    }
    costs.into_values().collect()
}

/// A line of proc_pid_status(5) that counts kilobytes, in bytes.
fn status_bytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the cluster is gone")?;
    let value = field(&status, name).and_then(|value| kib(&value));
    value.ok_or_else(|| anyhow!("/proc/{pid}/status has no {name}"))
}

fn kib(value: &str) -> Option<u64> {
    let count: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(count << 10)
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
    use super::{by_role, cpu_ticks, kib, watched};

    #[test]
    fn ticks_are_read_behind_a_name_with_blanks_and_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 120 34 5 6 20 0 1 0 9 1 1";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn kilobytes_are_counted_in_bytes_and_nothing_else_is() {
        assert_eq!(kib("12 kB"), Some(12 << 10));
        assert_eq!(kib("12"), None);
        assert_eq!(kib("x kB"), None);
    }

    fn roles(told: &[(&str, u32)], parent: u32) -> Vec<(String, u32)> {
        let all = watched(told.iter().copied(), parent).into_iter();
        all.map(|process| (process.role, process.pid)).collect()
    }

    #[test]
    fn processes_of_their_own_have_their_roles_and_a_parent() {
        let told = [("node", 7), ("metadata", 9), ("node", 8)];
        let expected = [("metadata", 9), ("node", 7), ("node", 8), ("parent", 5)];
        assert_eq!(roles(&told, 5), expected.map(|(role, pid)| (role.to_owned(), pid)));
    }

    #[test]
    fn roles_of_one_process_are_one() {
        assert_eq!(
            roles(&[("node", 5), ("metadata", 5), ("node", 5)], 5),
            [("all roles".to_owned(), 5)]
        );
    }

    #[test]
    fn a_role_is_summed_and_its_largest_is_kept() {
        let costs = by_role(&[("node", 1.0, 30), ("gateway", 4.0, 7), ("node", 2.0, 20)]);
        assert_eq!(costs.len(), 2);
        assert_eq!(
            (costs[0].role.as_str(), costs[0].cpu_s, costs[0].peak_bytes),
            ("gateway", 4.0, 7)
        );
        let nodes = &costs[1];
        assert_eq!((nodes.processes, nodes.cpu_s, nodes.largest_cpu_s), (2, 3.0, 2.0));
        assert_eq!((nodes.peak_bytes, nodes.largest_peak_bytes), (50, 30));
    }
}
