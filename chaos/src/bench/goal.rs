//! What was asked for, and whether it was reached: each goal beside its figure, with a bar.
//!
//! Pure. Invariant: a figure that was not measured has no row, so a partial run never looks like one that reached everything.
//! Not here: the bound that two of the goals are a part of (`bound`). Source of the goals: decision 0021 and the design's figures for
//! two cores; MB are 10^6 bytes.

use super::bound::Bounds;
use super::figure::Figure;
use super::idle::{Idle, ONE_PROCESS, PROCESSES};
use super::read_pairs::ReadPairs;
use serde::Serialize;

/// What a large transfer is to reach of its bound.
const SHARE_OF_BOUND: f64 = 0.60;
const BAR_CELLS: usize = 20;

/// A goal and its figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) value: f64,
    pub(super) asked: f64,
    /// False where less is better.
    pub(super) is_at_least: bool,
    pub(super) is_reached: bool,
    /// The value as a part of what was asked; above 100 is good where more is, and bad where less is.
    pub(super) percent_of_asked: f64,
}

impl Goal {
    /// `value` is to be at least `asked`.
    pub(super) fn at_least(what: impl Into<String>, unit: &'static str, value: f64, asked: f64) -> Self {
        Self::new(what.into(), unit, value, asked, true)
    }

    /// `value` is to be at most `asked`.
    pub(super) fn at_most(what: impl Into<String>, unit: &'static str, value: f64, asked: f64) -> Self {
        Self::new(what.into(), unit, value, asked, false)
    }

    fn new(what: String, unit: &'static str, value: f64, asked: f64, is_at_least: bool) -> Self {
        Self {
            what,
            unit,
            value,
            asked,
            is_at_least,
            is_reached: if is_at_least { value >= asked } else { value <= asked },
            percent_of_asked: value * 100.0 / asked,
        }
    }

    /// Its row of the table.
    pub(super) fn row(&self) -> Vec<String> {
        let asked = if self.is_at_least { "at least" } else { "at most" };
        vec![
            self.what.clone(),
            number(self.value, self.unit),
            format!("{asked} {}", number(self.asked, self.unit)),
            bar(self.percent_of_asked),
            format!("{:.0} %", self.percent_of_asked),
            if self.is_reached { "reached" } else { "missed" }.to_owned(),
        ]
    }
}

/// The heading of the table.
pub(super) const HEADING: [&str; 6] = ["goal", "measured", "asked", "measured of asked", "", ""];

/// A bar of fixed width that is full at 100 percent.
pub(super) fn bar(percent: f64) -> String {
    let full = (percent / 100.0 * BAR_CELLS as f64)
        .round()
        .clamp(0.0, BAR_CELLS as f64) as usize;
    format!("{}{}", "#".repeat(full), "-".repeat(BAR_CELLS - full))
}

