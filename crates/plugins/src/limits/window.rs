//! The windows of all rate limits, shortest first: the last word of a field's name, and seconds.

/// Of several in one entry the first here counts. Higress takes one of them at random.
pub(crate) const UNITS: [(&str, u64); 4] = [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)];
