//! CPU time and memory of the cluster's processes, summed for each role.
//!
//! Invariant: where the kernel does not let the peak be reset, the figure says that it is the peak since the start.

use crate::dev_cluster::DevFacts;
use crate::proc;
use anyhow::Context;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

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
        let processes = self.processes.iter();
        let seconds = processes.map(|process| proc::cpu_s(process.pid).with_context(|| process.role.clone()));
        Ok(CpuSeconds(seconds.collect::<anyhow::Result<_>>()?))
    }

    /// Makes the peak start again from what is resident now; false when not permitted.
    pub(super) fn reset_peak(&self) -> bool {
        self.processes.iter().all(|process| proc::reset_peak(process.pid))
    }

    /// What each role took since `before`, with its peak since the last reset.
    pub(super) fn costs(&self, before: &CpuSeconds) -> anyhow::Result<Vec<RoleCost>> {
        let now = self.cpu()?;
        let mut parts = Vec::new();
        for ((process, now), before) in self.processes.iter().zip(&now.0).zip(&before.0) {
            let peak_bytes = proc::peak_bytes(process.pid)?;
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
            resident.bytes += proc::resident_bytes(process.pid)?;
            let shared = proc::proportional_bytes(process.pid);
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

#[cfg(test)]
mod tests {
    use super::{by_role, watched};

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