fn number(value: f64, unit: &str) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Every goal whose figure was measured. `largest_upload` names the upload by which the gateway's memory is judged.
pub(super) fn of(figures: &[Figure], idle: &[Idle], bounds: Option<&Bounds>) -> Vec<Goal> {
    let mut goals = Vec::new();
    let figure = |name: &str| figures.iter().find(|figure| figure.name == name);
    if let Some(bounds) = bounds {
        for (name, bound) in [("PUT 1.0 GiB", &bounds.put), ("GET 1.0 GiB", &bounds.get)] {
            if let Some(figure) = figure(name) {
                let what = format!("{name}, {:.0} % of the bound", SHARE_OF_BOUND * 100.0);
                let asked = bound.bytes_per_s * SHARE_OF_BOUND / 1e6;
                goals.push(Goal::at_least(what, "MB/s", figure.bytes_per_s / 1e6, asked));
            }
        }
    }
    for (name, asked) in [("PUT 4.0 KiB", 2_000.0), ("PUT 64.0 KiB", 600.0)] {
        if let Some(figure) = figure(name) {
            goals.push(Goal::at_least(name, "a second", figure.operations_per_s, asked));
        }
    }
    if let Some(figure) = figure(super::file_batches::BATCHED) {
        goals.push(Goal::at_least(
            &figure.name,
            "a second",
            figure.operations_per_s,
            3_000.0,
        ));
    }
    if let Some(figure) = figure("PUT 4.0 KiB") {
        goals.push(Goal::at_most("PUT 4.0 KiB p99", "ms", figure.p99_ms, 100.0));
    }
    if let Some(page) = figures.iter().find(|figure| figure.name.starts_with("page of ")) {
        goals.push(Goal::at_most(format!("{} p50", page.name), "ms", page.p50_ms, 10.0));
        goals.push(Goal::at_most(format!("{} p99", page.name), "ms", page.p99_ms, 30.0));
    }
    if let Some(figure) = figure(super::metadata::COMMIT_ALONE) {
        goals.push(Goal::at_most(format!("{} p50", figure.name), "ms", figure.p50_ms, 5.0));
    }
    if let Some(figure) = figure(super::beside::NAME) {
        goals.push(Goal::at_most(
            format!("{} p99", figure.name),
            "ms",
            figure.p99_ms,
            100.0,
        ));
    }
    // Three replicas on the cores of one: reading at a follower is to cost no more. The one goal whose miss fails a run.
    let nearest = figure(super::metadata::READS_AT_NEAREST);
    goals.extend(nearest.and_then(|figure| Some(of_pairs(&figure.name, figure.pairs.as_ref()?))));
    let largest = figures.iter().filter(|figure| figure.name.starts_with("PUT "));
    if let Some(upload) = largest.max_by_key(|figure| figure.bytes / figure.operations.max(1) as u64)
        && let Some(gateway) = upload.roles.iter().find(|cost| cost.role == "gateway")
    {
        let what = format!("gateway's peak memory in {}", upload.name);
        goals.push(Goal::at_most(
            what,
            "MB",
            gateway.largest_peak_bytes as f64 / 1e6,
            150.0,
        ));
    }
    goals.extend(idle.iter().flat_map(of_idle));
    goals
}

/// Its median is beside 1, and it is missed where the pairs say more than chance does.
fn of_pairs(name: &str, pairs: &ReadPairs) -> Goal {
    Goal {
        is_reached: !pairs.is_slower(),
        ..Goal::at_least(name, "of the leader's", pairs.ratios.median, 1.0)
    }
}

fn of_idle(idle: &Idle) -> Vec<Goal> {
    let megabytes = idle.resident_bytes as f64 / 1e6;
    match idle.form {
        ONE_PROCESS => vec![
            Goal::at_most("idle in one process, memory", "MB", megabytes, 400.0),
            Goal::at_most("idle in one process, of a core", "%", idle.percent_of_core, 2.0),
        ],
        PROCESSES => vec![Goal::at_most("idle as processes, memory", "MB", megabytes, 700.0)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Goal, bar};

    #[test]
    fn a_goal_is_reached_at_its_own_value_from_either_side() {
        for (is_at_least, value, expected) in [
            (true, 99.9, false),
            (true, 100.0, true),
            (true, 250.0, true),
            (false, 100.0, true),
            (false, 100.1, false),
            (false, 0.0, true),
        ] {
            let goal = Goal::new("x".to_owned(), "ms", value, 100.0, is_at_least);
            assert_eq!(goal.is_reached, expected, "{is_at_least} {value}");
        }
    }

    #[test]
    fn a_row_says_what_was_measured_asked_and_reached() {
        let row = Goal::at_most("commit p50", "ms", 2.5, 5.0).row();
        let expected = [
            "commit p50",
            "2.50 ms",
            "at most 5.00 ms",
            "##########----------",
            "50 %",
            "reached",
        ];
        assert_eq!(row, expected);
        assert_eq!(Goal::at_least("rate", "a second", 150.0, 2_000.0).row()[5], "missed");
    }

    #[test]
    fn a_bar_is_full_at_the_goal_and_stays_within_its_width() {
        for (percent, full) in [
            (0.0, 0),
            (1.0, 0),
            (50.0, 10),
            (99.9, 20),
            (100.0, 20),
            (900.0, 20),
            (-3.0, 0),
        ] {
            let bar = bar(percent);
            assert_eq!(bar.len(), 20, "{percent}");
            assert_eq!(bar.matches('#').count(), full, "{percent}");
        }
        assert_eq!(bar(f64::NAN).len(), 20);
    }
}
