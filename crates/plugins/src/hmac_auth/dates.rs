//! Whether a request is of now.

use std::time::{Duration, SystemTime};

use http::header::DATE;
use tollgate_body::Request;

use super::TIMESTAMP;
use super::string_to_sign::is_listed;
use crate::signing::{is_near, text};

/// Digits of a timestamp in milliseconds; a shorter one is in seconds.
const MILLISECOND_DIGITS: usize = 13;

/// Whether the request's date is at most `offset` from `now`: `Date`, which is always signed, or the timestamp, which
/// counts only where the client has signed it too.
pub(super) fn is_fresh(request: &Request, now: SystemTime, offset: Duration) -> bool {
    let date = match text(request, DATE.as_str()) {
        "" if is_listed(request, &TIMESTAMP) => timestamp(text(request, TIMESTAMP.as_str())),
        "" => None,
        date => httpdate::parse_http_date(date.strip_suffix("+00:00").unwrap_or(date)).ok(),
    };
    date.is_some_and(|date| is_near(date, now, offset))
}

fn timestamp(text: &str) -> Option<SystemTime> {
    let number: u64 = text.parse().ok()?;
    let since = match text.len() < MILLISECOND_DIGITS {
        true => Duration::from_secs(number),
        false => Duration::from_millis(number),
    };
    SystemTime::UNIX_EPOCH.checked_add(since)
}
