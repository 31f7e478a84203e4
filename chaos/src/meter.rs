//! Reads counters out of a `/metrics` page.

/// The sum over all label sets of the counter or gauge `name`; `None` when the page has no such row.
#[must_use]
pub fn sum(page: &str, name: &str) -> Option<f64> {
    let mut found = None;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with('{') && !rest.starts_with(' ') {
            continue;
        }
        if let Some(value) = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()) {
            *found.get_or_insert(0.0) += value;
        }
    }
    found
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
}
