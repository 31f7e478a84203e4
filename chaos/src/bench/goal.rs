//! What was asked for, and whether it was reached: each goal beside its figure, with a bar.
//!
//! Pure. Invariants: a goal whose figure was not measured has its row and is not reached, so a partial run never looks like one that
//! reached everything; a part of a bound that others on the machine made smaller is no part of the machine's, and not reached either.
//! Not here: the bound that two of the goals are a part of (`bound`). Source of the goals: decision 0021 and the design's figures for
//! two cores; MB are 10^6 bytes.

use super::bound::Bounds;
use super::figure::Figure;
use super::idle::{Idle, ONE_PROCESS, PROCESSES};
use super::load::{get_row, put_row};
use super::{LARGEST_UPLOAD_BYTES, beside, file_batches, metadata};
use anyhow::ensure;
use serde::Serialize;

/// What a large transfer is to reach of its bound.
const SHARE_OF_BOUND: f64 = 0.60;
/// What is large there.
const LARGE_BYTES: u64 = 1 << 30;
const BAR_CELLS: usize = 20;

/// What a goal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Reached,
    Missed,
    /// Its figure is not of this run.
    NotMeasured,
    /// It would be reached, but its bound was measured while others used the machine, so the machine's own is higher.
    Disturbed,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
            Self::Disturbed => "not known: the bound was disturbed",
        }
    }
}

/// A goal and its figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) unit: &'static str,
    /// Absent where it was not measured.
    pub(super) value: Option<f64>,
    pub(super) asked: f64,
    /// False where less is better.
    pub(super) is_at_least: bool,
    pub(super) verdict: Verdict,
    /// The value as a part of what was asked; above 100 is good where more is, and bad where less is.
    pub(super) percent_of_asked: Option<f64>,
}

impl Goal {
    /// `value` is to be at least `asked`.
    pub(super) fn at_least(what: impl Into<String>, unit: &'static str, value: Option<f64>, asked: f64) -> Self {
        Self::new(what.into(), unit, value, asked, true)
    }

    /// `value` is to be at most `asked`.
    pub(super) fn at_most(what: impl Into<String>, unit: &'static str, value: Option<f64>, asked: f64) -> Self {
        Self::new(what.into(), unit, value, asked, false)
    }

    fn new(what: String, unit: &'static str, value: Option<f64>, asked: f64, is_at_least: bool) -> Self {
        let is_reached = |value: f64| if is_at_least { value >= asked } else { value <= asked };
        Self {
            what,
            unit,
            value,
            asked,
            is_at_least,
            verdict: match value.map(is_reached) {
                None => Verdict::NotMeasured,
                Some(true) => Verdict::Reached,
                Some(false) => Verdict::Missed,
            },
            percent_of_asked: value.map(|value| value * 100.0 / asked),
        }
    }

    /// The same goal, asked of a bound that others made smaller: what misses even that is missed.
    fn disturbed(mut self) -> Self {
        if self.verdict == Verdict::Reached {
            self.verdict = Verdict::Disturbed;
        }
        self
    }

