//! Durability arithmetic: how many nines a scheme has at measured failure and repair rates.
//!
//! Two models that check each other: a birth-death chain with parallel repair (mean time to data loss) and Backblaze's binomial
//! over a repair window (2018). Both are per stripe and assume independent failures, so they are an upper bound: software,
//! operators and failures in common are what the rest of the design is for.
//! Not here: measuring the rates (metrics), deciding anything by them.

use model::profile::Profile;
use std::time::Duration;

/// Hours of a year, as docs/durability.md counts them.
const HOURS_PER_YEAR: f64 = 8760.0;

/// Measured rates of one fragment: everything that loses it, and how long until it is whole again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureRates {
    /// Losses of a fragment a year (its disk, its node, latent corruption), as a fraction: 0.02 is two per cent.
    pub failures_per_year: f64,
    /// Mean time from loss to whole again: noticing, grace and rebuilding.
    pub repair_time: Duration,
}

impl FailureRates {
    /// Rates with latent corruption added, which is found only by a scrub: on average half a pass late.
    ///
    /// The repair time becomes the mean over both kinds, weighted by how often each happens.
    #[must_use]
    pub fn with_latent(self, latent_per_year: f64, scrub_pass: Duration) -> Self {
        let latent_repair = self.repair_time.as_secs_f64() + scrub_pass.as_secs_f64() / 2.0;
        let failures_per_year = self.failures_per_year + latent_per_year;
        let weighted = self.failures_per_year * self.repair_time.as_secs_f64() + latent_per_year * latent_repair;
        let seconds = if failures_per_year > 0.0 {
            weighted / failures_per_year
        } else {
            0.0
        };
        Self {
            failures_per_year,
            repair_time: Duration::from_secs_f64(seconds),
        }
    }

    fn failures_per_hour(self) -> f64 {
        self.failures_per_year / HOURS_PER_YEAR
    }

    fn repair_hours(self) -> f64 {
        self.repair_time.as_secs_f64() / 3600.0
    }
}

/// Nines of `profile` at `rates`: the durability that status and metrics report.
#[must_use]
pub fn nines(profile: Profile, rates: FailureRates) -> f64 {
    markov_nines(profile.k, profile.m, rates)
}

/// Nines by the chain: minus the logarithm of the chance that a stripe is lost within a year.
///
/// State i is "i fragments are missing"; fragments fail at (n-i) times the failure rate and return at i times the repair rate.
/// Infinite when nothing ever fails or repair takes no time.
#[must_use]
pub fn markov_nines(k: u8, m: u8, rates: FailureRates) -> f64 {
    (mean_hours_to_loss(k, m, rates) / HOURS_PER_YEAR).log10()
}

/// Mean hours until a stripe has lost more than m of its k+m fragments, from whole. Source: docs/durability.md.
#[must_use]
pub fn mean_hours_to_loss(k: u8, m: u8, rates: FailureRates) -> f64 {
    let fragments = f64::from(k) + f64::from(m);
    let repairs_per_hour = 1.0 / rates.repair_hours();
    let mut step_hours = 1.0 / (fragments * rates.failures_per_hour());
    let mut total_hours = step_hours;
    for missing in 1..=m {
        let failing = (fragments - f64::from(missing)) * rates.failures_per_hour();
        let returning = f64::from(missing) * repairs_per_hour;
        step_hours = (1.0 + returning * step_hours) / failing;
        total_hours += step_hours;
    }
    total_hours
}

/// Nines by the window: the chance that more than m of k+m fragments fail within one repair time, over all such windows of a year.
#[must_use]
pub fn window_nines(k: u8, m: u8, rates: FailureRates) -> f64 {
    let fragments = u32::from(k) + u32::from(m);
    let fails = -(-rates.failures_per_hour() * rates.repair_hours()).exp_m1();
    let mut ways = 1.0;
    let mut lost = 0.0;
    for missing in 0..=fragments {
        if missing > u32::from(m) {
            lost += ways * fails.powi(missing as i32) * (1.0 - fails).powi((fragments - missing) as i32);
        }
        ways = ways * f64::from(fragments - missing) / f64::from(missing + 1);
    }
    -(lost * HOURS_PER_YEAR / rates.repair_hours()).log10()
}

#[cfg(test)]
mod tests {
    use super::{FailureRates, markov_nines, nines, window_nines};
    use model::profile::ProfileId;
    use std::time::Duration;

    fn rates(failures_per_year: f64, hours: u64) -> FailureRates {
        FailureRates {
            failures_per_year,
            repair_time: Duration::from_secs(hours * 3600),
        }
    }

    /// The table of docs/durability.md: AFR 1.5 % and 5 %, each repaired in a day and in a week.
    ///
    /// shows: NF-dur
    #[test]
    fn the_chain_gives_the_table_within_a_tenth_of_a_nine() {
        let table = [
            (1, 2, [10.1, 8.4, 8.6, 6.9]),
            (4, 2, [8.8, 7.1, 7.3, 5.6]),
            (6, 3, [12.3, 9.7, 10.2, 7.7]),
            (8, 4, [15.8, 12.4, 13.2, 9.8]),
            (10, 4, [15.4, 12.0, 12.8, 9.4]),
            (5, 4, [16.6, 13.2, 14.0, 10.6]),
            (6, 6, [24.4, 19.3, 20.7, 15.7]),
        ];
        for (k, m, expected) in table {
            let columns = [rates(0.015, 24), rates(0.015, 168), rates(0.05, 24), rates(0.05, 168)];
            for (rates, expected) in columns.into_iter().zip(expected) {
                let found = markov_nines(k, m, rates);
                assert!(
                    (found - expected).abs() <= 0.1,
                    "{k}+{m} at {rates:?}: {found:.2} nines, not {expected}"
                );
            }
        }
    }

    #[test]
    fn the_window_gives_the_eleven_nines_that_backblaze_published() {
        let found = window_nines(17, 3, rates(0.0041, 156));
        assert!((found - 11.1).abs() <= 0.1, "{found:.2}");
    }

    /// shows: NF-dur
    #[test]
    fn standard_has_eleven_nines_and_dev_eight_at_two_per_cent_and_a_day() {
        let standard = nines(ProfileId::Standard.profile(), rates(0.02, 24));
        let dev = nines(ProfileId::Dev.profile(), rates(0.02, 24));
        assert!(standard >= 11.0, "{standard:.2}");
        assert!((8.0..9.0).contains(&dev), "{dev:.2}");
    }

    #[test]
    fn both_models_agree_within_a_nine() {
        for (k, m) in [(1, 2), (2, 1), (4, 2), (5, 4), (9, 6)] {
            let (chain, window) = (markov_nines(k, m, rates(0.02, 24)), window_nines(k, m, rates(0.02, 24)));
            assert!((chain - window).abs() < 1.0, "{k}+{m}: {chain:.2} and {window:.2}");
        }
    }

    #[test]
    fn latent_corruption_and_a_slow_scrub_cost_nines() {
        let clean = rates(0.02, 24);
        let (fast, slow) = (Duration::from_secs(86_400), Duration::from_secs(14 * 86_400));
        let of = |rates| markov_nines(5, 4, rates);
        assert!(of(clean) > of(clean.with_latent(0.01, fast)));
        assert!(of(clean.with_latent(0.01, fast)) > of(clean.with_latent(0.01, slow)));
        assert_eq!(rates(0.0, 24).with_latent(0.0, slow).repair_time, Duration::ZERO);
    }
}
