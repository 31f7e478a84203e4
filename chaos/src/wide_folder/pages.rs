//! How long pages of a wide folder take, at its beginning, in its middle and at its end.
//!
//! Pure. Invariant: the bounds are those of a small folder, so a page that costs more because of its neighbours fails.
//! Not here: what must be in a page (whoever lists).

use crate::percentile::percentile;
use anyhow::ensure;
use std::time::Duration;

/// The design's figures for a page of 1,000 on two cores, in a folder of whatever width; SC-in-3 itself asks for 100 ms in the median.
const MEDIAN_MAX: Duration = Duration::from_millis(10);
const P99_MAX: Duration = Duration::from_millis(30);
/// A twentieth of the pages each stand for the beginning, the middle and the end.
const PART: usize = 20;

/// Prints the times of each sweep. The median is judged of every part, the 99th percentile of all pages of a sweep: of fifty it would
/// be the longest one.
///
/// Errors: a bound that is passed, with the part that passes it; a sweep without a page, which would be quicker than any.
pub(super) fn judge(sweeps: &[Vec<Duration>]) -> anyhow::Result<()> {
    ensure!(
        !sweeps.is_empty() && sweeps.iter().all(|pages| !pages.is_empty()),
        "no page was listed"
    );
    let mut rows = vec![["pages", "number", "p50", "p99", "longest"].map(str::to_owned).to_vec()];
    let mut slow = Vec::new();
    for (sweep, pages) in sweeps.iter().enumerate() {
        let parts = parts(pages);
        for (part, of_part) in parts.into_iter().chain([("all", pages.as_slice())]) {
            let mut sorted = of_part.to_vec();
            sorted.sort_unstable();
            let [median, p99, longest] = [50, 99, 100].map(|percent| percentile(&sorted, percent));
            let name = format!("{part}, sweep {}", sweep + 1);
            let cells = [median, p99, longest].map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
            rows.push([vec![name.clone(), sorted.len().to_string()], cells.to_vec()].concat());
            if median > MEDIAN_MAX {
                slow.push(format!("p50 of {name} is {median:?}, {MEDIAN_MAX:?} are asked"));
            }
            if part == "all" && p99 > P99_MAX {
                slow.push(format!("p99 of {name} is {p99:?}, {P99_MAX:?} are asked"));
            }
        }
    }
    print!("{}", crate::table::render(&rows));
    ensure!(slow.is_empty(), "pages are slow: {}", slow.join("; "));
    println!("passed: a page takes at most {MEDIAN_MAX:?} in the median everywhere, 99 of 100 at most {P99_MAX:?}");
    Ok(())
}

fn parts(pages: &[Duration]) -> [(&'static str, &[Duration]); 3] {
    let length = (pages.len() / PART).max(1).min(pages.len());
    let middle = (pages.len() - length) / 2;
    [
        ("beginning", &pages[..length]),
        ("middle", &pages[middle..middle + length]),
        ("end", &pages[pages.len() - length..]),
    ]
}

#[cfg(test)]
mod tests {
    use super::{MEDIAN_MAX, P99_MAX, judge, parts};
    use std::time::Duration;

    #[test]
    fn the_parts_are_the_two_ends_and_the_middle() {
        let pages: Vec<Duration> = (0..1_000).map(Duration::from_millis).collect();
        let starts = parts(&pages).map(|(_, part)| (part[0].as_millis(), part.len()));
        assert_eq!(starts, [(0, 50), (475, 50), (950, 50)]);
        assert_eq!(parts(&pages[..1])[2].1.len(), 1);
    }

    #[test]
    fn no_page_at_all_fails() {
        for sweeps in [vec![], vec![vec![]], vec![vec![MEDIAN_MAX], vec![]]] {
            assert!(judge(&sweeps).is_err(), "{sweeps:?}");
        }
    }

    #[test]
    fn a_slow_end_fails_by_its_median_and_eleven_slow_pages_of_a_thousand_by_p99() {
        let check = |from: usize, slow: usize, time: Duration, expected: &str| {
            let mut pages = vec![MEDIAN_MAX; 1_000];
            pages[from..from + slow].fill(time);
            // The second sweep counts as the first does.
            let judged = judge(&[vec![MEDIAN_MAX; 1_000], pages]).map_err(|error| error.to_string());
            match judged {
                Ok(()) => assert_eq!(expected, "", "{from} {slow} {time:?}"),
                Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
            }
        };
        check(0, 0, P99_MAX, "");
        check(950, 25, MEDIAN_MAX * 2, "");
        check(950, 26, MEDIAN_MAX * 2, "p50 of end, sweep 2");
        check(475, 26, MEDIAN_MAX * 2, "p50 of middle, sweep 2");
        check(100, 10, P99_MAX * 2, "");
        check(100, 11, P99_MAX * 2, "p99 of all, sweep 2");
    }
}
