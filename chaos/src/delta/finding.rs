//! One figure beside what it may be at most, and at least where less cannot be.
//!
//! Pure. Invariant: a figure that is no number is missed, so what measured nothing never passes.

use anyhow::ensure;
use serde::Serialize;

/// The heading of the table.
pub(super) const HEADING: [&str; 4] = ["what", "found", "at most", ""];

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What it may be; absent where it is only told.
    pub(super) most: Option<f64>,
    pub(super) is_missed: bool,
}

impl Finding {
    /// `value` may be `most`.
    pub(super) fn at_most(what: impl Into<String>, value: f64, unit: &'static str, most: f64) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            most: Some(most),
            // Also of what cannot be compared.
            is_missed: value.is_nan() || value > most,
        }
    }

    /// The same of what cannot be less than `least`: where it is, something was not counted.
    pub(super) fn between(what: impl Into<String>, value: f64, unit: &'static str, (least, most): (f64, f64)) -> Self {
        let mut finding = Self::at_most(what, value, unit, most);
        finding.is_missed |= value < least;
        finding
    }

    /// A figure that nothing was asked of.
    pub(super) fn told(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            most: None,
            is_missed: false,
        }
    }

    /// Its row of the table.
    pub(super) fn row(&self) -> Vec<String> {
        let said = match (self.most, self.is_missed) {
            (None, _) => "",
            (Some(_), true) => "missed",
            (Some(_), false) => "reached",
        };
        let with_unit = |value: f64| format!("{} {}", number(value), self.unit).trim_end().to_owned();
        vec![
            self.what.clone(),
            with_unit(self.value),
            self.most.map(with_unit).unwrap_or_default(),
            said.to_owned(),
        ]
    }
}

fn number(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 3 } else { 1 };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// An error that names what was missed, or that nothing was judged at all.
pub(super) fn judge(findings: &[Finding]) -> anyhow::Result<()> {
    ensure!(
        findings.iter().any(|finding| finding.most.is_some()),
        "nothing was judged"
    );
    let missed = findings.iter().filter(|finding| finding.is_missed);
    let missed: Vec<&str> = missed.map(|finding| finding.what.as_str()).collect();
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// The middle of `values`, the upper one of two; no number of none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The greatest of `values`; no number of none.
pub(super) fn most(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::max)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Finding, judge, median, most};

    /// What is missed of `findings`.
    pub(in super::super) fn missed(findings: &[Finding]) -> Vec<&str> {
        let missed = findings.iter().filter(|finding| finding.is_missed);
        missed.map(|finding| finding.what.as_str()).collect()
    }

    #[test]
    fn one_figure_above_its_limit_or_none_at_all_is_an_error() {
        let good = Finding::at_most("good", 3.0, "blocks", 3.0);
        let told = Finding::told("told", 1e9, "ms");
        assert!(judge(&[good.clone(), told.clone()]).is_ok());
        assert!(judge(&[]).is_err() && judge(std::slice::from_ref(&told)).is_err());
        for value in [3.001, f64::NAN, f64::INFINITY] {
            let bad = Finding::at_most("bad", value, "blocks", 3.0);
            let error = judge(&[good.clone(), told.clone(), bad]).unwrap_err().to_string();
            assert_eq!(error, "missed: bad");
        }
    }

    #[test]
    fn what_is_less_than_it_can_be_is_missed_as_well() {
        let is_missed = |value: f64| Finding::between("stored", value, "", (1.0, 3.5)).is_missed;
        assert!(!is_missed(1.0) && !is_missed(3.5));
        assert!(is_missed(0.99) && is_missed(3.51) && is_missed(f64::NAN));
    }

    #[test]
    fn of_two_in_the_middle_the_upper_one_counts_and_nothing_has_none() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([1.0, 2.0]), 2.0);
        assert_eq!(most([3.0, 1.0]), 3.0);
        assert!(median([]).is_nan() && most([]).is_nan());
    }

    #[test]
    fn a_row_says_what_was_asked_and_whether_it_was_reached() {
        let row = |finding: Finding| finding.row().join("|");
        assert_eq!(row(Finding::at_most("a", 0.25, "%", 1.0)), "a|0.25 %|1 %|reached");
        assert_eq!(row(Finding::at_most("a", 120.0, "ms", 100.0)), "a|120 ms|100 ms|missed");
        assert_eq!(row(Finding::told("a", 12.34, "ms")), "a|12.3 ms||");
    }
}
