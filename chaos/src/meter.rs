//! Reads counters out of a `/metrics` page.

/// The sum over all series of the counter or gauge `name`; `None` when the page has no such series. A name with labels, such as
/// `a_total{degraded="true"}`, takes the series that have these labels, whatever other ones they have.
#[must_use]
pub fn sum(page: &str, name: &str) -> Option<f64> {
    let (name, wanted) = split(name);
    let mut found = None;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (own, labels) = split(series);
        if own != name || !wanted.iter().all(|label| labels.contains(label)) {
            continue;
        }
        if let Ok(value) = value.parse::<f64>() {
            *found.get_or_insert(0.0) += value;
        }
    }
    found
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
    use super::sum;

    #[test]
    fn label_sets_are_summed_and_longer_names_are_not() {
        let page = "# HELP a x\na{b=\"1\"} 2\na{b=\"2\"} 3\na_total 9\n";
        assert_eq!(sum(page, "a"), Some(5.0));
        assert_eq!(sum(page, "missing"), None);
    }

    #[test]
    fn a_label_that_is_asked_for_must_be_there_and_others_may() {
        let page = "a{degraded=\"true\",process=\"gateway-1\"} 2\na{degraded=\"false\",process=\"gateway-1\"} 3\n";
        assert_eq!(sum(page, "a{degraded=\"true\"}"), Some(2.0));
        assert_eq!(sum(page, "a{process=\"gateway-1\"}"), Some(5.0));
        assert_eq!(sum(page, "a{degraded=\"maybe\"}"), None);
    }
}
