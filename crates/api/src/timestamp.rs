//! Times as clients see them: RFC 3339 in UTC with milliseconds.
//!
//! Invariant: what is written reads back to the same millisecond.
//! Not here: which clock (wall time is for showing; nothing is destroyed by it).

use model::time::WallTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;
use utoipa::ToSchema;

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z, the last time of four-digit years; later ones are shown as this.
const LAST_MS: u64 = 253_402_300_799_999;

/// A point in wall time, written as `2026-11-21T14:43:41.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T14:43:41.000Z")]
pub struct Timestamp(pub WallTime);

impl From<WallTime> for Timestamp {
    fn from(time: WallTime) -> Self {
        Self(time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.0.min(LAST_MS);
        let (year, month, day) = civil(ms / DAY_MS);
        let rest = ms % DAY_MS;
        let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z",
            rest / 1000 % 60,
            rest % 1000
        )
    }
}

impl Timestamp {
    /// Reads exactly the form that is written; `None` for any other.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 24 || !text.is_ascii() {
            return None;
        }
        let marks = [
            (4, b'-'),
            (7, b'-'),
            (10, b'T'),
            (13, b':'),
            (16, b':'),
            (19, b'.'),
            (23, b'Z'),
        ];
        if marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
            return None;
        }
        let number = |from: usize, to: usize| {
            let digits = text.get(from..to)?;
            digits
                .bytes()
                .all(|digit| digit.is_ascii_digit())
                .then(|| digits.parse::<u64>().ok())?
        };
        let days = days_of(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
        let ms = number(11, 13)? * 3_600_000 + number(14, 16)? * 60_000 + number(17, 19)? * 1000 + number(20, 23)?;
        let time = Self(WallTime(days * DAY_MS + ms));
        (time.to_string() == text).then_some(time)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a time of the form 2026-11-21T14:43:41.000Z"))
    }
}

/// Year, month and day of a count of days since 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 {
        month_shifted + 3
    } else {
        month_shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The reverse (`days_from_civil`); `None` before 1970 and for months and days that do not exist at all.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::{LAST_MS, Timestamp};
    use model::time::WallTime;
    use proptest::prelude::proptest;

    proptest! {
        #[test]
        fn times_read_back(ms in 0..=LAST_MS) {
            let time = Timestamp(WallTime(ms));
            assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Timestamp::parse(&text);
        }
    }

    #[test]
    fn known_times_are_written_as_everybody_writes_them() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(Timestamp(WallTime(ms)).to_string(), text);
        }
        assert_eq!(Timestamp::parse("2023-02-29T00:00:00.000Z"), None);
        assert_eq!(Timestamp::parse("2023-02-28T24:00:00.000Z"), None);
    }
}
