//! Which schedules the environment asks for.
//!
//! Invariants: what is set and cannot be read is refused, and never taken for what is usual.

use std::env::VarError;

/// Replays this seed.
pub(crate) const SEED: &str = "HOLDFAST_SCHEDULE_SEED";
/// Tries so many seeds.
pub(crate) const SEEDS: &str = "HOLDFAST_SCHEDULES";

/// The seeds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As many as the suite says.
    Usual,
    /// So many, at least one.
    Many(u64),
    /// This one alone.
    Replay(u64),
}

/// What the environment of this process asks for.
///
/// # Panics
/// When it cannot be read: that says which variable to set otherwise.
#[allow(
    clippy::disallowed_methods,
    reason = "a test is told by its environment which schedules to try"
)]
pub(crate) fn from_environment() -> Wanted {
    wanted(std::env::var).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// What the variables ask for that `read` gives; what is wrong with them. A seed goes before a number of them.
fn wanted(read: impl Fn(&'static str) -> Result<String, VarError>) -> Result<Wanted, String> {
    let many = number_in(SEEDS, read(SEEDS))?;
    if many == Some(0) {
        return Err(format!(
            "{SEEDS}=0 would try no schedule: set it to 1 or more, or unset it"
        ));
    }
    let replay = number_in(SEED, read(SEED))?.map(Wanted::Replay);
    Ok(replay.or(many.map(Wanted::Many)).unwrap_or(Wanted::Usual))
}

fn number_in(variable: &str, value: Result<String, VarError>) -> Result<Option<u64>, String> {
    let wrong = |value: String| {
        format!(
            "{variable}={value} is no number of 0 to {}: set it to one, or unset it",
            u64::MAX
        )
    };
    match value {
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(value)) => Err(wrong(format!("{value:?}"))),
        Ok(text) => text.parse().map(Some).map_err(|_| wrong(format!("{text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{SEED, SEEDS, VarError, Wanted, wanted};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn check(seed: Option<&str>, seeds: Option<&str>, expected: Wanted) {
        assert_eq!(of(seed, seeds), Ok(expected), "{seed:?} {seeds:?}");
    }

    fn of(seed: Option<&str>, seeds: Option<&str>) -> Result<Wanted, String> {
        wanted(|variable| {
            let value = if variable == SEED { seed } else { seeds };
            value.map(str::to_owned).ok_or(VarError::NotPresent)
        })
    }

    #[test]
    fn a_seed_is_replayed_and_so_many_are_tried() {
        check(None, None, Wanted::Usual);
        check(None, Some("1"), Wanted::Many(1));
        check(Some("0"), None, Wanted::Replay(0));
        check(Some("18446744073709551615"), Some("9"), Wanted::Replay(u64::MAX));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_variable_that_says_it() {
        for wrong in ["", " 7", "7 ", "-1", "0x7", "1e3", "18446744073709551616", "seven"] {
            for (variable, seed, seeds) in [(SEED, Some(wrong), None), (SEEDS, None, Some(wrong))] {
                let told = of(seed, seeds).unwrap_err();
                assert!(
                    told.starts_with(&format!("{variable}={wrong:?} is no number")),
                    "{told}"
                );
            }
        }
        // Also beside a seed that can be read.
        assert!(of(Some("7"), Some("many")).is_err());
        assert!(of(None, Some("0")).unwrap_err().contains("no schedule"));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let foreign = |_: &str| Err(VarError::NotUnicode(OsString::from_vec(vec![0xff])));
        assert!(wanted(foreign).unwrap_err().starts_with(SEEDS));
    }
}
