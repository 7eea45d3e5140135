//! Higress's annotation reader with our own prefix and with notes of every sort, for the groups.
//!
//! A bad value never stops anything: it is noted, and the feature behaves as if the annotation were not there.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate_kinds::annotations::{AnnotationReader, Prefix};

pub(crate) use tollgate_kinds::annotations::{HIGRESS_PREFIX as HIGRESS, NGINX_PREFIX as NGINX};

/// Longest time limit; more is cut down to it, so that no clock arithmetic can overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Prefix of our extensions.
pub(crate) const TOLLGATE: &str = "tollgate.dev/";

/// What is worth telling about one annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Full key.
    pub(crate) key: String,
    /// One lower-case sentence without a full stop.
    pub(crate) message: String,
}

/// The annotations of one object.
pub(crate) struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    values: AnnotationReader<'a>,
    notes: Vec<Note>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            values: AnnotationReader::new(annotations),
            notes: Vec::new(),
        }
    }

    /// Everything that was noted, unreadable values first.
    pub(crate) fn into_notes(self) -> Vec<Note> {
        let mut notes: Vec<Note> = Vec::new();
        for unusable in self.values.unusable() {
            let note = Note {
                key: unusable.key.clone(),
                message: format!("{}: ignored", unusable.message),
            };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes.extend(self.notes);
        notes
    }

    /// Notes something about the annotation `key` (with its prefix).
    pub(crate) fn note(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Note {
            key: key.into(),
            message: message.into(),
        });
    }

    /// Notes something about a "both" or "higress" key: names the prefix that is really there.
    pub(crate) fn note_key(&mut self, key: &str, message: impl Into<String>) {
        let nginx = format!("{NGINX}{key}");
        let full = match self.annotations.contains_key(&nginx) {
            true => nginx,
            false => format!("{HIGRESS}{key}"),
        };
        self.note(full, message);
    }

    /// Every annotation as written.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether a "both" key is there at all, usable or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.has(Prefix::Both, key)
    }

    /// A text under either prefix.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.values.text(Prefix::Both, key)
    }

    /// A text under Higress's prefix.
    pub(crate) fn higress_text(&mut self, key: &str) -> Option<String> {
        self.values.text(Prefix::Higress, key)
    }

    /// A boolean under either prefix.
    pub(crate) fn flag(&mut self, key: &str) -> Option<bool> {
        self.values.boolean(Prefix::Both, key)
    }

    /// A boolean under Higress's prefix.
    pub(crate) fn higress_flag(&mut self, key: &str) -> Option<bool> {
        self.values.boolean(Prefix::Higress, key)
    }

    /// A whole number under either prefix.
    pub(crate) fn number(&mut self, key: &str) -> Option<i64> {
        self.values.integer(Prefix::Both, key)
    }

    /// A whole number under Higress's prefix.
    pub(crate) fn higress_number(&mut self, key: &str) -> Option<i64> {
        self.values.integer(Prefix::Higress, key)
    }

    /// `on` or `off` under either prefix.
    pub(crate) fn switch(&mut self, key: &str) -> Option<bool> {
        match self.text(key)?.as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => {
                self.note_key(key, "expected `on` or `off`: ignored");
                None
            }
        }
    }

    /// A duration such as `500ms`, `30s` or `2m` under our own prefix; `0s` is "off", told apart from "not set".
    pub(crate) fn tollgate_duration(&mut self, key: &str) -> Option<Duration> {
        let full = format!("{TOLLGATE}{key}");
        let text = self.annotations.get(&full)?.trim();
        let duration = parse_duration(text);
        if duration.is_none() {
            self.note(
                full,
                "expected a duration such as `500ms`, `30s` or `2m`: ignored",
            );
        }
        duration
    }
}

/// `500ms`, `30s`, `2m`, `1h`, and a bare `0`. No fractions, no sums.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits_end = text.find(|character: char| !character.is_ascii_digit());
    let (digits, unit) = text.split_at(digits_end.unwrap_or(text.len()));
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(amount)),
        "s" => Some(Duration::from_secs(amount)),
        "m" => amount.checked_mul(60).map(Duration::from_secs),
        "h" => amount.checked_mul(3600).map(Duration::from_secs),
        "" if amount == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

/// Splits at `separator`, trims, leaves out what is empty.
pub(crate) fn list(text: &str, separator: char) -> Vec<&str> {
    text.split(separator)
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_value_is_noted_once() {
        let annotations = BTreeMap::from([("higress.io/b".to_owned(), "many".to_owned())]);
        let mut reader = Reader::new(&annotations);
        assert_eq!((reader.number("b"), reader.higress_number("b")), (None, None));
        let note = Note {
            key: "higress.io/b".to_owned(),
            message: "expected a whole number: ignored".to_owned(),
        };
        assert_eq!(reader.into_notes(), [note]);
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for bad in ["", "30", "s", "1.5s", "-1s", "99999999999999999999s", "5 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
