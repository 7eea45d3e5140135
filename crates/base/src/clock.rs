//! The only place that reads a clock, so that tests can pause it.

use std::time::SystemTime;

pub use tokio::time::Instant;

/// Monotonic time: durations, timers, pools. Follows tokio's paused clock in tests.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall time: log lines, `created` fields, certificate validity. Never used to measure a duration.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Seconds since the Unix epoch; 0 for a clock set before 1970.
#[must_use]
pub fn unix_seconds() -> u64 {
    wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
