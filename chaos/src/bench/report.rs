//! The report: tables for people and one JSON file for comparing runs.

use super::bound::Bounds;
use super::figure::{Direction, Figure};
use super::goal::{self, Goal};
use super::idle::Idle;
use super::limit::{Limit, LimitName, Unit};
use super::machine::Machine;
use crate::table;
use anyhow::Context;
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Others may use so much before the run says that it was disturbed: the kernel's own work on a quiet machine. Guess.
const QUIET_CORES: f64 = 0.2;

/// Roles that took less in a phase have no row: they did not take part.
const IDLE_CPU_S: f64 = 0.05;

/// All that a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// When the run began, in seconds of Unix time.
    at_unix_s: u64,
    /// Small sizes: not to be compared with full runs.
    quick: bool,
    seed: u64,
    pub(super) machine: Machine,
    pub(super) limits: Vec<Limit>,
    /// Cores that other processes kept busy while the limits were measured.
    pub(super) neighbours_cores: Option<f64>,
    pub(super) bounds: Option<Bounds>,
    /// How the cluster of the figures ran: `processes` or `one process`.
    form: &'static str,
    pub(super) figures: Vec<Figure>,
    /// The large file at a cluster in one process, where the figures are of processes.
    pub(super) one_process_figures: Vec<Figure>,
    pub(super) idle: Vec<Idle>,
    goals: Vec<Goal>,
}

impl Report {
    pub(super) fn new(quick: bool, seed: u64, machine: Machine, limits: Vec<Limit>, form: &'static str) -> Self {
        let at_unix_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            at_unix_s,
            quick,
            seed,
            machine,
            limits,
            neighbours_cores: None,
            bounds: None,
            form,
            figures: Vec::new(),
            one_process_figures: Vec::new(),
            idle: Vec::new(),
            goals: Vec::new(),
        }
    }

    /// The limits as a table, and who was in their way.
    pub(super) fn print_limits(&self) {
        println!("\nlimits of this machine\n{}", limits_table(&self.limits));
        if let Some(cores) = self.neighbours_cores {
            println!(
                "While they were measured, others kept {cores:.2} of {} cores busy.",
                self.machine.cores
            );
            if cores > QUIET_CORES {
                println!("That is not a quiet machine: limits are too low, the bound too, and shares of it too good.");
            }
        }
        println!();
    }

    /// Sets each figure's share of its bound or limit, and holds what was measured against the goals; no share without bounds.
    pub(super) fn judge(&mut self) {
        let Some(bounds) = &self.bounds else { return };
        let calls = self.limits.iter().find(|limit| limit.name == LimitName::QuicCalls);
        for figure in self.figures.iter_mut().chain(&mut self.one_process_figures) {
            let bound = match figure.direction {
                Direction::Put => &bounds.put,
                Direction::Get => &bounds.get,
                Direction::Metadata => {
                    figure.percent_of_quic_calls = calls.map(|calls| figure.operations_per_s * 100.0 / calls.value);
                    continue;
                }
            };
            figure.percent_of_bound = Some(figure.bytes_per_s * 100.0 / bound.bytes_per_s);
        }
        // Without a cluster there is nothing to be asked of it.
        if !self.figures.is_empty() {
            let is_quiet = self.neighbours_cores.is_some_and(|cores| cores <= QUIET_CORES);
            self.goals = goal::of(&self.figures, &self.idle, bounds, is_quiet);
        }
    }

    /// An error unless every goal was measured and reached.
    pub(super) fn require_goals(&self) -> anyhow::Result<()> {
        goal::require_all(&self.goals)
    }

    /// The bounds, the figures and the goals as tables; the limits were shown when they were measured.
    pub(super) fn print(&self) {
        if let Some(bounds) = &self.bounds {
            println!(
                "bound: the unavoidable work of a user byte, cluster and load together\n{}",
                bounds.text()
            );
        }
        if self.figures.is_empty() {
            return;
        }
        let sizes = if self.quick { " (quick: small sizes)" } else { "" };
        println!("figures, {}{sizes}\n{}", self.form, figures_table(&self.figures));
        if !self.one_process_figures.is_empty() {
            println!(
                "figures, one process{sizes}\n{}",
                figures_table(&self.one_process_figures)
            );
        }
        println!(
            "Of the machine: content as a part of its bound, metadata as a part of the small calls that QUIC carries. The bound counts \
             bytes; small files are decided by commits and fsyncs, which it leaves out."
        );
        let all = self.figures.iter().chain(&self.one_process_figures);
        if all.clone().any(|figure| !figure.peak_is_of_this_phase) {
            println!("* peak since the cluster's start: this kernel does not let it be reset.");
        }
        for (name, pairs) in self
            .figures
            .iter()
            .filter_map(|figure| Some((&figure.name, figure.pairs.as_ref()?)))
        {
            println!(
                "{name}: {}. Slower is what loses more pairs than chance explains, each by more than the noise.",
                pairs.text()
            );
        }
        println!("\nwhat each role took\n{}", roles_table(&self.figures));
        println!("what the metadata groups counted\n{}", groups_table(&self.figures));
        println!("idle\n{}", idle_table(&self.idle));
        let mut rows = vec![goal::HEADING.map(str::to_owned).to_vec()];
        rows.extend(self.goals.iter().map(Goal::row));
        println!("goals\n{}", table::render(&rows));
        println!("{}", goal::summary(&self.goals));
        if self.quick {
            println!("Quick sizes: too short to say anything about a goal.");
        }
    }

    /// Writes the JSON and makes the folder for it.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        println!("written: {}", path.display());
        Ok(())
    }
}

