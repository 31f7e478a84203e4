//! Reads counters and gauges out of a `/metrics` page.

/// The sum over all series of the counter or gauge `name`; `None` when the page has no such series. A name with labels, such as
/// `a_total{degraded="true"}`, takes the series that have these labels, whatever other ones they have.
#[must_use]
pub fn sum(page: &str, name: &str) -> Option<f64> {
    values(page, name).into_iter().reduce(|one, other| one + other)
}

/// The value of each of these series, in the order of the page; a name with labels as in [`sum`].
#[must_use]
pub fn values(page: &str, name: &str) -> Vec<f64> {
    let (name, wanted) = split(name);
    let is_meant = |labels: &[&str]| wanted.iter().all(|label| labels.contains(label));
    let of_name = series(page, name);
    of_name
        .filter_map(|(labels, value)| is_meant(&labels).then_some(value))
        .collect()
}

/// What each series of the counter or gauge `name` shows, by its label `label`, in the page's order.
#[must_use]
pub fn by_label<'a>(page: &'a str, name: &'a str, label: &str) -> Vec<(&'a str, f64)> {
    let labelled = |(labels, value): (Vec<&'a str>, f64)| {
        let of = labels.into_iter().find_map(|written| {
            let (key, quoted) = written.split_once('=')?;
            (key == label).then(|| quoted.trim_matches('"'))
        });
        Some((of?, value))
    };
    series(page, name).filter_map(labelled).collect()
}

/// The labels and the value of each series of this name.
fn series<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (Vec<&'a str>, f64)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(move |line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (own, labels) = split(series);
        (own == name).then_some((labels, value.parse().ok()?))
    })
}

/// The name of a series and its labels as written. Our label values hold no comma and no brace, so none is split.
fn split(series: &str) -> (&str, Vec<&str>) {
    match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}').split(',').collect()),
        None => (series, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::{by_label, sum, values};

    #[test]
    fn label_sets_are_summed_and_longer_names_are_not() {
        let page = "# HELP a x\na{b=\"1\"} 2\na{b=\"2\"} 3\na_total 9\n";
        assert_eq!(sum(page, "a"), Some(5.0));
        assert_eq!(sum(page, "missing"), None);
        assert_eq!(values(page, "a"), [2.0, 3.0]);
        assert_eq!(values(page, "a{b=\"2\"}"), [3.0]);
    }

    #[test]
    fn each_series_of_a_name_is_told_by_its_label() {
        let page = "# HELP a x\na{group=\"0\",process=\"m\"} 1\na{process=\"m\",group=\"12\"} 0\na{kind=\"b\"} 3\na_total{group=\"1\"} 9\n";
        assert_eq!(by_label(page, "a", "group"), [("0", 1.0), ("12", 0.0)]);
        assert!(by_label(page, "a", "missing").is_empty());
    }

    #[test]
    fn a_label_that_is_asked_for_must_be_there_and_others_may() {
        let page = "a{degraded=\"true\",process=\"gateway-1\"} 2\na{degraded=\"false\",process=\"gateway-1\"} 3\n";
        assert_eq!(sum(page, "a{degraded=\"true\"}"), Some(2.0));
        assert_eq!(sum(page, "a{process=\"gateway-1\"}"), Some(5.0));
        assert_eq!(sum(page, "a{degraded=\"maybe\"}"), None);
    }
}