    /// Its row of the table.
    pub(super) fn row(&self) -> Vec<String> {
        let asked = if self.is_at_least { "at least" } else { "at most" };
        let percent = self.percent_of_asked;
        vec![
            self.what.clone(),
            self.value.map_or_else(String::new, |value| number(value, self.unit)),
            format!("{asked} {}", number(self.asked, self.unit)),
            percent.map_or_else(String::new, bar),
            percent.map_or_else(String::new, |percent| format!("{percent:.0} %")),
            self.verdict.word().to_owned(),
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

/// How many goals came to what, in a line.
pub(super) fn summary(goals: &[Goal]) -> String {
    let count = |wanted: Verdict| goals.iter().filter(|goal| goal.verdict == wanted).count();
    let mut text = format!("{} of {} goals reached", count(Verdict::Reached), goals.len());
    for (verdict, said) in [
        (Verdict::Missed, "missed"),
        (Verdict::NotMeasured, "not measured"),
        (Verdict::Disturbed, "not known, since others used the machine"),
    ] {
        if count(verdict) > 0 {
            text.push_str(&format!(", {} {said}", count(verdict)));
        }
    }
    text
}

/// An error that names each goal which was not reached; also where nothing was asked.
pub(super) fn require_all(goals: &[Goal]) -> anyhow::Result<()> {
    ensure!(!goals.is_empty(), "nothing was judged: no cluster was measured");
    let others = goals.iter().filter(|goal| goal.verdict != Verdict::Reached);
    let others: Vec<String> = others
        .map(|goal| format!("{} ({})", goal.what, goal.verdict.word()))
        .collect();
    ensure!(others.is_empty(), "goals: {}", others.join("; "));
    Ok(())
}

/// Every goal of the bench, with its figure where there is one. `is_quiet` says that nobody else used the machine while its limits
/// were measured.
pub(super) fn of(figures: &[Figure], idle: &[Idle], bounds: &Bounds, is_quiet: bool) -> Vec<Goal> {
    let mut goals = of_bounds(figures, bounds, is_quiet);
    goals.extend(of_phases(figures));
    // Three replicas on the cores of one: reading at a follower is to cost no more. The one goal whose miss fails a run.
    goals.push(of_pairs(figures));
    for length_bytes in [LARGE_BYTES, LARGEST_UPLOAD_BYTES] {
        goals.push(of_upload_memory(figures, &put_row(length_bytes)));
    }
    goals.extend(of_idle(idle));
    goals
}

fn find<'a>(figures: &'a [Figure], name: &str) -> Option<&'a Figure> {
    figures.iter().find(|figure| figure.name == name)
}

fn of_bounds(figures: &[Figure], bounds: &Bounds, is_quiet: bool) -> Vec<Goal> {
    let rows = [(put_row(LARGE_BYTES), &bounds.put), (get_row(LARGE_BYTES), &bounds.get)];
    let goals = rows.into_iter().map(|(name, bound)| {
        let value = find(figures, &name).map(|figure| figure.bytes_per_s / 1e6);
        let what = format!("{name}, {:.0} % of the bound", SHARE_OF_BOUND * 100.0);
        let goal = Goal::at_least(what, "MB/s", value, bound.bytes_per_s * SHARE_OF_BOUND / 1e6);
        if is_quiet { goal } else { goal.disturbed() }
    });
    goals.collect()
}

fn of_phases(figures: &[Figure]) -> Vec<Goal> {
    let rate = |name: &str, asked: f64| {
        let value = find(figures, name).map(|figure| figure.operations_per_s);
        Goal::at_least(name, "a second", value, asked)
    };
    let within = |said: String, value: Option<f64>, asked_ms: f64| Goal::at_most(said, "ms", value, asked_ms);
    let p50 = |name: &str| find(figures, name).map(|figure| figure.p50_ms);
    let p99 = |name: &str| find(figures, name).map(|figure| figure.p99_ms);
    let small = put_row(4 << 10);
    // The folder is as wide as the run is long.
    let page = figures.iter().find(|figure| figure.name.starts_with("page of "));
    let page_name = page.map_or("page of 1000", |page| page.name.as_str());
    let commit = metadata::COMMIT_ALONE;
    // Of calls beside which no upload came to its end nothing is known.
    let beside = find(figures, beside::NAME).filter(|figure| figure.bytes > 0);
    vec![
        rate(&small, 2_000.0),
        rate(&put_row(64 << 10), 600.0),
        rate(file_batches::BATCHED, 3_000.0),
        within(format!("{small} p99"), p99(&small), 100.0),
        within(format!("{page_name} p50"), page.map(|page| page.p50_ms), 10.0),
        within(format!("{page_name} p99"), page.map(|page| page.p99_ms), 30.0),
        within(format!("{commit} p50"), p50(commit), 5.0),
        within(
            format!("{} p99", beside::NAME),
            beside.map(|figure| figure.p99_ms),
            100.0,
        ),
    ]
}

/// Its median is beside 1, and it is missed where the pairs say more than chance does.
fn of_pairs(figures: &[Figure]) -> Goal {
    let name = metadata::READS_AT_NEAREST;
    let pairs = find(figures, name).and_then(|figure| figure.pairs.as_ref());
    // Where the nearest replica led, nothing was compared.
    let pairs = pairs.filter(|pairs| pairs.percent_at_followers_min >= metadata::PERCENT_AT_FOLLOWERS_MIN);
    let mut goal = Goal::at_least(name, "of the leader's", pairs.map(|pairs| pairs.ratios.median), 1.0);
    if let Some(pairs) = pairs {
        goal.verdict = match pairs.is_slower() {
            true => Verdict::Missed,
            false => Verdict::Reached,
        };
    }
    goal
}

/// Of a gateway that is a process of its own, the one that took most.
fn of_upload_memory(figures: &[Figure], name: &str) -> Goal {
    let upload = find(figures, name);
    let since = match upload {
        Some(upload) if !upload.peak_is_of_this_phase => ", since its start",
        _ => "",
    };
    let gateway = upload.and_then(|upload| upload.roles.iter().find(|cost| cost.role == "gateway"));
    Goal::at_most(
        format!("gateway's peak memory in {name}{since}"),
        "MB",
        gateway.map(|gateway| gateway.largest_peak_bytes as f64 / 1e6),
        150.0,
    )
}

fn of_idle(idle: &[Idle]) -> [Goal; 3] {
    let of = |form: &str| idle.iter().find(|idle| idle.form == form);
    let megabytes = |form: &str| of(form).map(|idle| idle.resident_bytes as f64 / 1e6);
    let of_core = of(ONE_PROCESS).map(|idle| idle.percent_of_core);
    [
        Goal::at_most("idle in one process, memory", "MB", megabytes(ONE_PROCESS), 400.0),
        Goal::at_most("idle in one process, of a core", "%", of_core, 2.0),
        Goal::at_most("idle as processes, memory", "MB", megabytes(PROCESSES), 700.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Goal, LARGE_BYTES, Verdict, bar, of, require_all, summary};
    use crate::bench::bound::Bounds;
    use crate::bench::bound::tests::reference;
    use crate::bench::figure::Figure;
    use crate::bench::figure::tests::figure;
    use crate::bench::idle::{Idle, ONE_PROCESS, PROCESSES};
    use crate::bench::load::{get_row, put_row};
    use crate::bench::metadata::{COMMIT_ALONE, READS_AT_NEAREST};
    use crate::bench::read_pairs::ReadPairs;
    use crate::bench::watch::RoleCost;
    use crate::bench::{LARGEST_UPLOAD_BYTES, beside, file_batches};
    use crate::pairs::Pairs;

    #[test]
    fn a_goal_is_reached_at_its_own_value_from_either_side_and_by_no_number_that_is_none() {
        for (is_at_least, value, expected) in [
            (true, 99.9, Verdict::Missed),
            (true, 100.0, Verdict::Reached),
            (true, 250.0, Verdict::Reached),
            (true, f64::NAN, Verdict::Missed),
            (false, 100.0, Verdict::Reached),
            (false, 100.1, Verdict::Missed),
            (false, 0.0, Verdict::Reached),
            (false, f64::NAN, Verdict::Missed),
        ] {
            let goal = Goal::new("x".to_owned(), "ms", Some(value), 100.0, is_at_least);
            assert_eq!(goal.verdict, expected, "{is_at_least} {value}");
        }
    }

    #[test]
    fn a_row_says_what_was_measured_asked_and_reached() {
        let row = Goal::at_most("commit p50", "ms", Some(2.5), 5.0).row();
        let expected = [
            "commit p50",
            "2.50 ms",
            "at most 5.00 ms",
            "##########----------",
            "50 %",
            "reached",
        ];
        assert_eq!(row, expected);
        assert_eq!(
            Goal::at_least("rate", "a second", Some(150.0), 2_000.0).row()[5],
            "missed"
        );
        let row = Goal::at_least("rate", "a second", None, 2_000.0).row();
        assert_eq!(row, ["rate", "", "at least 2000 a second", "", "", "not measured"]);
    }

    fn bounds() -> Bounds {
        reference().unwrap()
    }

    /// Figures of a full run in which everything is as good as is asked, or exactly `times` that, where more is better.
    fn figures(times: f64) -> Vec<Figure> {
        let bounds = bounds();
        let (put, get) = (put_row(LARGE_BYTES), get_row(LARGE_BYTES));
        let of = |name: &str, operations_per_s: f64, bytes_per_s: f64| Figure {
            operations_per_s,
            bytes_per_s,
            bytes: 1,
            p50_ms: 5.0 / times,
            p99_ms: 30.0 / times,
            roles: vec![RoleCost {
                role: "gateway".to_owned(),
                processes: 1,
                cpu_s: 1.0,
                largest_cpu_s: 1.0,
                peak_bytes: 1,
                largest_peak_bytes: (150e6 / times) as u64,
            }],
            ..figure(name)
        };
        let share = |bytes_per_s: f64| bytes_per_s * 0.6 * times * (1.0 + f64::EPSILON);
        vec![
            of(&put, 1.0, share(bounds.put.bytes_per_s)),
            of(&get, 1.0, share(bounds.get.bytes_per_s)),
            of(&put_row(LARGEST_UPLOAD_BYTES), 1.0, 1.0),
            of(&put_row(4 << 10), 2_000.0 * times, 1.0),
            of(&put_row(64 << 10), 600.0 * times, 1.0),
            of(file_batches::BATCHED, 3_000.0 * times, 1.0),
            of("page of 1000 of 20000", 1.0, 0.0),
            of(COMMIT_ALONE, 1.0, 0.0),
            of(beside::NAME, 1.0, 1.0),
            Figure {
                pairs: Some(ReadPairs {
                    ratios: Pairs::of(vec![times; 16]).unwrap(),
                    percent_at_followers_min: 100.0,
                }),
                ..of(READS_AT_NEAREST, 1.0, 0.0)
            },
        ]
    }

    fn idle(times: f64) -> Vec<Idle> {
        let of = |form, megabytes: f64| Idle {
            form,
            watched_s: 20.0,
            percent_of_core: 2.0 / times,
            resident_bytes: (megabytes * 1e6 / times) as u64,
            proportional_bytes: None,
            roles: Vec::new(),
        };
        vec![of(ONE_PROCESS, 400.0), of(PROCESSES, 700.0)]
    }

    fn came_to(goals: &[Goal], verdict: Verdict) -> Vec<&str> {
        let goals = goals.iter().filter(|goal| goal.verdict == verdict);
        goals.map(|goal| goal.what.as_str()).collect()
    }

    #[test]
    fn what_is_as_good_as_asked_reaches_every_goal_and_each_goal_can_be_missed() {
        let good = of(&figures(1.0), &idle(1.0), &bounds(), true);
        assert_eq!(came_to(&good, Verdict::Reached).len(), good.len(), "{good:?}");
        let bad = of(&figures(0.4), &idle(0.4), &bounds(), true);
        // The same 75 ms are late for a page and in time for a small file and for calls beside uploads.
        let in_time = ["PUT 4.0 KiB p99", "list, look, rename beside uploads p99"];
        assert_eq!(came_to(&bad, Verdict::Reached), in_time);
        assert_eq!(came_to(&bad, Verdict::Missed).len(), bad.len() - in_time.len());
        let worse = of(&figures(0.2), &idle(0.2), &bounds(), true);
        assert_eq!(came_to(&worse, Verdict::Missed).len(), worse.len());
    }

    #[test]
    fn only_a_run_that_reached_every_goal_passes_where_all_are_required() {
        let run = |is_quiet| of(&figures(1.0), &idle(1.0), &bounds(), is_quiet);
        require_all(&run(true)).unwrap();
        let said = |goals: &[Goal]| require_all(goals).unwrap_err().to_string();
        assert!(said(&run(false)).contains("PUT 1.0 GiB, 60 % of the bound (not known"));
        assert!(said(&of(&[], &idle(1.0), &bounds(), true)).contains("PUT 4.0 KiB p99 (not measured)"));
        assert!(said(&of(&figures(1.0), &idle(0.9), &bounds(), true)).contains("idle as processes, memory (missed)"));
        assert!(said(&[]).contains("nothing was judged"));
    }

    #[test]
    fn a_goal_without_its_figure_is_told_as_not_measured() {
        let all = of(&figures(1.0), &idle(1.0), &bounds(), true).len();
        let none = of(&[], &[], &bounds(), true);
        assert_eq!(came_to(&none, Verdict::NotMeasured).len(), all);
        assert_eq!(summary(&none), format!("0 of {all} goals reached, {all} not measured"));
        for missing in 0..figures(1.0).len() {
            let mut some = figures(1.0);
            let name = some.remove(missing).name;
            let goals = of(&some, &idle(1.0), &bounds(), true);
            assert!(!came_to(&goals, Verdict::NotMeasured).is_empty(), "{name}");
            assert_eq!(goals.len(), all);
        }
    }

    #[test]
    fn a_figure_of_something_else_is_no_measure() {
        let mut figures = figures(1.0);
        for figure in &mut figures {
            figure.bytes = 0;
            for cost in &mut figure.roles {
                cost.role = "all roles".to_owned();
            }
            if let Some(pairs) = &mut figure.pairs {
                pairs.percent_at_followers_min = 49.0;
            }
        }
        let goals = of(&figures, &idle(1.0), &bounds(), true);
        let expected = [
            "list, look, rename beside uploads p99",
            READS_AT_NEAREST,
            "gateway's peak memory in PUT 1.0 GiB",
            "gateway's peak memory in PUT 10.0 GiB",
        ];
        assert_eq!(came_to(&goals, Verdict::NotMeasured), expected);
    }

    #[test]
    fn a_share_of_a_bound_that_others_made_smaller_is_not_reached_and_may_be_missed() {
        let goals = of(&figures(1.0), &idle(1.0), &bounds(), false);
        let expected = ["PUT 1.0 GiB, 60 % of the bound", "GET 1.0 GiB, 60 % of the bound"];
        assert_eq!(came_to(&goals, Verdict::Disturbed), expected);
        assert_eq!(came_to(&goals, Verdict::Missed), Vec::<&str>::new());
        let goals = of(&figures(0.9), &idle(1.0), &bounds(), false);
        assert!(came_to(&goals, Verdict::Missed).starts_with(&expected));
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
