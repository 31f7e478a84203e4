//! The report: tables for people and one JSON file for comparing runs.

use super::bound::Bounds;
use super::figure::{Direction, Figure};
use super::limit::{Limit, Unit};
use super::machine::Machine;
use crate::table;
use anyhow::Context;
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Others may use so much before the run says that it was disturbed: the kernel's own work on a quiet machine. Guess.
const QUIET_CORES: f64 = 0.2;

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
    pub(super) figures: Vec<Figure>,
}

impl Report {
    pub(super) fn new(quick: bool, seed: u64, machine: Machine, limits: Vec<Limit>) -> Self {
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
            figures: Vec::new(),
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

    /// Sets each figure's share of its bound; no share without bounds.
    pub(super) fn hold_against_bounds(&mut self) {
        let Some(bounds) = &self.bounds else { return };
        for figure in &mut self.figures {
            let bound = match figure.direction {
                Direction::Put => &bounds.put,
                Direction::Get => &bounds.get,
                Direction::Metadata => continue,
            };
            figure.percent_of_bound = Some(figure.bytes_per_s * 100.0 / bound.bytes_per_s);
        }
    }

    /// The bounds and the figures as tables; the limits were shown when they were measured.
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
        println!(
            "figures{}\n{}",
            if self.quick { " (quick: small sizes)" } else { "" },
            figures_table(&self.figures)
        );
        println!("The bound counts bytes; small files are decided by commits and fsyncs, which it leaves out.");
        if self.figures.iter().any(|figure| !figure.peak_is_of_this_phase) {
            println!("* peak since the cluster's start: this kernel does not let it be reset.");
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
        "of bound",
        "p50 ms",
        "p99 ms",
        "cluster CPU s",
        "load CPU s",
        "cluster peak",
        "repeats",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for figure in figures {
        let has_content = figure.direction != Direction::Metadata;
        let mark = if figure.peak_is_of_this_phase { "" } else { " *" };
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
            figure
                .percent_of_bound
                .map_or_else(String::new, |percent| format!("{percent:.1} %")),
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