/// The limits beside their references.
fn limits_table(limits: &[Limit]) -> String {
    let heading = ["limit", "measured", "core-ns a byte", "measured on", "reference", ""];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for limit in limits {
        rows.push(vec![
            limit.title.to_owned(),
            value(limit.unit, limit.value),
            limit
                .core_ns_per_byte
                .map_or_else(String::new, |cost| format!("{cost:.3}")),
            limit.basis.to_owned(),
            limit
                .reference
                .map_or_else(String::new, |reference| value(limit.unit, reference)),
            if limit.is_below_reference {
                "(below reference)".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    let mut text = table::render(&rows);
    text.push_str(
        "\"one core\": one thread, counted by its CPU time, best of three. References: decision 0021, two cores.\n",
    );
    text
}

fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::BytesPerSecond => format!("{:.2} GB/s", value / 1e9),
        Unit::CallsPerSecond => format!("{value:.0} a second"),
        Unit::Seconds => format!("{:.3} ms", value * 1e3),
    }
}

fn figures_table(figures: &[Figure]) -> String {
    let heading = [
        "what",
        "at once",
        "count",
        "a second",
        "MB/s",
        "of the machine",
        "",
        "p50 ms",
        "p99 ms",
        "cluster CPU s",
        "load CPU s",
        "cluster peak",
        "repeats",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for figure in figures {
        let has_content = figure.bytes > 0;
        let mark = if figure.peak_is_of_this_phase { "" } else { " *" };
        let share = figure.percent_of_bound.or(figure.percent_of_quic_calls);
        rows.push(vec![
            figure.name.clone(),
            figure.at_once.to_string(),
            figure.operations.to_string(),
            format!("{:.1}", figure.operations_per_s),
            if has_content {
                format!("{:.1}", figure.bytes_per_s / 1e6)
            } else {
                String::new()
            },
            share.map_or_else(String::new, goal::bar),
            share.map_or_else(String::new, |percent| format!("{percent:.1} %")),
            format!("{:.2}", figure.p50_ms),
            format!("{:.2}", figure.p99_ms),
            format!("{:.2}", figure.cluster_cpu_s),
            format!("{:.2}", figure.load_cpu_s),
            format!("{}{mark}", table::bytes(figure.cluster_peak_bytes)),
            figure.repeats.to_string(),
        ]);
    }
    table::render(&rows)
}

fn roles_table(figures: &[Figure]) -> String {
    let heading = [
        "what",
        "role",
        "processes",
        "CPU s",
        "largest",
        "peak",
        "largest",
        "CPU us an operation",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for figure in figures {
        // Who did nothing is in the JSON.
        let busy = figure.roles.iter().filter(|cost| cost.cpu_s >= IDLE_CPU_S);
        for (number, cost) in busy.enumerate() {
            rows.push(vec![
                if number == 0 {
                    figure.name.clone()
                } else {
                    String::new()
                },
                cost.role.clone(),
                cost.processes.to_string(),
                format!("{:.2}", cost.cpu_s),
                format!("{:.2}", cost.largest_cpu_s),
                table::bytes(cost.peak_bytes),
                table::bytes(cost.largest_peak_bytes),
                format!("{:.0}", cost.cpu_s * 1e6 / figure.operations.max(1) as f64),
            ]);
        }
    }
    table::render(&rows)
}

fn groups_table(figures: &[Figure]) -> String {
    let heading = ["what", "commands", "mean ms", "queries", "mean ms", "at followers"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (figure, groups) in figures
        .iter()
        .filter_map(|figure| Some((figure, figure.groups.as_ref()?)))
    {
        rows.push(vec![
            figure.name.clone(),
            format!("{:.0}", groups.commands),
            format!("{:.2}", groups.command_mean_ms),
            format!("{:.0}", groups.queries),
            format!("{:.2}", groups.query_mean_ms),
            format!("{:.0} %", groups.percent_at_followers),
        ]);
    }
    table::render(&rows)
}

fn idle_table(idle: &[Idle]) -> String {
    let heading = [
        "form",
        "role",
        "processes",
        "of a core",
        "resident",
        "shared pages once",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for cluster in idle {
        let once = cluster.proportional_bytes.map_or_else(String::new, table::bytes);
        let percent = format!("{:.1} %", cluster.percent_of_core);
        let processes: usize = cluster.roles.iter().map(|cost| cost.processes).sum();
        rows.push(vec![
            cluster.form.to_owned(),
            "together".to_owned(),
            processes.to_string(),
            percent,
            table::bytes(cluster.resident_bytes),
            once,
        ]);
        // Of one process the sum says it all.
        for cost in cluster.roles.iter().filter(|_| cluster.roles.len() > 1) {
            rows.push(vec![
                String::new(),
                cost.role.clone(),
                cost.processes.to_string(),
                format!("{:.1} %", cost.cpu_s * 100.0 / cluster.watched_s),
                table::bytes(cost.peak_bytes),
                String::new(),
            ]);
        }
    }
    table::render(&rows)
}
