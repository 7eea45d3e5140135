//! The periods of budgets, by the calendar in UTC, as the ledger counts them.

use std::time::SystemTime;

use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};

/// A period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Day,
    Month,
}

/// The end of a period.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Seconds until then, at least 1.
    pub(super) seconds: u64,
    /// `2026-12-01T00:00:00Z`
    pub(super) at: String,
}

impl Period {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// When the period that `now` is in ends. Of a clock beyond the calendar: at once.
    pub(super) fn ends(self, now: SystemTime) -> End {
        let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let today = Offset::UTC.to_datetime(now).date();
        let next = match self {
            Self::Day => today.checked_add(1.day()),
            Self::Month => today.last_of_month().checked_add(1.day()),
        };
        let begins = next.and_then(|date: Date| date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC));
        let begins = begins.map_or(now, |zoned| zoned.timestamp());
        End {
            seconds: u64::try_from(begins.as_second() - now.as_second())
                .unwrap_or(0)
                .max(1),
            at: begins.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_end_at_midnight_utc() {
        let ends = |period: Period, now: &str| period.ends(now.parse::<Timestamp>().unwrap().into());
        let day = ends(Period::Day, "2026-11-28T23:00:00Z");
        assert_eq!((day.seconds, day.at.as_str()), (3600, "2026-11-29T00:00:00Z"));
        let month = ends(Period::Month, "2028-02-28T00:00:00Z");
        assert_eq!(
            (month.seconds, month.at.as_str()),
            (2 * 86_400, "2028-03-01T00:00:00Z")
        );
        assert_eq!(
            ends(Period::Month, "2026-12-31T23:59:59Z").at,
            "2027-01-01T00:00:00Z"
        );
    }
}
